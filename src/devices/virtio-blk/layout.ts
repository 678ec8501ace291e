// The block device's wire layouts and constants (virtio 1.2, 5.2). Secure-erase is not offered: its fields are
// past the end of this config space.
import { bytes, layout, u16, u32, u64, u8 } from '../../bytes/layout.ts';

/** Capacity and request sectors are of this size, whatever blk_size says (5.2.4, 5.2.6). */
export const SECTOR_BYTES = 512;
/** Length of the id that GET_ID gives (5.2.6). */
export const ID_BYTES = 20;

/** struct virtio_blk_config (5.2.4). */
export const blkConfig = layout('virtio_blk_config', 60, {
  capacity: u64(0, 'in 512-byte sectors'),
  size_max: u32(8, 'largest segment, with SIZE_MAX'),
  seg_max: u32(12, 'most data segments in a request, with SEG_MAX'),
  cylinders: u16(16, 'with GEOMETRY'),
  heads: u8(18, 'with GEOMETRY'),
  sectors: u8(19, 'with GEOMETRY'),
  blk_size: u32(20, 'logical block size in bytes, with BLK_SIZE'),
  physical_block_exp: u8(24, 'log2 of logical blocks in a physical one, with TOPOLOGY'),
  alignment_offset: u8(25, 'first aligned logical block, with TOPOLOGY'),
  min_io_size: u16(26, 'suggested least I/O in logical blocks, with TOPOLOGY'),
  opt_io_size: u32(28, 'suggested best I/O in logical blocks, with TOPOLOGY'),
  writeback: u8(32, 'cache mode, with CONFIG_WCE'),
  num_queues: u16(34, 'with MQ'),
  max_discard_sectors: u32(36, 'in one segment, with DISCARD'),
  max_discard_seg: u32(40, 'segments in a request, with DISCARD'),
  discard_sector_alignment: u32(44, 'in 512-byte sectors, with DISCARD'),
  max_write_zeroes_sectors: u32(48, 'in one segment, with WRITE_ZEROES'),
  max_write_zeroes_seg: u32(52, 'segments in a request, with WRITE_ZEROES'),
  write_zeroes_may_unmap: u8(56, '1: a segment may be deallocated where its flags allow it'),
  unused1: bytes(57, 3),
});

/** The head of struct virtio_blk_req (5.2.6). */
export const blkRequestHeader = layout('virtio_blk_req', 16, {
  type: u32(0, 'VIRTIO_BLK_T_*'),
  reserved: u32(4),
  sector: u64(8, 'of IN and OUT, in 512-byte sectors'),
});

/** struct virtio_blk_discard_write_zeroes (5.2.6): the data of DISCARD and WRITE_ZEROES is a list of these. */
export const blkSegment = layout('virtio_blk_discard_write_zeroes', 16, {
  sector: u64(0, 'in 512-byte sectors'),
  num_sectors: u32(8),
  flags: u32(12, 'bit 0, of WRITE_ZEROES only: the device may deallocate'),
});

/** The flag of a segment that says so (5.2.6.1). */
export const SEGMENT_UNMAP = 1;
/** What this device takes: 16 segments of 8 MiB in one request. Its memory is filled on the event loop. */
export const SEGMENTS_MAX = 16, SEGMENT_SECTORS_MAX = 2 ** 14;

/** Request types (5.2.6). */
export const VIRTIO_BLK_T = {
  /** Read. */
  VIRTIO_BLK_T_IN: 0,
  /** Write. */
  VIRTIO_BLK_T_OUT: 1,
  /** Make completed writes stable. */
  VIRTIO_BLK_T_FLUSH: 4,
  /** The device's id string. */
  VIRTIO_BLK_T_GET_ID: 8,
  VIRTIO_BLK_T_GET_LIFETIME: 10,
  VIRTIO_BLK_T_DISCARD: 11,
  VIRTIO_BLK_T_WRITE_ZEROES: 13,
  VIRTIO_BLK_T_SECURE_ERASE: 14,
} as const;

/** The status byte (5.2.6). */
export const VIRTIO_BLK_S = {
  VIRTIO_BLK_S_OK: 0,
  /** Device or driver error. */
  VIRTIO_BLK_S_IOERR: 1,
  /** The device does not take such requests. */
  VIRTIO_BLK_S_UNSUPP: 2,
} as const;
