// What the protocol wants noted of a ring while it runs: what is in flight (inflight.ts) and which pages were
// written (dirty-log.ts). One object from the ring's start to its stop, whatever is switched on meanwhile.
// Allocates nothing unless the log is on.
import { ProtocolError } from '../errors.ts';
import type { BufferChain } from '../virtio/buffer-chain.ts';
import type { DescriptorTable } from '../virtio/descriptor-walk.ts';
import type { RingJournal } from '../virtio/ring-journal.ts';
import type { DirtyLog } from './dirty-log.ts';
import type { InflightRegion } from './inflight.ts';
import type { MemoryMap } from './memory.ts';

export interface RingNotesOptions {
  readonly memory: Pick<MemoryMap, 'guestAddressOf'>;
  readonly size: number;
  /** The guest address of a packed ring's descriptors, where its used entries go; undefined: the ring is split. */
  readonly packedAt: number | undefined;
  readonly inflight: InflightRegion | undefined;
  readonly log: DirtyLog;
  /** The log has no room for what was written: break the queue. */
  readonly onGap: (reason: ProtocolError) => void;
}

/** Offsets in a split used ring (virtio 1.2, 2.7.8). */
const USED_INDEX = 2;
const USED_RING = 4;
const USED_ELEMENT_BYTES = 8;
const DESCRIPTOR_BYTES = 16;

export class RingNotes implements RingJournal {
  /**
   * Where writes to the device area (the used ring, or a packed ring's device event suppression) are marked, a guest
   * address; undefined: neither they nor used descriptors are (VHOST_VRING_F_LOG).
   */
  logAddress: number | undefined;
  readonly #options: RingNotesOptions;
  readonly #inflight: InflightRegion | undefined;
  readonly #log: DirtyLog;

  constructor(options: RingNotesOptions, logAddress: number | undefined) {
    this.#options = options;
    this.#inflight = options.inflight;
    this.#log = options.log;
    this.logAddress = logAddress;
  }

  taken(chain: BufferChain, table: DescriptorTable, first: number): void {
    if (this.#inflight?.taken(chain, table, first) === false) {
      this.#options.onGap(new ProtocolError('vhost-user: more is in flight than the in-flight area has room for'));
    }
  }

  putBack(chain: BufferChain): void {
    this.#inflight?.putBack(chain);
  }

  asked(): void {
    if (!this.#log.active || this.logAddress === undefined) return;
    const { packedAt, size } = this.#options;
    if (packedAt === undefined) this.#mark(this.logAddress + USED_RING + USED_ELEMENT_BYTES * size, 2); // avail_event
    else this.#mark(this.logAddress, 4);
  }

  /** The device has written what it will: mark it before the driver can see it. */
  using(chain: BufferChain): void {
    if (this.#log.active) this.#markWritten(chain);
    this.#inflight?.using(chain);
  }

  used(place: number, count: number): void {
    this.#inflight?.used(place);
    if (this.#log.active) this.#wrote(place & 0x7fff, count);
  }

  wrote(place: number, count: number): void {
    if (this.#log.active) this.#wrote(place, count);
  }

  #wrote(place: number, count: number): void {
    const { packedAt, size } = this.#options;
    if (this.logAddress === undefined) return;
    const [entries, bytes] = packedAt === undefined ? [this.logAddress + USED_RING, USED_ELEMENT_BYTES] : [packedAt, DESCRIPTOR_BYTES];
    const end = place % size;
    const tail = Math.min(count, end);
    this.#mark(entries + (end - tail) * bytes, tail * bytes);
    // The rest lies at the ring's end: it went over it.
    this.#mark(entries + (size - (count - tail)) * bytes, (count - tail) * bytes);
    if (packedAt === undefined) this.#mark(this.logAddress + USED_INDEX, 2);
    this.#log.signal();
  }

  /** All that the device may have written, more than it says it did: a status byte at the end of a failed read. */
  #markWritten(chain: BufferChain): void {
    if (chain.writableBytes === 0) return;
    for (const span of chain.writableSpans()) {
      const address = this.#options.memory.guestAddressOf(span);
      if (address !== undefined) this.#mark(address, span.length);
    }
  }

  #mark(address: number, lengthBytes: number): void {
    if (this.#log.mark(address, lengthBytes)) return;
    this.#options.onGap(new ProtocolError(`vhost-user: the dirty log ends before 0x${(address + lengthBytes).toString(16)}, which the device wrote`));
  }
}
