// Guest memory over plain buffers, with guard bytes before and after each region, for ring tests.
import type { GuestAddress, GuestMemory, MemoryRegion } from '../../src/virtio/guest-memory.ts';

const GUARD_BYTES = 64;
const GUARD = 0xa5;

interface PlainRegion extends MemoryRegion {
  readonly backing: Uint8Array;
}

export class PlainMemory implements GuestMemory {
  readonly regions: readonly PlainRegion[];

  /** Regions of `sizeBytes` at `guestAddress`, in ascending order; sizes are multiples of 4. */
  constructor(...regions: readonly { guestAddress: number; sizeBytes: number }[]) {
    this.regions = regions.map(({ guestAddress, sizeBytes }) => {
      const backing = new Uint8Array(sizeBytes + 2 * GUARD_BYTES).fill(GUARD);
      backing.fill(0, GUARD_BYTES, GUARD_BYTES + sizeBytes);
      return {
        guestAddress: guestAddress as GuestAddress,
        sizeBytes,
        backing,
        u8: new Uint8Array(backing.buffer, GUARD_BYTES, sizeBytes),
        u16: new Uint16Array(backing.buffer, GUARD_BYTES, sizeBytes / 2),
        u32: new Uint32Array(backing.buffer, GUARD_BYTES, sizeBytes / 4),
      };
    });
  }

  region(address: number, lengthBytes: number): MemoryRegion | undefined {
    if (lengthBytes <= 0) return undefined;
    return this.regions.find((region) =>
      address >= region.guestAddress && address + lengthBytes <= region.guestAddress + region.sizeBytes);
  }

  spans(address: number, lengthBytes: number): Uint8Array[] | undefined {
    const spans: Uint8Array[] = [];
    let at = address;
    while (at < address + lengthBytes) {
      const region = this.region(at, 1);
      if (region === undefined) return undefined;
      const start = at - region.guestAddress;
      const span = region.u8.subarray(start, Math.min(region.sizeBytes, start + address + lengthBytes - at));
      spans.push(span);
      at += span.length;
    }
    return spans;
  }

  write(address: number, source: Uint8Array): void {
    let at = 0;
    for (const span of this.spans(address, source.length) ?? missing(address)) {
      span.set(source.subarray(at, at + span.length));
      at += span.length;
    }
  }

  read(address: number, lengthBytes: number): Uint8Array {
    return new Uint8Array(Buffer.concat(this.spans(address, lengthBytes) ?? missing(address)));
  }

  view(address: number, lengthBytes: number): DataView {
    const [span] = this.spans(address, lengthBytes) ?? missing(address);
    return new DataView(span.buffer, span.byteOffset, lengthBytes);
  }

  /** True when no guard byte was touched. */
  guardsIntact(): boolean {
    return this.regions.every(({ backing, sizeBytes }) =>
      [backing.subarray(0, GUARD_BYTES), backing.subarray(GUARD_BYTES + sizeBytes)].every((guard) => guard.every((byte) => byte === GUARD)));
  }
}

function missing(address: number): never {
  throw new RangeError(`0x${address.toString(16)} is not mapped in this test`);
}
