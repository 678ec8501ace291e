// Plugging a virtio device of this process into QEMU over vhost-user: what every such device's attach()
// does. The device is behind its gates (virtio/queue-gate.ts), so that a test can steer it.
import { createServer } from 'node:net';
import type { Socket } from 'node:net';
import type { AttachSite, Attachment } from '../qemu/attachment.ts';
import { UsageError } from '../errors.ts';
import { VhostUserBackend, type VhostUserBackendOptions } from '../vhost-user/index.ts';
import type { SteeredDevice } from '../virtio/queue-gate.ts';
import { outlineOf } from './back-end-outline.ts';
import { frontEnd, type FrontEndOptions } from './vhost-user-front-end.ts';

export interface VhostUserAttachmentOptions extends FrontEndOptions {
  readonly steered: SteeredDevice;
  /** Accept QEMU's connection and never answer it: a back end that hangs. */
  readonly mute: boolean;
  /** Called once, when all is closed. */
  readonly onDetached: () => void;
}

/** Listen in the site's directory and say what QEMU is to be told. SystemCallError when it cannot listen. */
export async function attachVhostUser(site: AttachSite, options: VhostUserAttachmentOptions): Promise<Attachment> {
  const { steered, reconnect } = options;
  const { path, shape } = frontEnd(site, steered.device.ringFeatures ?? 0n, options);
  let detached: Promise<void> | undefined;
  const once = (detach: () => Promise<void>) => (): Promise<void> => (detached ??= detach().finally(options.onDetached));

  if (options.mute) {
    const close = await listenMute(path, site.log);
    return {
      ...shape,
      steered: () => true,
      detach: once(async () => {
        await close();
        await steered.device.close?.();
      }),
    };
  }
  const backend = VhostUserBackend.listen({ path, device: steered.device, onError: site.fail, log: site.log, ...recordOf(site) });
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
    backEnd: () => outlineOf(steered.device),
    steered: () => backend.down || steered.steered(),
    ailment: () => (!backend.down ? undefined
      : `its back end crashed, and a driver that waits for what was in flight waits ${reconnect ? 'until gate.restart()' : 'for ever'}`),
    witness: { unit: 'queue', fired: () => backend.fired(), watch: (listener) => { backend.onFired = listener; } },
    detach: once(async () => {
      steered.connect(undefined);
      await backend.close();
      await steered.device.close?.();
    }),
  };
}

function recordOf({ recorder, id }: AttachSite): Pick<VhostUserBackendOptions, 'record'> {
  return recorder === undefined ? {} : { record: { recorder, name: id } };
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
