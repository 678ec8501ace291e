// Random choices out of a seed: a case is its seed, and is run again by it.

/** Values at which bounds checks go wrong. */
const EDGES = [
  0n, 1n, 2n, 3n, 4n, 7n, 8n, 15n, 16n, 255n, 256n, 4095n, 4096n, 0x7fffn, 0x8000n, 0xffffn, 0x10000n, 0x7fffffffn, 0x80000000n, 0xfffffffen,
  0xffffffffn, 0x100000000n, 0x1fffffffffffffn, 0x20000000000000n, 0x7fffffffffffffffn, 0x8000000000000000n, 0xfffffffffffffff0n,
  0xffffffffffffffffn,
];

export class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  /** 0 to 2^32 - 1 (mulberry32). */
  u32(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let t = this.#state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return (t ^ (t >>> 14)) >>> 0;
  }

  /** 0 to n - 1. */
  below(n: number): number {
    return Math.floor((this.u32() / 2 ** 32) * n);
  }

  chance(probability: number): boolean {
    return this.u32() < probability * 2 ** 32;
  }

  pick<T>(from: readonly T[]): T {
    return from[this.below(from.length)] as T;
  }

  u64(): bigint {
    return (BigInt(this.u32()) << 32n) | BigInt(this.u32());
  }

  /** An edge, one beside it, or anything. */
  edge(): bigint {
    const edge = this.pick(EDGES);
    const value = this.chance(0.2) ? this.u64() : this.chance(0.2) ? edge + BigInt(this.below(33) - 16) : edge;
    return BigInt.asUintN(64, value);
  }

  bytes(lengthBytes: number): Uint8Array {
    const bytes = new Uint8Array(lengthBytes);
    for (let i = 0; i < lengthBytes; i += 1) bytes[i] = this.u32();
    return bytes;
  }
}
