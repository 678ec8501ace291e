// What is in flight, noted in memory that outlives this back end: the front end keeps the file and hands it
// to the next one, which then knows what was taken and not used, in which order. QEMU docs/interop/
// vhost-user.rst, "Inflight I/O tracking". The area and its file; a ring's notes are inflight-split.ts's and
// inflight-packed.ts's.
import { ProtocolError } from '../errors.ts';
import { createMemfd } from '../native/index.ts';
import type { DescriptorTable } from '../virtio/descriptor-walk.ts';
import type { GuestAddress, GuestMemory, MemoryRegion } from '../virtio/guest-memory.ts';
import type { JournalledRequest, Resubmission } from '../virtio/ring-journal.ts';
import type { Payloads } from './codec.ts';
import { descStatePacked, PackedInflight, queueRegionPacked } from './inflight-packed.ts';
import { descStateSplit, queueRegionSplit, SplitInflight } from './inflight-split.ts';
import { SharedArea } from './shared-area.ts';

/** Each queue's region starts at a multiple of this: a cache line, as in QEMU's libvhost-user. */
const REGION_ALIGNMENT = 64;

type Description = Payloads['inflight'];

/** The ring that notes are of: where it lies, and where the front end says it goes on. */
export interface NotedRing {
  readonly memory: GuestMemory;
  readonly descAddress: GuestAddress;
  readonly deviceAddress: GuestAddress;
  readonly base: number;
}

/** One ring's notes. The writes for each request allocate nothing; a crash between any two of them is recovered from. */
export interface InflightRegion {
  /**
   * The ring starts. Settles a use that was under way when the last back end ended, and gives what is in flight, in the
   * order it was taken, with the base that the queue goes on from; undefined when nothing was ever noted. Throws
   * ProtocolError for notes that cannot be true.
   */
  resume(ring: NotedRing): { readonly base: number; readonly resubmit: readonly Resubmission[] } | undefined;
  /** The device has the request; false when there is no room for it. */
  taken(request: JournalledRequest, table: DescriptorTable, first: number): boolean;
  /** The request taken last went back into the ring, untouched. */
  putBack(request: JournalledRequest): void;
  /** Before the driver can see that it is used. */
  using(request: JournalledRequest): void;
  /** After it could; `place` as RingJournal has it. */
  used(place: number): void;
}

/** The bytes of a ring's notes. */
export type RegionViews = Pick<MemoryRegion, 'u8' | 'u16' | 'u32'>;

/** Where in an area a ring's notes are. */
export interface RegionPlace {
  readonly index: number;
  /** Entries of the ring. */
  readonly size: number;
  /** Entries that the area has room for, of which a ring may use fewer. */
  readonly entries: number;
}

export function regionBytes(queueSize: number, packed: boolean): number {
  const [head, state] = packed ? [queueRegionPacked, descStatePacked] : [queueRegionSplit, descStateSplit];
  return Math.ceil((head.sizeBytes + queueSize * state.sizeBytes) / REGION_ALIGNMENT) * REGION_ALIGNMENT;
}

/** GET_INFLIGHT_FD: a fresh memory file for so many queues; the descriptor is the caller's. */
export function createInflightFile(queueCount: number, queueSize: number, packed: boolean): { fd: number; description: Description } {
  const mmapSize = queueCount * regionBytes(queueSize, packed);
  return { fd: createMemfd('inflight', mmapSize), description: { mmapSize: BigInt(mmapSize), mmapOffset: 0n, queueCount, queueSize } };
}

/** The whole area (SET_INFLIGHT_FD). */
export class InflightArea {
  readonly #area: SharedArea;
  readonly #queueCount: number;
  readonly #queueSize: number;
  readonly #packed: boolean;

  /** The descriptor stays the caller's. Throws ProtocolError. */
  constructor(fd: number, { mmapSize, mmapOffset, queueCount, queueSize }: Description, packed: boolean) {
    const wanted = queueCount * regionBytes(queueSize, packed);
    if (queueCount === 0 || queueSize === 0 || mmapSize < BigInt(wanted)) {
      throw new ProtocolError(`vhost-user: SET_INFLIGHT_FD of ${mmapSize} bytes for ${queueCount} queues of ${queueSize}, which take ${wanted}`);
    }
    this.#area = new SharedArea('SET_INFLIGHT_FD', fd, { size: mmapSize, offset: mmapOffset });
    this.#queueCount = queueCount;
    this.#queueSize = queueSize;
    this.#packed = packed;
  }

  /** The region of a ring. Throws ProtocolError when the area was made for fewer rings, for smaller ones, or for the other layout. */
  region(index: number, size: number, packed: boolean): InflightRegion {
    if (packed !== this.#packed) {
      throw new ProtocolError(`vhost-user: ring ${index} is ${packed ? 'packed' : 'split'}, and was not when SET_INFLIGHT_FD came`, {
        hint: 'The features are to be set before the in-flight area is asked for and given (QEMU 5.2 and later do so)',
      });
    }
    if (index >= this.#queueCount || size > this.#queueSize) {
      throw new ProtocolError(`vhost-user: ring ${index} of ${size} entries has no place in the in-flight area of ${this.#queueCount} queues of ${this.#queueSize}`);
    }
    const bytes = regionBytes(this.#queueSize, packed);
    const u8 = this.#area.u8.subarray(index * bytes, (index + 1) * bytes);
    const notes = { u8, u16: new Uint16Array(u8.buffer, u8.byteOffset, bytes / 2), u32: new Uint32Array(u8.buffer, u8.byteOffset, bytes / 4) };
    const place = { index, size, entries: this.#queueSize };
    return packed ? new PackedInflight(notes, place) : new SplitInflight(notes, place);
  }

  close(): void {
    this.#area.close();
  }
}
