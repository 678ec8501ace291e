// A packed virtqueue, device side (virtio 1.2, 2.8), with EVENT_IDX, INDIRECT and IN_ORDER, of any size. What
// it shares with split ones, and what is said of ordering, is in ring-virtqueue.ts.
import { BufferChain } from './buffer-chain.ts';
import { walkPacked } from './descriptor-walk.ts';
import type { DescriptorTable } from './descriptor-walk.ts';
import {
  availableFlags, needPackedEvent, packedRingParts, RING_EVENT_FLAGS_DESC, RING_EVENT_FLAGS_DISABLE, RING_EVENT_FLAGS_ENABLE, usedFlags,
  VIRTQ_DESC_F_AVAIL, VIRTQ_DESC_F_USED,
} from './packed-ring.ts';
import type { GuestMemory } from './guest-memory.ts';
import type { Resubmission } from './ring-journal.ts';
import { RingVirtqueue } from './ring-virtqueue.ts';
import type { RingVirtqueueOptions } from './ring-virtqueue.ts';
import { QUEUE_SIZE_MAX, VIRTQ_DESC_F_WRITE } from './split-ring.ts';

/** The base of a ring that was never used: both indices 0, both wrap counters 1 (2.8.1). */
export const PACKED_BASE = 0x80008000;

export class PackedVirtqueue extends RingVirtqueue {
  readonly #table: DescriptorTable = { words: new Uint32Array(0), base: 0, entries: 0 };
  /** The descriptor ring in 16-bit words: flags of descriptor i are at #flagsAt + 8 * i. */
  #desc16: Uint16Array = new Uint16Array(0);
  #flagsAt = 0;
  #driver32: Uint32Array = new Uint32Array(0);
  #driverAt = 0;
  #device32: Uint32Array = new Uint32Array(0);
  #deviceAt = 0;
  /** The next descriptor to take, and to write as used, each with its wrap counter. */
  #avail: number;
  #availWrap: boolean;
  #used: number;
  #usedWrap: boolean;
  /** Descriptors from #used to #avail: taken and not used. */
  #owned = 0;
  /** Descriptors used since the driver was last let see. */
  #moved = 0;
  /** The first of them, whose flags are written last: the driver sees all or none. */
  #firstAt = 0;
  #firstFlags = 0;
  /** Filled by the next take(), whose id is known only at its end. */
  #spare = new BufferChain(0);
  /** How many of the requests to resubmit were given. */
  #resubmitted = 0;

  constructor(options: RingVirtqueueOptions) {
    super(options);
    const { base } = options;
    this.#avail = base & 0x7fff;
    this.#availWrap = (base >>> 15 & 1) === 1;
    this.#used = base >>> 16 & 0x7fff;
    this.#usedWrap = (base >>> 31) === 1;
    if (!(this.size >= 1 && this.size <= QUEUE_SIZE_MAX)) {
      this.fail(`queue size ${this.size} is not one from 1 to ${QUEUE_SIZE_MAX}`);
      return;
    }
    this.#owned = this.#avail - this.#used + (this.#availWrap === this.#usedWrap ? 0 : this.size);
    const at = `base 0x${base.toString(16)} of a packed ring of ${this.size}`;
    if (this.#avail >= this.size || this.#used >= this.size) {
      this.fail(`${at} is past its end`);
      return;
    }
    if (this.#owned < 0 || this.#owned > this.size) {
      this.fail(`${at} has used more than was available`);
      return;
    }
    if (this.#owned === this.size && options.resubmit === undefined) {
      // No request could ever come. DPDK's virtio-user leaves the used half 0 and means that all is used.
      this.#used = this.#avail;
      this.#usedWrap = this.#availWrap;
      this.#owned = 0;
    }
    this.remap();
    // A life before may have left another wish there.
    if (this.broken !== undefined) return;
    Atomics.store(this.#device32, this.#deviceAt, RING_EVENT_FLAGS_ENABLE << 16);
    options.journal?.asked();
    options.journal?.used(wrapped(this.#used, this.#usedWrap), 0);
    if (options.resubmit !== undefined) this.#unuse();
  }

  get base(): number {
    return (wrapped(this.#used, this.#usedWrap) << 16 | wrapped(this.#avail, this.#availWrap)) >>> 0;
  }

  remap(): void {
    const desc = this.locate(packedRingParts.desc, this.options.descAddress);
    const driver = this.locate(packedRingParts.driver, this.options.driverAddress);
    const device = this.locate(packedRingParts.device, this.options.deviceAddress);
    if (desc === undefined || driver === undefined || device === undefined) return;
    this.#table.words = desc.region.u32;
    this.#table.base = desc.offset / 4;
    this.#table.entries = this.size;
    this.#desc16 = desc.region.u16;
    this.#flagsAt = desc.offset / 2 + 7;
    this.#driver32 = driver.region.u32;
    this.#driverAt = driver.offset / 4;
    this.#device32 = device.region.u32;
    this.#deviceAt = device.offset / 4;
  }

  protected look(): boolean {
    if (this.#resubmitted < (this.options.resubmit?.length ?? 0) || this.#isAvailable()) return true;
    if (!this.options.eventIdx) return false;
    Atomics.store(this.#device32, this.#deviceAt, RING_EVENT_FLAGS_DESC << 16 | wrapped(this.#avail, this.#availWrap));
    return this.#isAvailable();
  }

  protected take(): BufferChain | undefined {
    const chain = this.#spare;
    const { memory, indirect, chainLimit = this.size } = this.options;
    const again = this.options.resubmit?.[this.#resubmitted];
    const free = this.size - this.#owned;
    const wrong = again !== undefined ? walkNoted(chain, again, memory, indirect, chainLimit)
      : walkPacked(chain, this.#table, this.#avail, this.#availWrap, free, memory, indirect, chainLimit);
    if (wrong !== undefined) return this.fail(wrong);
    const id = chain.head;
    if (id >= this.size) return this.fail(`buffer id ${id} in a queue of ${this.size}`);
    const last = this.chains[id];
    if (last?.inFlight === true) return this.fail(`buffer id ${id} was made available again while the device has it`);
    this.#spare = last ?? new BufferChain(0);
    this.chains[id] = chain;
    if (again !== undefined) {
      this.#resubmitted += 1;
      return chain;
    }
    const first = this.#avail;
    this.#owned += chain.slots;
    this.#avail += chain.slots;
    if (this.#avail >= this.size) {
      this.#avail -= this.size;
      this.#availWrap = !this.#availWrap;
    }
    this.options.journal?.taken(chain, this.#table, first);
    return chain;
  }

  /** What was resubmitted may have lost its place to what was used since: the ring must still hold it, last of all. */
  protected untakes({ sequence, slots }: BufferChain): boolean {
    const descriptors = this.options.resubmit?.[sequence - 1]?.descriptors;
    if (descriptors === undefined) return true;
    const { words, base } = this.#table;
    const first = this.#avail - slots + this.size;
    return descriptors.every((word, i) => {
      const inRing = words[base + 4 * ((first + (i >> 2)) % this.size) + (i & 3)];
      return i % 4 === 3 ? (inRing & ~LAP_BITS) === (word & ~LAP_BITS) : inRing === word;
    });
  }

  protected untake({ slots }: BufferChain): void {
    this.#owned -= slots;
    this.#avail -= slots;
    if (this.#avail < 0) {
      this.#avail += this.size;
      this.#availWrap = !this.#availWrap;
    }
  }

  protected use(id: number, writtenBytes: number, _requests: number, slots: number): void {
    const flags = this.#flagsAt + 8 * this.#used;
    this.#table.words[this.#table.base + 4 * this.#used + 2] = writtenBytes;
    this.#desc16[flags - 1] = id;
    // 2.8.3: WRITE says that there is a length to read.
    const value = usedFlags(this.#usedWrap) | (writtenBytes > 0 ? VIRTQ_DESC_F_WRITE : 0);
    if (this.#moved > 0) {
      Atomics.store(this.#desc16, flags, value);
    } else {
      this.#firstAt = flags;
      this.#firstFlags = value;
    }
    // More may be said to be used than was: a test's lie (putUsed).
    this.#owned = Math.max(0, this.#owned - slots);
    this.#moved += slots;
    this.#used += slots;
    if (this.#used >= this.size) {
      this.#used -= this.size;
      this.#usedWrap = !this.#usedWrap;
    }
  }

  protected publish(): boolean {
    const moved = this.#moved;
    this.#moved = 0;
    if (moved > 0) Atomics.store(this.#desc16, this.#firstAt, this.#firstFlags);
    this.options.journal?.used(wrapped(this.#used, this.#usedWrap), moved);
    // In one load, so that the place and the flag that says that it counts are of the same wish.
    const wish = Atomics.load(this.#driver32, this.#driverAt);
    const flags = wish >>> 16 & 3;
    if (flags === RING_EVENT_FLAGS_DISABLE) return false;
    if (flags !== RING_EVENT_FLAGS_DESC || !this.options.eventIdx) return true;
    return needPackedEvent(wish & 0xffff, this.#used, this.#usedWrap, moved, this.size);
  }

  /**
   * The life before may have ended in the middle of several that were to be used at once, the first not yet: the
   * driver would take what stands behind it for used as soon as anything is.
   */
  #unuse(): void {
    for (let i = 0; i < this.#owned; i += 1) {
      const lap = this.#used + i < this.size ? this.#usedWrap : !this.#usedWrap;
      const at = this.#flagsAt + 8 * ((this.#used + i) % this.size);
      const flags = this.#desc16[at];
      if ((flags & (VIRTQ_DESC_F_AVAIL | VIRTQ_DESC_F_USED)) !== usedFlags(lap)) continue;
      Atomics.store(this.#desc16, at, flags & ~(VIRTQ_DESC_F_AVAIL | VIRTQ_DESC_F_USED) | availableFlags(lap));
    }
    this.options.journal?.wrote(this.#avail, this.#owned);
  }

  #isAvailable(): boolean {
    const flags = Atomics.load(this.#desc16, this.#flagsAt + 8 * this.#avail);
    return (flags & (VIRTQ_DESC_F_AVAIL | VIRTQ_DESC_F_USED)) === availableFlags(this.#availWrap);
  }
}

/** AVAIL and USED in the last word of a descriptor. */
const LAP_BITS = (VIRTQ_DESC_F_AVAIL | VIRTQ_DESC_F_USED) << 16;

/** A request as it was noted, in place of the ring. */
function walkNoted(
  chain: BufferChain, { descriptors = new Uint32Array(0) }: Resubmission, memory: GuestMemory, indirectAllowed: boolean, chainLimit: number,
): string | undefined {
  const entries = descriptors.length / 4;
  const wrong = walkPacked(chain, { words: descriptors, base: 0, entries }, 0, true, entries, memory, indirectAllowed, chainLimit);
  if (wrong !== undefined) return `${wrong}, as it was noted`;
  return chain.slots === entries ? undefined : `a chain of ${chain.slots} descriptors was noted as one of ${entries}`;
}

/** An index and its wrap counter as events and vhost-user have them. */
function wrapped(index: number, wrap: boolean): number {
  return index | (wrap ? 0x8000 : 0);
}
