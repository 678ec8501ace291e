// Virtio device ids (virtio 1.2, section 5). A modern PCI function's device id is 0x1040 + this.
// Only those that something here names; not the whole registry.

export const VIRTIO_ID = {
  /** Network device, 5.1 */
  NET: 1,
  /** Block device, 5.2 */
  BLOCK: 2,
  /** Console device, 5.3 */
  CONSOLE: 3,
  /** Entropy device, 5.4 */
  RNG: 4,
  /** Traditional memory balloon, 5.5 */
  BALLOON: 5,
  /** SCSI host, 5.6 */
  SCSI: 8,
  /** GPU device, 5.7 */
  GPU: 16,
  /** Input device, 5.8 */
  INPUT: 18,
  /** Socket device, 5.10 */
  VSOCK: 19,
  /** File system device, 5.11 */
  FS: 26,
  /** I2C adapter device, 5.16 */
  I2C: 34,
  /** GPIO device, 5.18 */
  GPIO: 41,
} as const;

/** The virtio vendor id on PCI (virtio 1.2, 4.1.2). */
export const VIRTIO_PCI_VENDOR_ID = 0x1af4;
/** Modern device ids start here (virtio 1.2, 4.1.2). */
export const VIRTIO_PCI_DEVICE_ID_BASE = 0x1040;
