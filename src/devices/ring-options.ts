// What every virtio device of ours can be asked about its rings, and what of VirtioDevice follows from it.
import type { VirtioDevice } from '../virtio/device.ts';
import { ringFeatures } from '../virtio/features.ts';

export interface RingOptions {
  /** Offer packed rings (virtio 1.2, 2.8) in place of split ones; the driver decides. Not offered unless told. */
  readonly packed?: boolean;
  /**
   * Offer VIRTIO_F_IN_ORDER (QEMU 10.0 and later): requests are used in the order they came, whenever they
   * are done; Linux 7.3 takes it, 6.1 does not. 'batched': one used entry for a run of them, where the
   * spec lets it. A queue that is held, or one late request, keeps all later ones. Not offered unless told.
   */
  readonly inOrder?: boolean | 'batched';
  /** Offer indirect descriptors (default). Without, a driver puts every piece of a request into the ring itself. */
  readonly indirect?: boolean;
}

export function ringsAsAsked({ packed = false, inOrder = false, indirect = true }: RingOptions): Required<Pick<VirtioDevice, 'ringFeatures' | 'usedBatches'>> {
  return { ringFeatures: ringFeatures({ packed, inOrder: inOrder !== false, indirect }), usedBatches: inOrder === 'batched' };
}
