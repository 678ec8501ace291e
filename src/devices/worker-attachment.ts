// Plugging a virtio device that lives in a thread of its own (vhost-user/worker-backend.ts).
import type { AttachSite, Attachment } from '../qemu/attachment.ts';
import type { VirtioDevice } from '../virtio/device.ts';
import { WorkerBackend } from '../vhost-user/worker-backend.ts';
import { outlineOf } from './back-end-outline.ts';
import { frontEnd, type FrontEndOptions } from './vhost-user-front-end.ts';

/** The device that a thread makes for itself. */
export interface DeviceThread {
  /** A module that exports `make` (DeviceMaker of vhost-user/worker-main.ts). */
  readonly module: URL;
  readonly options: unknown;
  /** What the device said by `tell`. */
  onTold(what: unknown): void;
}

export interface WorkerAttachmentOptions extends FrontEndOptions {
  readonly thread: DeviceThread;
  /** As this thread made it; it is not served. */
  readonly core: VirtioDevice;
  /** Called once, when all is closed. */
  readonly onDetached: () => void;
}

/** Resolves when the thread listens. EnvironmentError when it cannot, or what the device's module threw. */
export async function attachInWorker(site: AttachSite, options: WorkerAttachmentOptions): Promise<Attachment> {
  const { thread, core, onDetached } = options;
  const { path, shape } = frontEnd(site, core.ringFeatures ?? 0n, options);
  const backend = await WorkerBackend.listen({
    path, module: thread.module, deviceOptions: thread.options, queueCount: core.queueCount,
    onError: site.fail, log: site.log, onTold: (what) => thread.onTold(what),
  });
  let detached: Promise<void> | undefined;
  return {
    ...shape,
    witness: { unit: 'queue', fired: () => backend.fired() },
    backEnd: () => outlineOf(core),
    detach: () => (detached ??= backend.close().finally(onDetached)),
  };
}
