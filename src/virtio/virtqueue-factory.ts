// Which layout a queue has: by the features that were negotiated, and nothing else.
import { hasFeature, VIRTIO_F } from './features.ts';
import { PackedVirtqueue } from './packed-virtqueue.ts';
import type { RingVirtqueueOptions } from './ring-virtqueue.ts';
import { SplitVirtqueue } from './split-virtqueue.ts';
import type { TransportVirtqueue } from './virtqueue.ts';

export interface VirtqueueOptions extends Omit<RingVirtqueueOptions, 'eventIdx' | 'indirect' | 'inOrder'> {
  /** The virtio feature bits that the driver accepted: layout, EVENT_IDX, INDIRECT and IN_ORDER follow. */
  readonly features: bigint;
}

/** A queue that is broken from the start says so through onBroken; nothing is thrown. */
export function createVirtqueue({ features, ...rest }: VirtqueueOptions): TransportVirtqueue {
  const options = {
    ...rest,
    eventIdx: hasFeature(features, VIRTIO_F.VIRTIO_F_RING_EVENT_IDX),
    indirect: hasFeature(features, VIRTIO_F.VIRTIO_F_RING_INDIRECT_DESC),
    inOrder: hasFeature(features, VIRTIO_F.VIRTIO_F_IN_ORDER),
  };
  return hasFeature(features, VIRTIO_F.VIRTIO_F_RING_PACKED) ? new PackedVirtqueue(options) : new SplitVirtqueue(options);
}
