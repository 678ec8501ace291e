// QEMU's educational device (QEMU: docs/specs/edu.rst): 1234:11e8, BAR0 of 1 MiB, INTx or one MSI
// vector, no MSI-X. The model is QEMU's own; there is no back end here.
import type { Attachment, Device } from '../../qemu/attachment.ts';

export interface EduOptions {
  /** Which addresses its DMA reaches; QEMU's default is 28 bits. */
  readonly dmaMask?: bigint;
}

/** Offsets in BAR0 (QEMU: docs/specs/edu.rst); widths in bytes. */
export const EDU = {
  vendorId: 0x1234,
  deviceId: 0x11e8,
  bar0SizeBytes: 1 << 20,
  /** RO, 4: 0xRRrr00ed, major and minor version. */
  IDENTIFICATION: 0x00,
  /** RW, 4: reads the inversion of what was written. */
  LIVENESS: 0x04,
  /** RW, 4: write n, read n! when STATUS says it is done. */
  FACTORIAL: 0x08,
  /** RW, 4: bit 0 computing (RO), bit 7 raise an interrupt when done. */
  STATUS: 0x20,
  STATUS_COMPUTING: 0x01,
  STATUS_IRQ: 0x80,
  /** RO, 4: why it interrupts. */
  INTERRUPT_STATUS: 0x24,
  /** WO, 4: bits to raise. */
  INTERRUPT_RAISE: 0x60,
  /** WO, 4: bits to acknowledge. */
  INTERRUPT_ACKNOWLEDGE: 0x64,
  /** RW, 8 */
  DMA_SOURCE: 0x80,
  DMA_DESTINATION: 0x88,
  DMA_COUNT: 0x90,
  /** RW, 8: bit 0 start, bit 1 direction (1: from the device to RAM), bit 2 interrupt when done. */
  DMA_COMMAND: 0x98,
  DMA_START: 0x1,
  DMA_FROM_DEVICE: 0x2,
  DMA_IRQ: 0x4,
  /** Where its 4096-byte buffer stands in the device's own addresses. */
  DMA_BUFFER: 0x40000n,
  /** INTERRUPT_STATUS bit of a factorial that ended, and of a DMA that ended. */
  FACTORIAL_DONE: 0x001,
  DMA_DONE: 0x100,
} as const;

export function edu(options: EduOptions = {}): Device {
  return {
    kind: 'edu',
    attach: async (): Promise<Attachment> => ({
      driver: 'edu',
      properties: options.dmaMask === undefined ? {} : { dma_mask: `${options.dmaMask}` },
      chardevs: [],
      detach: async () => {},
    }),
  };
}
