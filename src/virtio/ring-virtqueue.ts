// What split and packed virtqueues have in common, device side: which requests are in flight, turns,
// VIRTIO_F_IN_ORDER, breaking, counting. The driver is hostile: whatever the ring holds, next() gives a
// checked request or breaks this queue, and nothing outside guest memory is touched. What a ring looks
// like in memory is split-virtqueue.ts's and packed-virtqueue.ts's.
//
// Ordering, for both: what one side writes last and the other looks at goes through Atomics, since plain
// loads and stores of typed arrays lose wakeups on x86 (store buffer). Each side stores its own word, then
// looks at the other's: the place to be kicked at, then the ring again; what is used, then the driver's wish.
import { ProtocolError, UsageError } from '../errors.ts';
import type { BufferChain } from './buffer-chain.ts';
import type { GuestAddress, GuestMemory, MemoryRegion } from './guest-memory.ts';
import type { Resubmission, RingJournal } from './ring-journal.ts';
import { QUEUE_SIZE_MAX } from './split-ring.ts';
import type { DescriptorChain, QueueCounts, TransportVirtqueue } from './virtqueue.ts';

export interface RingVirtqueueOptions {
  readonly memory: GuestMemory;
  /** Entries: up to 32768; of a split ring a power of two. */
  readonly size: number;
  /** The descriptor area: the table (split) or the ring (packed). */
  readonly descAddress: GuestAddress;
  /** The driver area: the avail ring (split) or the driver event suppression (packed). */
  readonly driverAddress: GuestAddress;
  /** The device area: the used ring (split) or the device event suppression (packed). */
  readonly deviceAddress: GuestAddress;
  /** VIRTIO_F_RING_EVENT_IDX was negotiated. */
  readonly eventIdx: boolean;
  /** VIRTIO_F_RING_INDIRECT_DESC was negotiated. */
  readonly indirect: boolean;
  /** VIRTIO_F_IN_ORDER was negotiated: requests are used in the order they were taken. */
  readonly inOrder?: boolean;
  /**
   * With inOrder: a run of requests is used by one entry, that of its last, where the spec lets the others
   * be skipped: those whose writable part was written completely (2.7.9, 2.8.9). Drivers must cope with it,
   * and some do not; each request has an entry of its own unless told.
   */
  readonly usedBatches?: boolean;
  /** What an earlier life of the queue took and did not use: next() gives it first. `base` counts it as taken already. */
  readonly resubmit?: readonly Resubmission[];
  /** Who notes what is taken and used. Requests that are resubmitted are taken without a word: they were noted. */
  readonly journal?: RingJournal;
  /** Where to go on from: `base` of the queue before, or of a fresh ring (split 0, packed PACKED_BASE). */
  readonly base: number;
  /** Tell the driver that buffers were used. */
  readonly notify: () => void;
  /**
   * The ring is broken, for good: called once, from the constructor, next(), remap() or break(). The device
   * is to be marked as needing a reset.
   */
  readonly onBroken: (error: ProtocolError) => void;
  /**
   * Call the device again, soon but not now. A driver that fills the ring as fast as the device empties it
   * would keep this thread for ever: every so often next() says that there is nothing, and calls this.
   * Absent: it never does.
   */
  readonly yieldTurn?: () => void;
  /** Most descriptors in one chain, indirect ones included. The queue's size unless told (2.7.5.3.1). */
  readonly chainLimit?: number;
}

/** What next() gives before it yields: each request counts as one, and as one for each 4 KiB of it. */
const TURN = 4096;

/** A stretch of a region: words are indexed by byte offset / element size. */
export interface RingPart {
  readonly region: MemoryRegion;
  readonly offset: number;
}

interface PartShape {
  readonly name: string;
  readonly alignment: number;
  sizeBytes(size: number): number;
}

export abstract class RingVirtqueue implements TransportVirtqueue {
  readonly size: number;
  protected readonly options: RingVirtqueueOptions;
  /** By id. */
  protected readonly chains: (BufferChain | undefined)[];
  /** With IN_ORDER: requests not yet used, the oldest at `#oldest`, `#queued` of them. */
  readonly #order: BufferChain[] = [];
  #oldest = 0;
  #queued = 0;
  #broken: ProtocolError | undefined;
  #stopped = false;
  /** How much of this turn is used up. */
  #turn = 0;
  #taken = 0;
  #completed = 0;
  #notified = 0;
  #suppressed = 0;

  constructor(options: RingVirtqueueOptions) {
    this.options = options;
    this.size = options.size;
    this.chains = new Array<BufferChain | undefined>(Math.min(Math.max(options.size | 0, 0), QUEUE_SIZE_MAX));
  }

  abstract get base(): number;
  abstract remap(): void;

  /** Whether a request waits; asks for a kick when none does. May fail. */
  protected abstract look(): boolean;
  /** The request that look() saw, checked; undefined when it failed. */
  protected abstract take(): BufferChain | undefined;
  /** Whether untake() can be. */
  protected abstract untakes(chain: BufferChain): boolean;
  /** The request taken last was not taken. */
  protected abstract untake(chain: BufferChain): void;
  /** Write one used entry that goes on by so many requests, of so many descriptors of the ring. */
  protected abstract use(id: number, writtenBytes: number, requests: number, slots: number): void;
  /** Let the driver see what was used since the last call; whether it wants to be told. */
  protected abstract publish(): boolean;

  get broken(): ProtocolError | undefined {
    return this.#broken;
  }

  get counts(): QueueCounts {
    return {
      taken: this.#taken,
      completed: this.#completed,
      inFlight: this.#taken - this.#completed,
      notified: this.#notified,
      suppressed: this.#suppressed,
    };
  }

  stop(): void {
    if (this.#stopped) return;
    this.#stopped = true;
    // Used in order, what is not used is the end of what was taken: the next queue takes it again.
    for (; this.#queued > 0; this.#queued -= 1) this.untake(this.#order[(this.#oldest + this.#queued - 1) % this.size]);
  }

  next(): DescriptorChain | undefined {
    if (this.#broken !== undefined || this.#stopped) return undefined;
    if (!this.look()) {
      this.#turn = 0;
      if (this.options.eventIdx) this.options.journal?.asked();
      return undefined;
    }
    if (this.#turn >= TURN && this.options.yieldTurn !== undefined) {
      this.#turn = 0;
      this.options.yieldTurn();
      return undefined;
    }
    const chain = this.take();
    // The journal may have had no room for it.
    if (chain === undefined || this.broken !== undefined) return undefined;
    this.#taken += 1;
    this.#turn += 1 + (chain.readableBytes + chain.writableBytes) / 4096;
    chain.inFlight = true;
    chain.finished = false;
    chain.sequence = this.#taken;
    if (this.options.inOrder === true) {
      this.#order[(this.#oldest + this.#queued) % this.size] = chain;
      this.#queued += 1;
    }
    return chain;
  }

  complete(chain: DescriptorChain, writtenBytes: number): void {
    fitting(chain, writtenBytes);
    this.completeAs(chain, chain.head, writtenBytes);
  }

  completeTogether(chains: readonly DescriptorChain[], writtenBytes: readonly number[], count = chains.length): void {
    // All are held against the rules before any is used.
    for (let i = 0; i < count; i += 1) {
      fitting(chains[i], writtenBytes[i]);
      const own = this.#inFlight(chains[i]);
      for (let j = 0; j < i; j += 1) if (chains[j] === own) throw notInFlight(own);
    }
    if (count === 0) return;
    if (this.#broken !== undefined || this.#stopped || this.options.inOrder === true) {
      for (let i = 0; i < count; i += 1) this.#finish(this.#inFlight(chains[i]), chains[i].head, writtenBytes[i]);
      if (this.#queued > 0 && this.#order[this.#oldest].finished) this.#useInOrder();
      return;
    }
    for (let i = 0; i < count; i += 1) {
      const own = this.#inFlight(chains[i]);
      own.inFlight = false;
      this.options.journal?.using(own);
      this.use(own.head, writtenBytes[i], 1, own.slots);
    }
    this.#completed += count;
    this.#publish(count);
  }

  putUsed(id: number, writtenBytes: number): void {
    if (this.#broken !== undefined || this.#stopped) return;
    this.use(id, writtenBytes, 1, 1);
    this.#publish(1);
  }

  completeAs(chain: DescriptorChain, id: number, writtenBytes: number): void {
    const own = this.#inFlight(chain);
    if (this.#broken !== undefined || this.#stopped || this.options.inOrder === true) {
      this.#finish(own, id, writtenBytes);
      if (own.finished && this.#order[this.#oldest] === own) this.#useInOrder();
      return;
    }
    own.inFlight = false;
    this.#completed += 1;
    this.options.journal?.using(own);
    this.use(id, writtenBytes, 1, own.slots);
    this.#publish(1);
  }

  /** The device is done with it: the driver is to hear of it in its turn, or never when the ring is gone. */
  #finish(own: BufferChain, id: number, writtenBytes: number): void {
    if (this.#broken !== undefined || this.#stopped) {
      own.inFlight = false;
      this.#completed += 1;
      return;
    }
    own.finished = true;
    own.usedId = id;
    own.usedBytes = writtenBytes;
  }

  #inFlight(chain: DescriptorChain): BufferChain {
    const own = this.chains[chain.head];
    if (own !== chain || !own.inFlight || own.finished) throw notInFlight(chain);
    return own;
  }

  break(reason: ProtocolError): void {
    if (this.#broken !== undefined) return;
    this.#broken = reason;
    this.options.onBroken(reason);
  }

  putBack(chain: DescriptorChain): boolean {
    const own = this.chains[chain.head];
    if (own !== chain || !own.inFlight || own.finished || this.#broken !== undefined || this.#stopped) return false;
    if (own.sequence !== this.#taken || !this.untakes(own)) return false;
    own.inFlight = false;
    this.#taken -= 1;
    if (this.options.inOrder === true) this.#queued -= 1;
    this.untake(own);
    this.options.journal?.putBack(own);
    return true;
  }

  /** Use the oldest requests as far as they are finished, and tell the driver once. */
  #useInOrder(): void {
    let requests = 0;
    let skipped = 0;
    let slots = 0;
    while (this.#queued > 0 && this.#order[this.#oldest].finished) {
      const chain = this.#order[this.#oldest];
      this.#oldest = (this.#oldest + 1) % this.size;
      this.#queued -= 1;
      chain.inFlight = false;
      this.options.journal?.using(chain);
      requests += 1;
      slots += chain.slots;
      const skip = this.options.usedBatches === true && this.#queued > 0 && this.#order[this.#oldest].finished
        && chain.usedId === chain.head && chain.usedBytes === chain.writableBytes;
      if (skip) {
        skipped += 1;
        continue;
      }
      this.use(chain.usedId, chain.usedBytes, skipped + 1, slots);
      skipped = 0;
      slots = 0;
    }
    this.#completed += requests;
    this.#publish(requests);
  }

  #publish(requests: number): void {
    // What the journal could not note the driver must not see.
    if (this.#broken !== undefined) return;
    if (this.publish()) {
      this.#notified += 1;
      this.#suppressed += requests - 1;
      this.options.notify();
    } else {
      this.#suppressed += requests;
    }
  }

  /** Where a part of the ring is in memory; undefined when it is not, and then the queue is broken. */
  protected locate({ name, alignment, sizeBytes }: PartShape, address: number): RingPart | undefined {
    const size = sizeBytes(this.size);
    const at = `0x${address.toString(16)}`;
    if (address % alignment !== 0) return this.fail(`the ${name} at ${at} is not aligned to ${alignment}`);
    const region = this.options.memory.region(address, size);
    if (region === undefined) return this.fail(`the ${name}, ${size} bytes at ${at}, is not in one region of guest memory`);
    const offset = address - region.guestAddress;
    if (offset % Math.min(alignment, 4) !== 0) return this.fail(`the ${name} at ${at} lies in a region that starts unaligned`);
    return { region, offset };
  }

  protected fail(what: string): undefined {
    this.break(new ProtocolError(`virtqueue: ${what}`, {
      hint: 'The driver broke the ring (virtio 1.2, sections 2.7 and 2.8). The queue does nothing more until the device is reset.',
    }));
    return undefined;
  }
}

function notInFlight({ head }: DescriptorChain): UsageError {
  return new UsageError(`request ${head} is not in flight on this queue`);
}

function fitting({ writableBytes }: DescriptorChain, writtenBytes: number): void {
  if (writtenBytes >= 0 && writtenBytes <= writableBytes) return;
  throw new UsageError(`${writtenBytes} bytes written to a request with ${writableBytes} writable ones`);
}
