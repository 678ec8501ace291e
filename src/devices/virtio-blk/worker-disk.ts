// A disk in a thread of its own (`worker: true`): what the thread is told, and the disk that it makes of it.
import type { DeviceMaker } from '../../vhost-user/worker-main.ts';
import { VirtioBlkDevice, type VirtioBlkDeviceOptions } from './device.ts';
import { FileStorage } from './file-storage.ts';
import { MemoryStorage } from './memory-storage.ts';

export interface WorkerDiskOptions extends Omit<VirtioBlkDeviceOptions, 'storage' | 'log' | 'onKept'> {
  readonly capacityBytes: number;
  /** The disk's bytes, which both threads see, or the file that they are in. */
  readonly content: SharedArrayBuffer | string;
}

export const make: DeviceMaker<WorkerDiskOptions> = async ({ capacityBytes, content, ...options }, { log, tell }) => {
  const storage = typeof content === 'string' ? new FileStorage({ path: content, capacityBytes, readOnly: options.readOnly })
    : new MemoryStorage(capacityBytes, content);
  await storage.open();
  return new VirtioBlkDevice({ ...options, storage, log, onKept: tell });
};
