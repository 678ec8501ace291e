// A stretch of addresses that is given out piece by piece, each aligned as it must be. What is given back is
// given out again to who asks for as much. Pure; used for PCI windows and for guest RAM.
import { UsageError } from '../errors.ts';

export class AddressRange {
  readonly name: string;
  readonly #end: bigint;
  readonly #free: { readonly base: bigint; readonly sizeBytes: bigint }[] = [];
  #next: bigint;

  /** `end` is the first address after it. */
  constructor(name: string, start: bigint, end: bigint) {
    this.name = name;
    this.#next = start;
    this.#end = end;
  }

  /** `alignment` is a power of two. UsageError when there is no room. */
  allocate(sizeBytes: bigint, alignment: bigint): bigint {
    const reused = this.#free.findIndex((one) => one.sizeBytes === sizeBytes && one.base % alignment === 0n);
    if (reused >= 0) return this.#free.splice(reused, 1)[0]?.base ?? 0n;
    const base = (this.#next + alignment - 1n) & -alignment;
    if (base + sizeBytes > this.#end) throw new UsageError(`no room for 0x${sizeBytes.toString(16)} bytes in ${this.name}`);
    this.#next = base + sizeBytes;
    return base;
  }

  /** Give back what `allocate` gave. */
  release(base: bigint, sizeBytes: bigint): void {
    this.#free.push({ base, sizeBytes });
  }
}
