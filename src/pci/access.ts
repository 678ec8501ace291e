// The one small interface through which a PCI function is reached, on any tier.
// Everything in src/pci is written over it: the guest's probe and (bare tier) qtest implement it.

/** Width of one access, in bytes. */
export type AccessWidth = 1 | 2 | 4 | 8;
/** Widths that config space and I/O space take (PCI Local Bus 3.0, 3.2.2). */
export type ConfigWidth = 1 | 2 | 4;

/**
 * Accesses to one PCI function. Offsets are in bytes from the start of config space or of the BAR
 * (0 to 5). One call is one access of the named width on the bus: it is never split or merged.
 * Rejects with a UsageError for an offset out of range or not a multiple of the width, and with a
 * ProtocolError when the far side refuses.
 */
export interface PciAccess {
  configRead(offset: number, width: ConfigWidth): Promise<number>;
  configWrite(offset: number, width: ConfigWidth, value: number): Promise<void>;
  memRead(bar: number, offset: number, width: AccessWidth): Promise<bigint>;
  memWrite(bar: number, offset: number, width: AccessWidth, value: bigint): Promise<void>;
  ioRead(bar: number, offset: number, width: ConfigWidth): Promise<number>;
  ioWrite(bar: number, offset: number, width: ConfigWidth, value: number): Promise<void>;
}
