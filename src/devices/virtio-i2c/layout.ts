// The I2C adapter's wire layouts and constants (virtio 1.2, 5.16).
import { layout, u16, u32 } from '../../bytes/layout.ts';

/** Requests without data are taken. The driver must have it accepted (5.16.3). */
export const VIRTIO_I2C_F_ZERO_LENGTH_REQUEST = 0;

/** struct virtio_i2c_out_hdr (5.16.6): before the data of a request. */
export const i2cOutHeader = layout('virtio_i2c_out_hdr', 8, {
  addr: u16(0, 'a 7-bit address in bits 1 to 7, as on the wire'),
  padding: u16(2),
  flags: u32(4, 'VIRTIO_I2C_FLAGS'),
});

export const VIRTIO_I2C_FLAGS = {
  /** When this request fails, so do those after it, to the first without this flag. */
  FAIL_NEXT: 1,
  /** The request reads. */
  M_RD: 2,
} as const;

/** struct virtio_i2c_in_hdr: one byte after the data. */
export const VIRTIO_I2C_MSG = { OK: 0, ERR: 1 } as const;
