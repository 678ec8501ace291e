// Where the parts of a packed ring lie and which bits they use (virtio 1.2, 2.8), and the arithmetic of
// its wrap counters. No reading or writing of memory. NEXT, WRITE and INDIRECT are split-ring.ts's.
import { layout, u16, u32, u64 } from '../bytes/layout.ts';

/** struct pvirtq_desc, 2.8.13 */
export const pvirtqDesc = layout('pvirtq_desc', 16, {
  addr: u64(0, 'guest-physical address'),
  len: u32(8, 'length in bytes; of a used descriptor: bytes written'),
  id: u16(12, 'buffer id, in the last descriptor of a chain'),
  flags: u16(14, 'VIRTQ_DESC_F_*'),
});

/** struct pvirtq_event_suppress, 2.8.14 */
export const pvirtqEventSuppress = layout('pvirtq_event_suppress', 4, {
  desc: u16(0, 'which descriptor: offset in bits 0 to 14, wrap counter in bit 15'),
  flags: u16(2, 'RING_EVENT_FLAGS_*'),
});

/** Available when it is the driver's wrap counter and USED is not (2.8.1). */
export const VIRTQ_DESC_F_AVAIL = 1 << 7;
/** Used when it and AVAIL are the device's wrap counter (2.8.1). */
export const VIRTQ_DESC_F_USED = 1 << 15;

/** Notify of everything (2.8.10). */
export const RING_EVENT_FLAGS_ENABLE = 0;
/** Notify of nothing. */
export const RING_EVENT_FLAGS_DISABLE = 1;
/** Notify of one descriptor, with VIRTIO_F_RING_EVENT_IDX only. */
export const RING_EVENT_FLAGS_DESC = 2;

/** Alignment and size in bytes of each part for a queue of `size` entries (2.8.10.1). */
export const packedRingParts = {
  desc: { name: 'desc ring', alignment: 16, sizeBytes: (size: number) => 16 * size },
  driver: { name: 'driver event suppression', alignment: 4, sizeBytes: () => 4 },
  device: { name: 'device event suppression', alignment: 4, sizeBytes: () => 4 },
} as const;

/** AVAIL and USED of a descriptor that is available under this wrap counter. */
export function availableFlags(wrap: boolean): number {
  return wrap ? VIRTQ_DESC_F_AVAIL : VIRTQ_DESC_F_USED;
}

/** AVAIL and USED of a descriptor that is used under this wrap counter. */
export function usedFlags(wrap: boolean): number {
  return wrap ? VIRTQ_DESC_F_AVAIL | VIRTQ_DESC_F_USED : 0;
}

/**
 * Whether the last `moved` descriptors (1 to `size`), the next of which is `index` under `wrap`, have the
 * one that the other side asked to be told of: `event` is pvirtq_event_suppress.desc.
 */
export function needPackedEvent(event: number, index: number, wrap: boolean, moved: number, size: number): boolean {
  const offset = event & 0x7fff;
  const place = (event >> 15 === 1) === wrap ? offset : offset - size;
  return place >= index - moved && place < index;
}
