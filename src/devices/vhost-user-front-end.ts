// What QEMU is to be told of a vhost-user device: its device model, the chardev to the back end, and the netdev
// between them if it is a network card.
import { join } from 'node:path';
import type { AttachSite, Attachment, PropertyValue } from '../qemu/attachment.ts';
import { hasFeature, VIRTIO_F } from '../virtio/features.ts';

export interface FrontEndOptions {
  /** QEMU's device model: vhost-user-blk-pci. */
  readonly driver: string;
  /** Its properties, less `chardev` or `netdev`, and those that let the device's ring features through. */
  readonly properties: Readonly<Record<string, PropertyValue>>;
  /** A network card has its chardev through a netdev: this one's properties, less `chardev`. */
  readonly netdev?: Readonly<Record<string, PropertyValue>>;
  /** QEMU is to connect again to a back end that crashed. */
  readonly reconnect: boolean;
}

/** Where the back end listens, and the front end that connects there. */
export function frontEnd(site: AttachSite, ringFeatures: bigint, options: FrontEndOptions): {
  readonly path: string;
  readonly shape: Pick<Attachment, 'driver' | 'properties' | 'chardevs' | 'netdevs'>;
} {
  const { driver, properties, reconnect } = options;
  const chardev = { id: `${site.id}-chardev`, path: join(site.directory, `${site.id}.sock`), ...(reconnect && { reconnect }) };
  const ring = {
    ...(hasFeature(ringFeatures, VIRTIO_F.VIRTIO_F_RING_PACKED) && { packed: true }),
    ...(hasFeature(ringFeatures, VIRTIO_F.VIRTIO_F_IN_ORDER) && { in_order: true }),
  };
  const netdev = options.netdev && { id: `${site.id}-netdev`, type: 'vhost-user', properties: { ...options.netdev, chardev: chardev.id } };
  return {
    path: chardev.path,
    shape: {
      driver, chardevs: [chardev],
      properties: { ...properties, ...ring, ...(netdev === undefined ? { chardev: chardev.id } : { netdev: netdev.id }) },
      ...(netdev === undefined ? {} : { netdevs: [netdev] }),
    },
  };
}
