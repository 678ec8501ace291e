// Where the parts of a split ring lie and which bits they use (virtio 1.2, 2.7), and the arithmetic of
// its 16-bit indices. No reading or writing of memory.
import { layout, u16, u32, u64 } from '../bytes/layout.ts';

/** struct virtq_desc, 2.7.5 */
export const virtqDesc = layout('virtq_desc', 16, {
  addr: u64(0, 'guest-physical address'),
  len: u32(8, 'length in bytes'),
  flags: u16(12, 'VIRTQ_DESC_F_*'),
  next: u16(14, 'the next descriptor, when flags has NEXT'),
});

/** struct virtq_used_elem, 2.7.8 */
export const virtqUsedElem = layout('virtq_used_elem', 8, {
  id: u32(0, 'head of the used chain'),
  len: u32(4, 'bytes written to its device-writable part'),
});

/** The buffer goes on in the descriptor `next` (2.7.5). */
export const VIRTQ_DESC_F_NEXT = 1;
/** The buffer is device-writable, not device-readable (2.7.5). */
export const VIRTQ_DESC_F_WRITE = 2;
/** The buffer is a table of descriptors (2.7.5). */
export const VIRTQ_DESC_F_INDIRECT = 4;
/** avail.flags: the driver asks for no used-buffer notifications (2.7.6). */
export const VIRTQ_AVAIL_F_NO_INTERRUPT = 1;
/** used.flags: the device asks for no available-buffer notifications (2.7.8). */
export const VIRTQ_USED_F_NO_NOTIFY = 1;

/** Largest queue, split (2.7) or packed (2.8). */
export const QUEUE_SIZE_MAX = 32768;

/** Alignment and size in bytes of each part for a queue of `size` entries (2.7). */
export const splitRingParts = {
  desc: { name: 'desc ring', alignment: 16, sizeBytes: (size: number) => 16 * size },
  /** flags, idx, ring[size], used_event: u16 each (2.7.6). */
  avail: { name: 'avail ring', alignment: 2, sizeBytes: (size: number) => 6 + 2 * size },
  /** flags, idx: u16; ring[size] of virtq_used_elem; avail_event: u16 (2.7.8). */
  used: { name: 'used ring', alignment: 4, sizeBytes: (size: number) => 6 + 8 * size },
} as const;

/**
 * Whether moving an index from `before` to `after` passes the place where the other side asked to be
 * told: vring_need_event of 2.7.10, all modulo 2^16.
 */
export function needEvent(event: number, after: number, before: number): boolean {
  return ((after - event - 1) & 0xffff) < ((after - before) & 0xffff);
}
