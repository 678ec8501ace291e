// The bytes of one request: stretches of guest memory, readable ones first, and copies to and from
// them. Made once per id and used again, so that a request costs no garbage. Knows no ring layout; the
// queue keeps its own notes of the request in it.
import type { GuestMemory, MemoryRegion } from './guest-memory.ts';
import type { DescriptorChain } from './virtqueue.ts';

/** Below this many bytes a loop is quicker than making a view for TypedArray.set. */
const LOOP_BYTES = 32;

export class BufferChain implements DescriptorChain {
  readableBytes = 0;
  writableBytes = 0;
  descriptorCount = 0;
  /** The device has it, or it waits for its turn to be used. */
  inFlight = false;
  /** How many requests were taken before it, less those put back: the last one taken has the highest. */
  sequence = 0;
  /** Descriptors of the ring that it takes up (packed rings). */
  slots = 0;
  /** Completed by the device as this, and not yet used: VIRTIO_F_IN_ORDER has it wait. */
  finished = false;
  usedId = 0;
  usedBytes = 0;
  readonly #regions: MemoryRegion[] = [];
  readonly #starts: number[] = [];
  readonly #lengths: number[] = [];
  #readableSegments = 0;
  #segments = 0;

  constructor(public head: number) {}

  clear(): void {
    this.readableBytes = 0;
    this.writableBytes = 0;
    this.descriptorCount = 0;
    this.slots = 0;
    this.#readableSegments = 0;
    this.#segments = 0;
  }

  /** Append a guest range; false when a byte of it is not mapped. Readable ranges come before writable ones. */
  append(memory: GuestMemory, guestAddress: number, lengthBytes: number, writable: boolean): boolean {
    let address = guestAddress;
    let left = lengthBytes;
    while (left > 0) {
      const region = memory.region(address, 1);
      if (region === undefined) return false;
      const start = address - region.guestAddress;
      const length = Math.min(left, region.sizeBytes - start);
      this.#regions[this.#segments] = region;
      this.#starts[this.#segments] = start;
      this.#lengths[this.#segments] = length;
      this.#segments += 1;
      address += length;
      left -= length;
    }
    if (writable) {
      this.writableBytes += lengthBytes;
    } else {
      this.readableBytes += lengthBytes;
      this.#readableSegments = this.#segments;
    }
    return true;
  }

  copyOut(offset: number, target: Uint8Array, targetStart = 0, lengthBytes = target.length - targetStart): void {
    inRange('readable', this.readableBytes, offset, lengthBytes);
    inRange('target', target.length, targetStart, lengthBytes);
    let skip = offset;
    let at = targetStart;
    let left = lengthBytes;
    for (let i = 0; left > 0; i += 1) {
      const length = this.#lengths[i];
      if (skip >= length) {
        skip -= length;
        continue;
      }
      const count = Math.min(left, length - skip);
      copyBytes(this.#regions[i].u8, this.#starts[i] + skip, target, at, count);
      at += count;
      left -= count;
      skip = 0;
    }
  }

  copyIn(offset: number, source: Uint8Array, sourceStart = 0, lengthBytes = source.length - sourceStart): void {
    inRange('writable', this.writableBytes, offset, lengthBytes);
    inRange('source', source.length, sourceStart, lengthBytes);
    let skip = offset;
    let at = sourceStart;
    let left = lengthBytes;
    for (let i = this.#readableSegments; left > 0; i += 1) {
      const length = this.#lengths[i];
      if (skip >= length) {
        skip -= length;
        continue;
      }
      const count = Math.min(left, length - skip);
      copyBytes(source, at, this.#regions[i].u8, this.#starts[i] + skip, count);
      at += count;
      left -= count;
      skip = 0;
    }
  }

  readableSpans(offset = 0, lengthBytes = this.readableBytes - offset): Uint8Array[] {
    inRange('readable', this.readableBytes, offset, lengthBytes);
    return this.#views(0, offset, lengthBytes);
  }

  writableSpans(offset = 0, lengthBytes = this.writableBytes - offset): Uint8Array[] {
    inRange('writable', this.writableBytes, offset, lengthBytes);
    return this.#views(this.#readableSegments, offset, lengthBytes);
  }

  #views(first: number, offset: number, lengthBytes: number): Uint8Array[] {
    const views: Uint8Array[] = [];
    let skip = offset;
    let left = lengthBytes;
    for (let i = first; left > 0; i += 1) {
      const length = this.#lengths[i];
      if (skip >= length) {
        skip -= length;
        continue;
      }
      const count = Math.min(left, length - skip);
      const start = this.#starts[i] + skip;
      views.push(this.#regions[i].u8.subarray(start, start + count));
      left -= count;
      skip = 0;
    }
    return views;
  }
}

function inRange(what: string, sizeBytes: number, offset: number, lengthBytes: number): void {
  if (!(offset >= 0 && lengthBytes >= 0 && offset + lengthBytes <= sizeBytes)) {
    throw new RangeError(`[${offset}, ${offset + lengthBytes}) is outside the ${sizeBytes} ${what} bytes`);
  }
}

function copyBytes(source: Uint8Array, from: number, target: Uint8Array, to: number, count: number): void {
  if (count > LOOP_BYTES) {
    target.set(source.subarray(from, from + count), to);
    return;
  }
  for (let i = 0; i < count; i += 1) target[to + i] = source[from + i];
}
