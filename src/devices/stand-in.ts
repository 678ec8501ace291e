// In the place of a device whose back end lived in a process that is gone: the same to QEMU, and mute. What the guest
// asks of it waits for ever, as it does when a back end hangs.
import { basename, join } from 'node:path';
import { ProtocolError } from '../errors.ts';
import type { Attachment, ChardevSpec, Device, FormerAttachment } from '../qemu/attachment.ts';
import { VhostUserBackend } from '../vhost-user/index.ts';
import { deviceOfOutline } from './back-end-outline.ts';

/** @throws ProtocolError for a device with chardevs and nothing known of who was behind them, or with several */
export function standIn({ kind, driver, properties, chardevs, netdevs, backEnd }: FormerAttachment): Device {
  const [chardev, ...more] = chardevs;
  if ((chardev === undefined) !== (backEnd === undefined) || more.length > 0) throw new ProtocolError(`there can be no stand-in for the back end of ${kind} (${driver})`);
  const shape = { driver, properties, ...(netdevs === undefined ? {} : { netdevs }) };
  return {
    kind,
    async attach(site): Promise<Attachment> {
      if (chardev === undefined || backEnd === undefined) return { ...shape, chardevs: [], detach: async () => {} };
      const here: ChardevSpec = { ...chardev, path: join(site.directory, basename(chardev.path)) };
      const backend = VhostUserBackend.listen({ path: here.path, device: deviceOfOutline(backEnd), log: site.log, onError: (error) => site.log(error.message) });
      return { ...shape, chardevs: [here], detach: () => backend.close() };
    },
  };
}
