// A split virtqueue, device side (virtio 1.2, 2.7), with EVENT_IDX and INDIRECT. The driver is hostile:
// whatever the ring holds, next() gives a checked request or breaks this queue, and nothing outside
// guest memory is touched. Not packed rings (2.8), not VIRTIO_F_IN_ORDER.
//
// Ordering: avail.idx and used.idx go through Atomics, since plain loads and stores of typed arrays lose
// wakeups on x86 (store buffer). Each side stores its own word, then looks at the other's:
// avail_event, then avail.idx again; used.idx, then used_event.
import { ProtocolError, UsageError } from '../errors.ts';
import { BufferChain } from './buffer-chain.ts';
import { walkDescriptors } from './descriptor-walk.ts';
import type { DescriptorTable } from './descriptor-walk.ts';
import type { GuestAddress, GuestMemory, MemoryRegion } from './guest-memory.ts';
import { needEvent, QUEUE_SIZE_MAX, splitRingParts, VIRTQ_AVAIL_F_NO_INTERRUPT } from './split-ring.ts';
import type { DescriptorChain, QueueCounts, Virtqueue } from './virtqueue.ts';

export interface SplitVirtqueueOptions {
  readonly memory: GuestMemory;
  /** Entries: a power of two up to 32768. */
  readonly size: number;
  readonly descAddress: GuestAddress;
  readonly availAddress: GuestAddress;
  readonly usedAddress: GuestAddress;
  /** VIRTIO_F_RING_EVENT_IDX was negotiated. */
  readonly eventIdx: boolean;
  /** VIRTIO_F_RING_INDIRECT_DESC was negotiated. */
  readonly indirect: boolean;
  /** The avail index to go on from: 0 on a fresh queue. */
  readonly lastAvailIndex: number;
  /**
   * Heads that an earlier life of this queue took and did not use: next() gives them first, in this order.
   * `lastAvailIndex` counts them as taken already.
   */
  readonly resubmit?: readonly number[];
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
interface Part {
  readonly region: MemoryRegion;
  readonly offset: number;
}

export class SplitVirtqueue implements Virtqueue {
  readonly size: number;
  readonly #options: SplitVirtqueueOptions;
  readonly #chains: (BufferChain | undefined)[];
  readonly #mask: number;
  #broken: ProtocolError | undefined;
  #stopped = false;
  #table: DescriptorTable = { words: new Uint32Array(0), base: 0, entries: 0 };
  /** Views of the regions that hold the avail and used rings, and where in them they start. */
  #avail16: Uint16Array = new Uint16Array(0);
  #availAt = 0;
  #used16: Uint16Array = new Uint16Array(0);
  #used32: Uint32Array = new Uint32Array(0);
  #usedAt = 0;
  /** Next avail entry to take; the driver's avail.idx as last loaded; our used.idx. */
  #lastAvail: number;
  #knownAvail: number;
  #usedIndex = 0;
  /** How many of the heads to resubmit were given. */
  #resubmitted = 0;
  /** How much of this turn is used up. */
  #turn = 0;
  #taken = 0;
  #completed = 0;
  #notified = 0;
  #suppressed = 0;

  constructor(options: SplitVirtqueueOptions) {
    this.#options = options;
    this.size = options.size;
    this.#mask = options.size - 1;
    this.#lastAvail = options.lastAvailIndex & 0xffff;
    this.#knownAvail = this.#lastAvail;
    this.#chains = new Array<BufferChain | undefined>(Math.min(Math.max(options.size | 0, 0), QUEUE_SIZE_MAX));
    if (!(this.size >= 1 && this.size <= QUEUE_SIZE_MAX && (this.size & this.#mask) === 0)) {
      this.#fail(`queue size ${this.size} is not a power of two up to ${QUEUE_SIZE_MAX}`);
      return;
    }
    this.remap();
    if (this.#broken === undefined) this.#usedIndex = Atomics.load(this.#used16, this.#usedAt + 1);
  }

  /** The avail index that a queue started after this one goes on from (vhost-user's vring base). */
  get lastAvailIndex(): number {
    return this.#lastAvail;
  }

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

  /** Guest memory was mapped anew: find the ring in it again. Only while no request is in flight. */
  remap(): void {
    const desc = this.#locate('desc', this.#options.descAddress);
    const avail = this.#locate('avail', this.#options.availAddress);
    const used = this.#locate('used', this.#options.usedAddress);
    if (desc === undefined || avail === undefined || used === undefined) return;
    this.#table = { words: desc.region.u32, base: desc.offset / 4, entries: this.size };
    this.#avail16 = avail.region.u16;
    this.#availAt = avail.offset / 2;
    this.#used16 = used.region.u16;
    this.#used32 = used.region.u32;
    this.#usedAt = used.offset / 2;
  }

  /** The session lets go of the ring: from here on nothing of it is read or written. */
  stop(): void {
    this.#stopped = true;
  }

  next(): DescriptorChain | undefined {
    if (this.#broken !== undefined || this.#stopped) return undefined;
    const { resubmit } = this.#options;
    const again = resubmit !== undefined && this.#resubmitted < resubmit.length;
    if (!again && this.#lastAvail === this.#knownAvail && !this.#look()) {
      this.#turn = 0;
      return undefined;
    }
    if (this.#turn >= TURN && this.#options.yieldTurn !== undefined) {
      this.#turn = 0;
      this.#options.yieldTurn();
      return undefined;
    }
    const head = again ? resubmit[this.#resubmitted] : this.#avail16[this.#availAt + 2 + (this.#lastAvail & this.#mask)];
    if (head >= this.size) return this.#fail(`the avail ring names descriptor ${head} of ${this.size}`);
    const chain = this.#chains[head] ??= new BufferChain(head);
    if (chain.inFlight) return this.#fail(`descriptor ${head} was made available again while the device has it`);
    const { memory, indirect, chainLimit = this.size } = this.#options;
    const wrong = walkDescriptors(chain, this.#table, memory, indirect, chainLimit);
    if (wrong !== undefined) return this.#fail(wrong);
    if (again) this.#resubmitted += 1;
    else this.#lastAvail = (this.#lastAvail + 1) & 0xffff;
    this.#taken += 1;
    this.#turn += 1 + (chain.readableBytes + chain.writableBytes) / 4096;
    chain.inFlight = true;
    return chain;
  }

  complete(chain: DescriptorChain, writtenBytes: number): void {
    if (!(writtenBytes >= 0 && writtenBytes <= chain.writableBytes)) throw tooLong(chain, writtenBytes);
    this.completeAs(chain, chain.head, writtenBytes);
  }

  completeAs(chain: DescriptorChain, id: number, writtenBytes: number): void {
    this.#land(chain);
    this.putUsed(id, writtenBytes);
  }

  putUsed(id: number, writtenBytes: number): void {
    if (this.#broken !== undefined || this.#stopped) return;
    const before = this.#usedIndex;
    this.#write(id, writtenBytes);
    this.#publish(before);
  }

  completeTogether(chains: readonly DescriptorChain[], writtenBytes: readonly number[], count = chains.length): void {
    let landed = 0;
    try {
      for (; landed < count; landed += 1) {
        if (!(writtenBytes[landed] >= 0 && writtenBytes[landed] <= chains[landed].writableBytes)) throw tooLong(chains[landed], writtenBytes[landed]);
        this.#land(chains[landed]);
      }
    } finally {
      if (landed < count) for (let i = 0; i < landed; i += 1) this.#unland(chains[i]);
    }
    if (this.#broken !== undefined || this.#stopped || count === 0) return;
    const before = this.#usedIndex;
    for (let i = 0; i < count; i += 1) this.#write(chains[i].head, writtenBytes[i]);
    this.#publish(before);
  }

  /** The device has this chain no more. */
  #land(chain: DescriptorChain): void {
    const own = this.#chains[chain.head];
    if (own !== chain || !own.inFlight) throw new UsageError(`request ${chain.head} is not in flight on this queue`);
    own.inFlight = false;
    this.#completed += 1;
  }

  #unland(chain: DescriptorChain): void {
    (chain as BufferChain).inFlight = true;
    this.#completed -= 1;
  }

  /** The next used entry, which the driver does not see yet. */
  #write(id: number, writtenBytes: number): void {
    const entry = (this.#usedAt >> 1) + 1 + (this.#usedIndex & this.#mask) * 2;
    this.#used32[entry] = id;
    this.#used32[entry + 1] = writtenBytes;
    this.#usedIndex = (this.#usedIndex + 1) & 0xffff;
  }

  /** Show the driver the entries written since used.idx was `before`, and tell it if it asked. */
  #publish(before: number): void {
    Atomics.store(this.#used16, this.#usedAt + 1, this.#usedIndex);
    if (this.#wantsNotification(before)) {
      this.#notified += 1;
      this.#options.notify();
    } else {
      this.#suppressed += 1;
    }
  }

  break(reason: ProtocolError): void {
    if (this.#broken !== undefined) return;
    this.#broken = reason;
    this.#options.onBroken(reason);
  }

  putBack(chain: DescriptorChain): boolean {
    const own = this.#chains[chain.head];
    if (own !== chain || !own.inFlight || this.#broken !== undefined || this.#stopped) return false;
    const last = (this.#lastAvail - 1) & 0xffff;
    if (this.#avail16[this.#availAt + 2 + (last & this.#mask)] !== chain.head) return false;
    own.inFlight = false;
    this.#lastAvail = last;
    this.#taken -= 1;
    return true;
  }

  /** Load avail.idx: true when there is something to take. Asks for a kick when there is not. */
  #look(): boolean {
    let index = Atomics.load(this.#avail16, this.#availAt + 1);
    if (index === this.#lastAvail) {
      if (!this.#options.eventIdx) return false;
      Atomics.store(this.#used16, this.#usedAt + 2 + 4 * this.size, this.#lastAvail);
      index = Atomics.load(this.#avail16, this.#availAt + 1);
      if (index === this.#lastAvail) return false;
    }
    const waiting = (index - this.#lastAvail) & 0xffff;
    if (waiting > this.size) {
      this.#fail(`avail.idx went from ${this.#lastAvail} to ${index}: ${waiting} requests in a queue of ${this.size}`);
      return false;
    }
    this.#knownAvail = index;
    return true;
  }

  #wantsNotification(usedBefore: number): boolean {
    if (!this.#options.eventIdx) {
      return (Atomics.load(this.#avail16, this.#availAt) & VIRTQ_AVAIL_F_NO_INTERRUPT) === 0;
    }
    const usedEvent = Atomics.load(this.#avail16, this.#availAt + 2 + this.size);
    return needEvent(usedEvent, this.#usedIndex, usedBefore);
  }

  #locate(name: keyof typeof splitRingParts, address: number): Part | undefined {
    const { alignment } = splitRingParts[name];
    const sizeBytes = splitRingParts[name].sizeBytes(this.size);
    const at = `0x${address.toString(16)}`;
    if (address % alignment !== 0) return this.#fail(`the ${name} ring at ${at} is not aligned to ${alignment}`);
    const region = this.#options.memory.region(address, sizeBytes);
    if (region === undefined) return this.#fail(`the ${name} ring, ${sizeBytes} bytes at ${at}, is not in one region of guest memory`);
    const offset = address - region.guestAddress;
    if (offset % Math.min(alignment, 4) !== 0) return this.#fail(`the ${name} ring at ${at} lies in a region that starts unaligned`);
    return { region, offset };
  }

  #fail(what: string): undefined {
    this.break(new ProtocolError(`virtqueue: ${what}`, {
      hint: 'The driver broke the ring (virtio 1.2, section 2.7). The queue does nothing more until the device is reset.',
    }));
    return undefined;
  }
}

function tooLong(chain: DescriptorChain, writtenBytes: number): UsageError {
  return new UsageError(`${writtenBytes} bytes written to a request with ${chain.writableBytes} writable ones`);
}
