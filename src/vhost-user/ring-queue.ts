// The split virtqueue that a device of a vhost-user session sees: the ring itself, with what the protocol wants
// noted around it: what is in flight (inflight.ts) and which pages were written (dirty-log.ts). One object from
// the ring's start to its stop, whatever is switched on meanwhile. Allocates nothing unless the log is on.
import { ProtocolError } from '../errors.ts';
import type { DescriptorChain, QueueCounts, TransportVirtqueue } from '../virtio/virtqueue.ts';
import type { DirtyLog } from './dirty-log.ts';
import type { InflightRegion } from './inflight.ts';
import type { MemoryMap } from './memory.ts';

export interface RingQueueOptions {
  readonly inner: TransportVirtqueue;
  readonly memory: MemoryMap;
  readonly usedAddress: number;
  readonly inflight: InflightRegion | undefined;
  readonly log: DirtyLog;
}

/** Offsets in the used ring (virtio 1.2, 2.7.8). */
const USED_INDEX = 2;
const USED_RING = 4;
const USED_ELEMENT_BYTES = 8;

export class RingQueue implements TransportVirtqueue {
  /** Where writes to the used ring are marked, a guest address; undefined: they are not (VHOST_VRING_F_LOG). */
  logAddress: number | undefined;
  readonly #inner: TransportVirtqueue;
  readonly #options: RingQueueOptions;
  readonly #inflight: InflightRegion | undefined;
  readonly #log: DirtyLog;
  #stopped = false;
  #used16: Uint16Array = new Uint16Array(0);
  #usedAt = 0;

  constructor(options: RingQueueOptions) {
    this.#options = options;
    this.#inner = options.inner;
    this.#inflight = options.inflight;
    this.#log = options.log;
    this.#locate();
  }

  get size(): number {
    return this.#inner.size;
  }

  get counts(): QueueCounts {
    return this.#inner.counts;
  }

  get broken(): ProtocolError | undefined {
    return this.#inner.broken;
  }

  get base(): number {
    return this.#inner.base;
  }

  next(): DescriptorChain | undefined {
    const chain = this.#inner.next();
    if (chain !== undefined) this.#inflight?.taken(chain.head);
    else if (this.#log.active) this.#markUsed(USED_RING + USED_ELEMENT_BYTES * this.size, 2); // avail_event
    return chain;
  }

  complete(chain: DescriptorChain, writtenBytes: number): void {
    if (this.#done) return this.#inner.complete(chain, writtenBytes);
    const before = this.#before(chain);
    this.#inner.complete(chain, writtenBytes);
    if (!this.#done) this.#after(chain, before);
  }

  completeAs(chain: DescriptorChain, id: number, writtenBytes: number): void {
    if (this.#done) return this.#inner.completeAs(chain, id, writtenBytes);
    const before = this.#before(chain);
    this.#inner.completeAs(chain, id, writtenBytes);
    if (!this.#done) this.#after(chain, before);
  }

  /**
   * What is in flight is noted a request at a time: with an area for it they become used one after the other.
   * No front end has both (QEMU's network card, whose merged buffers want one step, has no in-flight area).
   */
  completeTogether(chains: readonly DescriptorChain[], writtenBytes: readonly number[], count = chains.length): void {
    if (this.#inflight !== undefined) {
      for (let i = 0; i < count; i += 1) this.complete(chains[i], writtenBytes[i]);
      return;
    }
    const { active } = this.#log;
    if (!active || this.#done) return this.#inner.completeTogether(chains, writtenBytes, count);
    for (let i = 0; i < count; i += 1) this.#markWritten(chains[i]);
    const before = this.#used16[this.#usedAt] as number;
    this.#inner.completeTogether(chains, writtenBytes, count);
    if (!this.#done) this.#markUsedElements(before, count);
  }

  putUsed(id: number, writtenBytes: number): void {
    const before = this.#used16[this.#usedAt] as number;
    this.#inner.putUsed(id, writtenBytes);
    if (this.#log.active && !this.#done) this.#markUsedElements(before, 1);
  }

  break(reason: ProtocolError): void {
    this.#inner.break(reason);
  }

  putBack(chain: DescriptorChain): boolean {
    const given = this.#inner.putBack(chain);
    if (given) this.#inflight?.putBack(chain.head);
    return given;
  }

  /** Guest memory was mapped anew; no request is in use. */
  remap(): void {
    this.#inner.remap();
    this.#locate();
  }

  /** Let go of the ring: nothing of it, and nothing that is noted of it, is written from here on. */
  stop(): void {
    this.#stopped = true;
    this.#inner.stop();
  }

  get #done(): boolean {
    return this.#stopped || this.#inner.broken !== undefined;
  }

  /** The device has written what it will: mark it before the driver can see it. */
  #before(chain: DescriptorChain): number {
    if (this.#log.active) this.#markWritten(chain);
    this.#inflight?.using(chain.head);
    return this.#used16[this.#usedAt] as number;
  }

  #after(chain: DescriptorChain, usedBefore: number): void {
    this.#inflight?.used(chain.head, (usedBefore + 1) & 0xffff);
    if (this.#log.active) this.#markUsedElements(usedBefore, 1);
  }

  #markUsedElements(usedBefore: number, count: number): void {
    for (let i = 0; i < count; i += 1) this.#markUsed(USED_RING + USED_ELEMENT_BYTES * ((usedBefore + i) % this.size), USED_ELEMENT_BYTES);
    this.#markUsed(USED_INDEX, 2);
    this.#log.signal();
  }

  /** All that the device may have written, more than it says it did: a status byte at the end of a failed read. */
  #markWritten(chain: DescriptorChain): void {
    if (chain.writableBytes === 0) return;
    for (const span of chain.writableSpans()) {
      const address = this.#options.memory.guestAddressOf(span);
      if (address !== undefined) this.#mark(address, span.length);
    }
  }

  #markUsed(offset: number, lengthBytes: number): void {
    if (this.logAddress !== undefined) this.#mark(this.logAddress + offset, lengthBytes);
  }

  #mark(address: number, lengthBytes: number): void {
    if (this.#log.mark(address, lengthBytes)) return;
    this.#inner.break(new ProtocolError(`vhost-user: the dirty log ends before 0x${(address + lengthBytes).toString(16)}, which the device wrote`));
  }

  #locate(): void {
    const { memory, usedAddress } = this.#options;
    const region = memory.region(usedAddress + USED_INDEX, 2);
    if (region === undefined) return; // the inner queue is broken for it
    this.#used16 = region.u16;
    this.#usedAt = (usedAddress + USED_INDEX - region.guestAddress) / 2;
  }
}
