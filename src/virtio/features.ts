// Feature bits (virtio 1.2, section 6 and the devices' own sections), as bit numbers in the spec's
// spelling. Which of them are offered is the device's and the transport's to say, not this file's.

/** Bits of any device and transport (virtio 1.2, section 6). */
export const VIRTIO_F = {
  /** Legacy: the device reports when it runs out of buffers (6.3). */
  VIRTIO_F_NOTIFY_ON_EMPTY: 24,
  /** Legacy: descriptors may be laid out in any way; VERSION_1 implies it (6.3). */
  VIRTIO_F_ANY_LAYOUT: 27,
  /** A descriptor may point to a table of descriptors (2.7.5.3). */
  VIRTIO_F_RING_INDIRECT_DESC: 28,
  /** used_event and avail_event say when to notify (2.7.7 and 2.7.10). */
  VIRTIO_F_RING_EVENT_IDX: 29,
  /** Compliance with virtio 1.0 and later (6). */
  VIRTIO_F_VERSION_1: 32,
  /** The device reaches memory through a platform's IOMMU (6). */
  VIRTIO_F_ACCESS_PLATFORM: 33,
  /** The packed ring of 2.8 in place of the split one. */
  VIRTIO_F_RING_PACKED: 34,
  /** Buffers are used in the order they were made available (6). */
  VIRTIO_F_IN_ORDER: 35,
  /** Memory is ordered as the platform demands of real devices (6). */
  VIRTIO_F_ORDER_PLATFORM: 36,
  /** Single root I/O virtualisation (6). */
  VIRTIO_F_SR_IOV: 37,
  /** The driver passes extra data in its notifications (6). */
  VIRTIO_F_NOTIFICATION_DATA: 38,
  /** The driver uses the device's data to identify a queue in notifications (6). */
  VIRTIO_F_NOTIF_CONFIG_DATA: 39,
  /** A queue can be reset on its own (2.6.1). */
  VIRTIO_F_RING_RESET: 40,
} as const;

/** Bits of the block device (virtio 1.2, 5.2.3). */
export const VIRTIO_BLK_F = {
  /** config.size_max is valid: the largest segment. */
  VIRTIO_BLK_F_SIZE_MAX: 1,
  /** config.seg_max is valid: the most data segments a request may have. */
  VIRTIO_BLK_F_SEG_MAX: 2,
  /** config.geometry is valid. */
  VIRTIO_BLK_F_GEOMETRY: 4,
  /** The disk is read-only. */
  VIRTIO_BLK_F_RO: 5,
  /** config.blk_size is valid. */
  VIRTIO_BLK_F_BLK_SIZE: 6,
  /** The device takes VIRTIO_BLK_T_FLUSH. */
  VIRTIO_BLK_F_FLUSH: 9,
  /** config.topology is valid. */
  VIRTIO_BLK_F_TOPOLOGY: 10,
  /** The driver may switch the write cache through config.writeback. */
  VIRTIO_BLK_F_CONFIG_WCE: 11,
  /** config.num_queues is valid. */
  VIRTIO_BLK_F_MQ: 12,
  /** The device takes VIRTIO_BLK_T_DISCARD. */
  VIRTIO_BLK_F_DISCARD: 13,
  /** The device takes VIRTIO_BLK_T_WRITE_ZEROES. */
  VIRTIO_BLK_F_WRITE_ZEROES: 14,
  /** The device reports its lifetime. */
  VIRTIO_BLK_F_LIFETIME: 15,
  /** The device takes VIRTIO_BLK_T_SECURE_ERASE. */
  VIRTIO_BLK_F_SECURE_ERASE: 16,
} as const;

/** The mask of the bits given: `featureMask(VIRTIO_F.VIRTIO_F_VERSION_1, ...)`. */
export function featureMask(...bits: readonly number[]): bigint {
  return bits.reduce((mask, bit) => mask | (1n << BigInt(bit)), 0n);
}

/** Whether `features` has the bit. */
export function hasFeature(features: bigint, bit: number): boolean {
  return (features >> BigInt(bit) & 1n) === 1n;
}

/** What a device offers of the ring's features when it says nothing of them. */
export const RING_FEATURES = featureMask(VIRTIO_F.VIRTIO_F_RING_INDIRECT_DESC, VIRTIO_F.VIRTIO_F_RING_EVENT_IDX);

/** What a device offers of the ring's features, with what it is asked to, and without `indirect: false`. */
export function ringFeatures({ packed = false, inOrder = false, indirect = true }: { packed?: boolean; inOrder?: boolean; indirect?: boolean }): bigint {
  const { VIRTIO_F_RING_INDIRECT_DESC, VIRTIO_F_RING_PACKED, VIRTIO_F_IN_ORDER } = VIRTIO_F;
  return (indirect ? RING_FEATURES : RING_FEATURES & ~featureMask(VIRTIO_F_RING_INDIRECT_DESC))
    | featureMask(...(packed ? [VIRTIO_F_RING_PACKED] : []), ...(inOrder ? [VIRTIO_F_IN_ORDER] : []));
}
