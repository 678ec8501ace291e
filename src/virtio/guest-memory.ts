// Guest memory as the rings see it. src/vhost-user implements it over mmap; tests over plain buffers.

/**
 * A guest-physical address. A number: exact to 2^53, and no x86 or arm64 physical address has more
 * than 52 bits. A 64-bit value with a higher word over 0x1fffff is out of every region by definition.
 */
export type GuestAddress = number & { readonly __guestAddress: unique symbol };

/** One contiguous stretch of guest memory, at most 4 GiB. Views are made once, never per request. */
export interface MemoryRegion {
  readonly guestAddress: GuestAddress;
  readonly sizeBytes: number;
  /** Whole-region views, little-endian host assumed (x86-64, arm64). Index = byte offset / element size. */
  readonly u8: Uint8Array;
  readonly u16: Uint16Array;
  readonly u32: Uint32Array;
}

export interface GuestMemory {
  /**
   * The region that holds all of [address, address + lengthBytes), or undefined. A range that crosses
   * from one region into another is undefined here: see `spans`. Length 0 is never held.
   * Allocates nothing.
   */
  region(address: number, lengthBytes: number): MemoryRegion | undefined;
  /**
   * The host views of a guest range that may cross adjacent regions, in order; undefined when any
   * byte of it is not mapped. Makes views: for payloads, not for ring indices.
   */
  spans(address: number, lengthBytes: number): Uint8Array[] | undefined;
}
