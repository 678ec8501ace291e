// What a virtqueue tells a transport that keeps notes of it: vhost-user's in-flight area and dirty log. Only
// the moments and what happened then; nothing of what is noted or where.
import type { BufferChain } from './buffer-chain.ts';
import type { DescriptorTable } from './descriptor-walk.ts';

/** A request as a journal knows it: its id, and the descriptors of the ring that it takes up (packed). */
export type JournalledRequest = Pick<BufferChain, 'head' | 'slots'>;

/** Each is called in the middle of a step of the queue and must not touch it, break() aside. None may throw. */
export interface RingJournal {
  /** A request was taken, and nobody has seen it yet. Its descriptors in the ring start at `first` of `table`. */
  taken(chain: BufferChain, table: DescriptorTable, first: number): void;
  /** The request taken last is in the ring again, untaken. */
  putBack(chain: BufferChain): void;
  /** The driver was told, in memory, where the next kick is wanted: nothing waits. */
  asked(): void;
  /** The device is done with a request, and the driver cannot see it yet; in the order of use, several before one used(). */
  using(chain: BufferChain): void;
  /**
   * The driver can see what was used. `place`: where the next used entry goes, the used index (split), or the
   * descriptor with its wrap counter in bit 15 (packed). `count`: by how many entries that moved.
   */
  used(place: number, count: number): void;
  /** `count` entries of the used area up to `place` (without a wrap counter) were written, and nothing was used by it. */
  wrote(place: number, count: number): void;
}

/** A request that an earlier life of the queue took and did not use. */
export interface Resubmission {
  /** Head descriptor (split) or buffer id (packed). */
  readonly head: number;
  /** Packed: its descriptors, four words each, AVAIL and USED as in a first lap. The ring may have lost them. */
  readonly descriptors?: Uint32Array;
}
