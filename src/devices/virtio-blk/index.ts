// A virtio disk to plug: QEMU's vhost-user-blk-pci with this process as its back end. The disk's
// behaviour is device.ts's, where its bytes are storage.ts's.
import { statSync } from 'node:fs';
import { constants } from 'node:buffer';
import { UsageError } from '../../errors.ts';
import { ringsAsAsked } from '../ring-options.ts';
import type { RingOptions } from '../ring-options.ts';
import { vhostUserDevice } from '../vhost-user-device.ts';
import type { BackEndFaults, ReconnectOptions, VhostUserDevice } from '../vhost-user-device.ts';
import { VirtioBlkDevice } from './device.ts';
import type { Kept, RefusedRequest } from './device.ts';
import type { BlkRange } from './request.ts';
import { FileStorage } from './file-storage.ts';
import { ID_BYTES, SECTOR_BYTES } from './layout.ts';
import { MemoryStorage } from './memory-storage.ts';
import type { WorkerDiskOptions } from './worker-disk.ts';

export type { RefusedRequest } from './device.ts';
export { BLK_FAULTS, BLK_RING_FAULTS, type BlkRange } from './request.ts';

export interface VirtioBlkOptions extends RingOptions, BackEndFaults, ReconnectOptions {
  /** Request queues, 1 (the default) to 64. Each has an MSI-X vector of its own. */
  readonly queues?: number;
  /** A positive multiple of 512. May be left out for a file that is there: its size. */
  readonly capacityBytes?: number;
  /** Keep the disk in this file, made or grown as needed; without it the disk is in memory. */
  readonly file?: string;
  readonly readOnly?: boolean;
  /**
   * Offer VIRTIO_BLK_F_DISCARD (fstrim, mkfs, blkdiscard); not unless told. A disk in memory reads as zeroes
   * there, one in a file keeps what it had.
   */
  readonly discard?: boolean;
  /** Offer VIRTIO_BLK_F_WRITE_ZEROES (blkdiscard -z, ext4's inode tables); not unless told. */
  readonly writeZeroes?: boolean;
  /** What /sys/block/vdX/serial says: at most 20 ASCII bytes. */
  readonly serial?: string;
  /**
   * Entries of each queue, 4 to 1024; a power of two, or any number with `packed` (Linux 6.1 refuses such a
   * queue, 7.3 takes it). 128 unless told.
   */
  readonly queueSize?: number;
  /**
   * Serve the disk in a thread of its own: what keeps the test's event loop busy does not delay it, and its I/O
   * does not delay the test. No test can steer it then: queue(), gate, resize(), latencyMs, hang and reconnect are
   * UsageErrors. Measured in make bench.
   */
  readonly worker?: boolean;
}

/** A virtio-blk device. Plugged again after an unplug, a memory disk has the bytes it had. */
export interface VirtioBlk extends VhostUserDevice {
  readonly queues: number;
  readonly capacityBytes: number;
  readonly serial: string;
  /** The disk's content, live, until it is resized. UsageError for a disk in a file. */
  readonly bytes: Buffer;
  /** Ranges that the driver discarded, in its order: the first thousand. */
  readonly discarded: readonly BlkRange[];
  /** Ranges that the driver had zeroed by WRITE_ZEROES, in its order: the first thousand. */
  readonly zeroed: readonly BlkRange[];
  /**
   * Another capacity, a positive multiple of 512 bytes; a plugged disk's driver is told by a config-change
   * interrupt. What a smaller disk in memory loses is gone; a file grows and is never shrunk. UsageError for a
   * capacity that cannot be, and for a larger read-only file.
   */
  resize(capacityBytes: number): Promise<void>;
  /** What the driver did against the spec, the first thousand requests of it. */
  readonly refused: readonly RefusedRequest[];
}

const QUEUES_MAX = 64;
const QUEUE_SIZE_MAX = 1024;

/** Throws UsageError for options that make no disk. */
export function virtioBlk(options: VirtioBlkOptions): VirtioBlk {
  const {
    queues = 1, file, readOnly = false, discard = false, writeZeroes = false, serial = 'rootport', queueSize = 128, packed = false, worker = false,
  } = options;
  whole('queues', queues, 1, QUEUES_MAX);
  whole('queueSize', queueSize, 4, QUEUE_SIZE_MAX);
  if (!packed && (queueSize & (queueSize - 1)) !== 0) throw new UsageError(`virtioBlk: queueSize ${queueSize} is not a power of two`);
  if (!/^[\x20-\x7e]*$/.test(serial) || serial.length > ID_BYTES) {
    throw new UsageError(`virtioBlk: the serial ${JSON.stringify(serial)} is not at most ${ID_BYTES} printable ASCII characters`);
  }
  const capacityBytes = capacityOf(options);
  const shared = worker && file === undefined ? new SharedArrayBuffer(capacityBytes) : undefined;
  const storage = file === undefined ? new MemoryStorage(capacityBytes, shared) : new FileStorage({ path: file, capacityBytes, readOnly });
  const shape = { queueCount: queues, queueSizeMax: queueSize, readOnly, discard, writeZeroes, serial, ...ringsAsAsked(options) };
  let plugged = false;
  const { core, device } = vhostUserDevice({
    kind: 'virtio-blk',
    maker: 'virtioBlk',
    driver: 'vhost-user-blk-pci',
    properties: { 'num-queues': queues, 'queue-size': queueSize, vectors: queues + 1 },
    guest: { modules: ['virtio_pci', 'virtio_blk'], ready: 'virtio*/block/*' },
    faults: options,
    reconnect: options.reconnect ?? false,
    make: (log) => new VirtioBlkDevice({ storage, log, ...shape }),
    async open() {
      await storage.open();
      plugged = true;
    },
    closed: () => { plugged = false; },
    thread: worker ? {
      module: new URL('../../../dist/devices/virtio-blk/worker-disk.js', import.meta.url),
      options: { ...shape, capacityBytes, content: shared ?? file ?? '' } satisfies WorkerDiskOptions,
      onTold(what) {
        const { list, entries } = what as Kept;
        (core[list] as unknown[]).push(...entries);
      },
    } : undefined,
  });
  return {
    ...device,
    queues,
    serial,
    refused: core.refused,
    discarded: core.discarded,
    zeroed: core.zeroed,
    get capacityBytes() {
      return storage.capacityBytes;
    },
    async resize(to) {
      if (worker) throw new UsageError('virtioBlk: resize with worker: true', { hint: 'leave worker out' });
      checkCapacity(to, file);
      if (readOnly && file !== undefined && to > storage.capacityBytes) throw new UsageError(`virtioBlk: ${file} is read-only and does not grow`);
      await core.resize(to);
      if (plugged) device.gate.interruptConfig();
    },
    get bytes() {
      if (storage instanceof MemoryStorage) return storage.bytes;
      throw new UsageError(`virtioBlk: the disk is in ${file}, not in memory`, { hint: 'Read the file after a sync in the guest.' });
    },
  };
}

function whole(name: string, value: number, least: number, most: number): void {
  if (!Number.isInteger(value) || value < least || value > most) {
    throw new UsageError(`virtioBlk: ${name} ${value} is not a whole number from ${least} to ${most}`);
  }
}

/** What was asked for, checked against the file if there is one. */
function capacityOf({ capacityBytes, file, readOnly = false }: VirtioBlkOptions): number {
  const there = file === undefined ? undefined : statSync(file, { throwIfNoEntry: false });
  if (there !== undefined && !there.isFile()) throw new UsageError(`virtioBlk: ${file} is not a regular file`);
  const capacity = capacityBytes ?? there?.size;
  if (capacity === undefined) {
    throw new UsageError('virtioBlk: no capacity', { hint: 'Give capacityBytes, such as 64 * 2 ** 20, or a file that is there.' });
  }
  checkCapacity(capacity, file);
  if (there !== undefined && there.size > capacity) {
    throw new UsageError(`virtioBlk: ${file} has ${there.size} bytes, more than the capacity of ${capacity}`, { hint: 'Leave capacityBytes out, or give another file: no file is shrunk.' });
  }
  if (readOnly && file !== undefined && (there?.size ?? 0) < capacity) {
    throw new UsageError(`virtioBlk: ${file} has ${there?.size ?? 0} bytes, fewer than the capacity of ${capacity}, and a read-only disk does not grow it`);
  }
  return capacity;
}

function checkCapacity(capacity: number, file: string | undefined): void {
  if (!Number.isSafeInteger(capacity) || capacity <= 0 || capacity % SECTOR_BYTES !== 0) {
    const hint = Number.isSafeInteger(capacity) && capacity > 0 ? `The next one is ${Math.ceil(capacity / SECTOR_BYTES) * SECTOR_BYTES}.` : 'Such as 64 * 2 ** 20.';
    throw new UsageError(`virtioBlk: a capacity of ${capacity} bytes is not a positive multiple of ${SECTOR_BYTES}`, { hint });
  }
  if (file === undefined && capacity > constants.MAX_LENGTH) {
    throw new UsageError(`virtioBlk: ${capacity} bytes are more than a disk in memory can have (${constants.MAX_LENGTH})`, { hint: 'Give a file: it may be sparse.' });
  }
}
