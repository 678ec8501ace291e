// A split virtqueue, device side (virtio 1.2, 2.7), with EVENT_IDX, INDIRECT and IN_ORDER. What it shares
// with packed ones, and what is said of ordering, is in ring-virtqueue.ts.
import { BufferChain } from './buffer-chain.ts';
import { walkSplit } from './descriptor-walk.ts';
import type { DescriptorTable } from './descriptor-walk.ts';
import { RingVirtqueue } from './ring-virtqueue.ts';
import type { RingVirtqueueOptions } from './ring-virtqueue.ts';
import { needEvent, QUEUE_SIZE_MAX, splitRingParts, VIRTQ_AVAIL_F_NO_INTERRUPT } from './split-ring.ts';

export class SplitVirtqueue extends RingVirtqueue {
  readonly #mask: number;
  readonly #table: DescriptorTable = { words: new Uint32Array(0), base: 0, entries: 0 };
  /** Views of the regions that hold the avail and used rings, and where in them they start. */
  #avail16: Uint16Array = new Uint16Array(0);
  #availAt = 0;
  #used16: Uint16Array = new Uint16Array(0);
  #used32: Uint32Array = new Uint32Array(0);
  #usedAt = 0;
  /** Next avail entry to take; the driver's avail.idx as last loaded; our used.idx, and as last published. */
  #lastAvail: number;
  #knownAvail: number;
  #usedIndex = 0;
  #publishedIndex = 0;
  /** How many of the requests to resubmit were given. */
  #resubmitted = 0;

  constructor(options: RingVirtqueueOptions) {
    super(options);
    this.#mask = options.size - 1;
    this.#lastAvail = options.base & 0xffff;
    this.#knownAvail = this.#lastAvail;
    if (!(this.size >= 1 && this.size <= QUEUE_SIZE_MAX && (this.size & this.#mask) === 0)) {
      this.fail(`queue size ${this.size} is not a power of two up to ${QUEUE_SIZE_MAX}`);
      return;
    }
    this.remap();
    if (this.broken === undefined) this.#usedIndex = this.#publishedIndex = Atomics.load(this.#used16, this.#usedAt + 1);
  }

  get base(): number {
    return this.#lastAvail;
  }

  remap(): void {
    const desc = this.locate(splitRingParts.desc, this.options.descAddress);
    const avail = this.locate(splitRingParts.avail, this.options.driverAddress);
    const used = this.locate(splitRingParts.used, this.options.deviceAddress);
    if (desc === undefined || avail === undefined || used === undefined) return;
    this.#table.words = desc.region.u32;
    this.#table.base = desc.offset / 4;
    this.#table.entries = this.size;
    this.#avail16 = avail.region.u16;
    this.#availAt = avail.offset / 2;
    this.#used16 = used.region.u16;
    this.#used32 = used.region.u32;
    this.#usedAt = used.offset / 2;
  }

  protected look(): boolean {
    if (this.#resubmitted < (this.options.resubmit?.length ?? 0)) return true;
    if (this.#lastAvail !== this.#knownAvail) return true;
    let index = Atomics.load(this.#avail16, this.#availAt + 1);
    if (index === this.#lastAvail) {
      if (!this.options.eventIdx) return false;
      Atomics.store(this.#used16, this.#usedAt + 2 + 4 * this.size, this.#lastAvail);
      index = Atomics.load(this.#avail16, this.#availAt + 1);
      if (index === this.#lastAvail) return false;
    }
    const waiting = (index - this.#lastAvail) & 0xffff;
    if (waiting > this.size) {
      this.fail(`avail.idx went from ${this.#lastAvail} to ${index}: ${waiting} requests in a queue of ${this.size}`);
      return false;
    }
    this.#knownAvail = index;
    return true;
  }

  protected take(): BufferChain | undefined {
    const again = this.options.resubmit?.[this.#resubmitted];
    const head = again !== undefined ? again.head
      : this.#avail16[this.#availAt + 2 + (this.#lastAvail & this.#mask)];
    if (head >= this.size) return this.fail(`the avail ring names descriptor ${head} of ${this.size}`);
    const chain = this.chains[head] ??= new BufferChain(head);
    if (chain.inFlight) return this.fail(`descriptor ${head} was made available again while the device has it`);
    const { memory, indirect, chainLimit = this.size } = this.options;
    const wrong = walkSplit(chain, this.#table, memory, indirect, chainLimit);
    if (wrong !== undefined) return this.fail(wrong);
    if (again !== undefined) {
      this.#resubmitted += 1;
      return chain;
    }
    this.#lastAvail = (this.#lastAvail + 1) & 0xffff;
    this.options.journal?.taken(chain, this.#table, head);
    return chain;
  }

  /** What was resubmitted may stand elsewhere in the ring than its turn says: an index cannot give it back. */
  protected untakes({ head }: BufferChain): boolean {
    return this.#avail16[this.#availAt + 2 + ((this.#lastAvail - 1) & this.#mask)] === head;
  }

  protected untake(): void {
    this.#lastAvail = (this.#lastAvail - 1) & 0xffff;
  }

  protected use(id: number, writtenBytes: number, requests: number): void {
    const entry = (this.#usedAt >> 1) + 1 + (this.#usedIndex & this.#mask) * 2;
    this.#used32[entry] = id;
    this.#used32[entry + 1] = writtenBytes;
    this.#usedIndex = (this.#usedIndex + requests) & 0xffff;
  }

  protected publish(): boolean {
    const before = this.#publishedIndex;
    this.#publishedIndex = this.#usedIndex;
    Atomics.store(this.#used16, this.#usedAt + 1, this.#usedIndex);
    this.options.journal?.used(this.#usedIndex, (this.#usedIndex - before) & 0xffff);
    if (!this.options.eventIdx) return (Atomics.load(this.#avail16, this.#availAt) & VIRTQ_AVAIL_F_NO_INTERRUPT) === 0;
    return needEvent(Atomics.load(this.#avail16, this.#availAt + 2 + this.size), this.#usedIndex, before);
  }
}
