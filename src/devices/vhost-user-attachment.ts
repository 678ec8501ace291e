// Plugging a virtio device of this process into QEMU over vhost-user: what every such device's attach()
// does. The device is behind its gates (virtio/queue-gate.ts), so that a test can steer it.
import { createServer } from 'node:net';
import type { Socket } from 'node:net';
import { join } from 'node:path';
import type { AttachSite, Attachment, PropertyValue } from '../qemu/attachment.ts';
import { UsageError } from '../errors.ts';
import { VhostUserBackend } from '../vhost-user/index.ts';
import { hasFeature, VIRTIO_F } from '../virtio/features.ts';
import type { SteeredDevice } from '../virtio/queue-gate.ts';

export interface VhostUserAttachmentOptions {
  /** QEMU's device model: vhost-user-blk-pci. */
  readonly driver: string;
  /** Its properties, less `chardev` or `netdev`, and those that let the device's ring features through. */
  readonly properties: Readonly<Record<string, PropertyValue>>;
  /** A network card has its chardev through a netdev: this one's properties, less `chardev`. */
  readonly netdev?: Readonly<Record<string, PropertyValue>>;
  readonly steered: SteeredDevice;
  /** Accept QEMU's connection and never answer it: a back end that hangs. */
  readonly mute: boolean;
  /** QEMU is to connect again to a back end that crashed. */
  readonly reconnect: boolean;
  /** Called once, when all is closed. */
  readonly onDetached: () => void;
}

/** Listen in the site's directory and say what QEMU is to be told. SystemCallError when it cannot listen. */
export async function attachVhostUser(site: AttachSite, options: VhostUserAttachmentOptions): Promise<Attachment> {
  const { driver, properties, steered, reconnect } = options;
  const chardev = { id: `${site.id}-chardev`, path: join(site.directory, `${site.id}.sock`), ...(reconnect && { reconnect }) };
  const { ringFeatures = 0n } = steered.device;
  const ring = {
    ...(hasFeature(ringFeatures, VIRTIO_F.VIRTIO_F_RING_PACKED) && { packed: true }),
    ...(hasFeature(ringFeatures, VIRTIO_F.VIRTIO_F_IN_ORDER) && { in_order: true }),
  };
  const netdev = options.netdev && { id: `${site.id}-netdev`, type: 'vhost-user', properties: { ...options.netdev, chardev: chardev.id } };
  const shape = {
    driver, chardevs: [chardev],
    properties: { ...properties, ...ring, ...(netdev === undefined ? { chardev: chardev.id } : { netdev: netdev.id }) },
    ...(netdev === undefined ? {} : { netdevs: [netdev] }),
  };
  let detached: Promise<void> | undefined;
  const once = (detach: () => Promise<void>) => (): Promise<void> => (detached ??= detach().finally(options.onDetached));

  if (options.mute) {
    const close = await listenMute(chardev.path, site.log);
    return {
      ...shape,
      detach: once(async () => {
        await close();
        await steered.device.close?.();
      }),
    };
  }
  const backend = VhostUserBackend.listen({ path: chardev.path, device: steered.device, onError: site.fail, log: site.log });
  backend.beforeCall = steered.beforeCall;
  steered.connect({
    signal: (index) => backend.signal(index),
    configChanged: () => backend.configChanged(),
    needsReset: () => backend.needsReset(),
    crash: () => backend.crash({ down: true }),
    async restart({ timeoutMs = 10_000, signal }) {
      if (!reconnect) {
        throw new UsageError('QEMU does not connect again to this device', {
          hint: 'virtioBlk and virtioNet can be made with `reconnect: true`; of other devices QEMU does not stand it.',
        });
      }
      await backend.restart({ timeoutMs, signal: AbortSignal.any([signal, site.signal].filter((one) => one !== undefined)) });
    },
  });
  return {
    ...shape,
    ailment: () => (!backend.down ? undefined
      : `its back end crashed, and a driver that waits for what was in flight waits ${reconnect ? 'until gate.restart()' : 'for ever'}`),
    witness: { unit: 'queue', fired: () => backend.fired() },
    detach: once(async () => {
      steered.connect(undefined);
      await backend.close();
      await steered.device.close?.();
    }),
  };
}

/** A listener that says nothing to whoever connects. Resolves to what closes it. */
async function listenMute(path: string, log: (line: string) => void): Promise<() => Promise<void>> {
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    log('vhost-user: a front end connected, and is never answered');
    socket.on('error', () => socket.destroy()).on('close', () => sockets.delete(socket)).resume();
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject).listen(path, resolve);
  });
  return () => new Promise((resolve) => {
    server.close(() => resolve());
    for (const socket of sockets) socket.destroy();
  });
}
