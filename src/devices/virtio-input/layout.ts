// The input device's wire layouts (virtio 1.2, 5.8.4 and 5.8.6).
import { bytes, layout, u16, u32, u8 } from '../../bytes/layout.ts';

/** What config space shows: the driver writes `select` and `subsel`, then reads `size` and `u` (5.8.5). */
export const VIRTIO_INPUT_CFG = {
  VIRTIO_INPUT_CFG_UNSET: 0x00,
  /** The device's name. */
  VIRTIO_INPUT_CFG_ID_NAME: 0x01,
  VIRTIO_INPUT_CFG_ID_SERIAL: 0x02,
  /** inputDevids. */
  VIRTIO_INPUT_CFG_ID_DEVIDS: 0x03,
  /** Bitmap of INPUT_PROP_*. */
  VIRTIO_INPUT_CFG_PROP_BITS: 0x10,
  /** Bitmap of the codes of event type `subsel`. */
  VIRTIO_INPUT_CFG_EV_BITS: 0x11,
  /** inputAbsInfo of axis `subsel`. */
  VIRTIO_INPUT_CFG_ABS_INFO: 0x12,
} as const;

/** Bytes of config.u: the longest string or bitmap. */
export const INPUT_DATA_BYTES = 128;

/** struct virtio_input_config (5.8.4). */
export const inputConfig = layout('virtio_input_config', 136, {
  select: u8(0, 'VIRTIO_INPUT_CFG_*, written by the driver'),
  subsel: u8(1, 'written by the driver'),
  size: u8(2, 'bytes of u that are valid'),
  reserved: bytes(3, 5),
  u: bytes(8, INPUT_DATA_BYTES, 'string, bitmap, abs or ids'),
});

/** struct virtio_input_devids (5.8.4). */
export const inputDevids = layout('virtio_input_devids', 8, {
  bustype: u16(0, 'BUS_* of linux/input.h'),
  vendor: u16(2),
  product: u16(4),
  version: u16(6),
});

/** struct virtio_input_absinfo (5.8.4). Two's complement. */
export const inputAbsInfo = layout('virtio_input_absinfo', 20, {
  min: u32(0),
  max: u32(4),
  fuzz: u32(8),
  flat: u32(12),
  res: u32(16, 'units per millimetre'),
});

/** struct virtio_input_event (5.8.6). */
export const inputEvent = layout('virtio_input_event', 8, {
  type: u16(0, 'EV_*'),
  code: u16(2),
  value: u32(4, "two's complement"),
});
