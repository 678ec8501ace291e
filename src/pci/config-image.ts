// Config space that was read before, as bytes to look at: 64 (the header), 256 or 4096 of them. Reading past them
// gives ones, as absent config space does, and never throws: what a hostile device says is looked at, not trusted.
// Not here: reading it from a device (config-space.ts), what it means (capability-list.ts, lspci/).

export class ConfigImage {
  readonly #view: DataView;

  constructor(readonly bytes: Uint8Array) {
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  get sizeBytes(): number {
    return this.bytes.length;
  }

  /** Whether all of these bytes were read. */
  has(offset: number, lengthBytes: number): boolean {
    return offset >= 0 && offset + lengthBytes <= this.bytes.length;
  }

  u8(offset: number): number {
    return this.has(offset, 1) ? this.#view.getUint8(offset) : 0xff;
  }

  u16(offset: number): number {
    return this.has(offset, 2) ? this.#view.getUint16(offset, true) : 0xffff;
  }

  u32(offset: number): number {
    return this.has(offset, 4) ? this.#view.getUint32(offset, true) : 0xffffffff;
  }

  u64(offset: number): bigint {
    return (BigInt(this.u32(offset + 4)) << 32n) | BigInt(this.u32(offset));
  }
}
