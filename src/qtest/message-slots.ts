// Interrupt messages that are written into guest RAM instead of to the interrupt controller, so that each can
// be read back: MSI and MSI-X are memory writes (PCI Local Bus 3.0, 6.8). A slot is four bytes, zero until its
// message came. Not here: how a function is told of them (messages.ts).
// A slot tells that a message came, not how often: two before it is taken look like one. When it came is known as
// well as slots are looked at.
import { DeadlineError } from '../errors.ts';
import type { QtestClient } from './client.ts';

/** A message that came: whose slot, and the data written. */
export interface ArrivedMessage {
  readonly vector: number;
  readonly data: number;
}

/** A message that lay in its slot, once: it came between a look that did not find it and one that did. */
export interface FoundMessage {
  /** Its `messageName`. */
  readonly name: string;
  /** On this process's performance.now(). */
  readonly afterMs: number;
  readonly byMs: number;
}

/** Found messages that are remembered. */
const FOUND_MAX = 8192;

export class MessageSlots {
  readonly #qtest: QtestClient;
  readonly base: bigint;
  readonly count: number;
  /** Messages that were taken, by `messageName`. */
  readonly #taken = new Map<string, number>();
  /** By slot: what the last look found there, and when it began. */
  readonly #lay: Uint32Array;
  readonly #lookedMs: Float64Array;
  readonly #found: FoundMessage[] = [];
  #forgotten = 0;

  /** `base` is the guest-physical address of `4 * count` bytes of RAM, which are cleared by `clear`. */
  constructor(qtest: QtestClient, base: bigint, count: number) {
    this.#qtest = qtest;
    this.base = base;
    this.count = count;
    this.#lay = new Uint32Array(count);
    this.#lookedMs = new Float64Array(count).fill(performance.now());
  }

  addressOf(vector: number): bigint {
    return this.base + BigInt(4 * vector);
  }

  async clear(): Promise<void> {
    await this.#qtest.fill(this.base, 4 * this.count, 0);
  }

  /** Every message that came since the last take, QEMU's main loop having settled; their slots are cleared. */
  async take(): Promise<ArrivedMessage[]> {
    await this.#qtest.settle();
    return this.#read();
  }

  /** The message of this vector, as soon as it comes; its slot is cleared. DeadlineError after `timeoutMs`. */
  async takeNext(vector: number, { timeoutMs = 5000 }: { timeoutMs?: number } = {}): Promise<number> {
    const until = performance.now() + timeoutMs;
    // A round trip is a turn of QEMU's main loop, which is what brings messages about: there is nothing to sleep for.
    do {
      const beganMs = performance.now();
      const data = Number(await this.#qtest.memoryRead(this.addressOf(vector), 4));
      this.#note(vector, data, beganMs);
      if (data === 0) continue;
      await this.#clear({ vector, data });
      return data;
    } while (performance.now() < until);
    throw new DeadlineError(`the message of vector ${vector} at 0x${this.addressOf(vector).toString(16)} in guest RAM`, timeoutMs, {
      hint: 'is the vector masked, MSI-X off, or bus mastering off?',
    });
  }

  /**
   * How often each message was found here, taken or still lying in its slot, by `messageName`; nothing is taken.
   * Of messages that came to one slot between two looks the last alone is seen.
   */
  async seen(): Promise<ReadonlyMap<string, number>> {
    await this.#qtest.settle();
    const seen = new Map(this.#taken);
    for (const { vector, data } of await this.#lying()) {
      const name = messageName(this.addressOf(vector), data);
      seen.set(name, (seen.get(name) ?? 0) + 1);
    }
    return seen;
  }

  /** How many messages were found so far; a position for `foundSince`. */
  get foundCount(): number { return this.#forgotten + this.#found.length; }

  /** The messages that were found from a position on; undefined when some of them are forgotten. */
  foundSince(position: number): readonly FoundMessage[] | undefined {
    return position < this.#forgotten ? undefined : this.#found.slice(position - this.#forgotten);
  }

  /** An address is that of a slot. */
  has(address: bigint): boolean {
    return address >= this.base && address < this.base + BigInt(4 * this.count);
  }

  async #read(): Promise<ArrivedMessage[]> {
    const arrived = await this.#lying();
    for (const one of arrived) await this.#clear(one);
    return arrived;
  }

  async #clear({ vector, data }: ArrivedMessage): Promise<void> {
    const beganMs = performance.now();
    await this.#qtest.memoryWrite(this.addressOf(vector), 4, 0n);
    this.#note(vector, 0, beganMs);
    const name = messageName(this.addressOf(vector), data);
    this.#taken.set(name, (this.#taken.get(name) ?? 0) + 1);
  }

  async #lying(): Promise<ArrivedMessage[]> {
    const beganMs = performance.now();
    const bytes = await this.#qtest.read(this.base, 4 * this.count);
    const view = new DataView(bytes.buffer, bytes.byteOffset);
    const arrived: ArrivedMessage[] = [];
    for (let vector = 0; vector < this.count; vector += 1) {
      const data = view.getUint32(4 * vector, true);
      this.#note(vector, data, beganMs);
      if (data !== 0) arrived.push({ vector, data });
    }
    return arrived;
  }

  #note(vector: number, data: number, beganMs: number): void {
    if (data !== 0 && data !== this.#lay[vector]) {
      this.#found.push({ name: messageName(this.addressOf(vector), data), afterMs: this.#lookedMs[vector] ?? beganMs, byMs: performance.now() });
      if (this.#found.length > FOUND_MAX) this.#forgotten += this.#found.splice(0, FOUND_MAX / 2).length;
    }
    this.#lay[vector] = data;
    this.#lookedMs[vector] = beganMs;
  }
}

/** What tells a message from others: where it goes, and what is written there. */
export function messageName(address: bigint, data: number): string {
  return `0x${address.toString(16)} <- 0x${data.toString(16)}`;
}
