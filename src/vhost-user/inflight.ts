// What is in flight, noted in memory that outlives this back end: the front end keeps the file and hands it
// to the next one, which then knows what was taken and not used, in which order. QEMU docs/interop/
// vhost-user.rst, "Inflight I/O tracking", split layout (QueueRegionSplit, DescStateSplit). The packed
// layout is not here.
import { ProtocolError } from '../errors.ts';
import { createMemfd } from '../native/index.ts';
import { layout, u16, u64, u8 } from '../bytes/layout.ts';
import type { Payloads } from './codec.ts';
import { SharedArea } from './shared-area.ts';

export const queueRegionSplit = layout('QueueRegionSplit', 16, {
  features: u64(0, 'none'),
  version: u16(8, '1; 0: nothing was ever noted'),
  desc_num: u16(10, 'entries that follow: the queue size'),
  last_batch_head: u16(12, 'the last request used, while its use is under way'),
  used_idx: u16(14, 'the used index when the last use was complete'),
});

export const descStateSplit = layout('DescStateSplit', 16, {
  inflight: u8(0, '1: the device has the request of this head'),
  next: u16(6, 'the next of the last batch used'),
  counter: u64(8, 'the order in which requests were taken'),
});

const VERSION = 1;
/** Each queue's region starts at a multiple of this: a cache line, as in QEMU's libvhost-user. */
const REGION_ALIGNMENT = 64;

type Description = Payloads['inflight'];

export function regionBytes(queueSize: number): number {
  const bytes = queueRegionSplit.sizeBytes + queueSize * descStateSplit.sizeBytes;
  return Math.ceil(bytes / REGION_ALIGNMENT) * REGION_ALIGNMENT;
}

/** GET_INFLIGHT_FD: a fresh memory file for so many queues; the descriptor is the caller's. */
export function createInflightFile(queueCount: number, queueSize: number): { fd: number; description: Description } {
  const mmapSize = queueCount * regionBytes(queueSize);
  return { fd: createMemfd('inflight', mmapSize), description: { mmapSize: BigInt(mmapSize), mmapOffset: 0n, queueCount, queueSize } };
}

/** The whole area (SET_INFLIGHT_FD). */
export class InflightArea {
  readonly #area: SharedArea;
  readonly #queueCount: number;
  readonly #queueSize: number;

  /** The descriptor stays the caller's. Throws ProtocolError. */
  constructor(fd: number, { mmapSize, mmapOffset, queueCount, queueSize }: Description) {
    const wanted = queueCount * regionBytes(queueSize);
    if (queueCount === 0 || queueSize === 0 || mmapSize < BigInt(wanted)) {
      throw new ProtocolError(`vhost-user: SET_INFLIGHT_FD of ${mmapSize} bytes for ${queueCount} queues of ${queueSize}, which take ${wanted}`);
    }
    this.#area = new SharedArea('SET_INFLIGHT_FD', fd, { size: mmapSize, offset: mmapOffset });
    this.#queueCount = queueCount;
    this.#queueSize = queueSize;
  }

  /** The region of a ring. Throws ProtocolError when the area was made for fewer rings, or for smaller ones. */
  region(index: number, size: number): InflightRegion {
    if (index >= this.#queueCount || size > this.#queueSize) {
      throw new ProtocolError(`vhost-user: ring ${index} of ${size} entries has no place in the in-flight area of ${this.#queueCount} queues of ${this.#queueSize}`);
    }
    const start = index * regionBytes(this.#queueSize);
    return new InflightRegion(this.#area.u8.subarray(start, start + regionBytes(this.#queueSize)), { index, size, entries: this.#queueSize });
  }

  close(): void {
    this.#area.close();
  }
}

/** One ring's notes. The writes for each request allocate nothing; a crash between any two of them is recovered from. */
export class InflightRegion {
  readonly #u8: Uint8Array;
  readonly #u16: Uint16Array;
  readonly #u32: Uint32Array;
  readonly #size: number;
  readonly #entries: number;
  readonly #index: number;
  #counter = 0;

  /** `entries`: the area's queue size, of which a ring may use fewer (`size`). */
  constructor(bytes: Uint8Array, { index, size, entries }: { index: number; size: number; entries: number }) {
    this.#u8 = bytes;
    this.#u16 = new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.length / 2);
    this.#u32 = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
    this.#size = size;
    this.#entries = entries;
    this.#index = index;
  }

  /**
   * The ring starts, its used ring at `usedIndex`. Settles a use that was under way when the last back end
   * ended, and gives the heads in flight in the order they were taken; undefined when nothing was ever noted.
   * Throws ProtocolError for notes that cannot be true.
   */
  recover(usedIndex: number): number[] | undefined {
    const version = this.#u16[4] as number;
    if (version === 0) {
      this.#u16[5] = this.#entries;
      this.#u16[7] = usedIndex;
      Atomics.store(this.#u16, 4, VERSION);
      return undefined;
    }
    if (version !== VERSION || this.#u16[5] !== this.#entries) {
      throw new ProtocolError(`vhost-user: the in-flight region of ring ${this.#index} is of version ${version} for ${this.#u16[5]} entries, not ${VERSION} for ${this.#entries}`);
    }
    this.#settle(usedIndex);
    const taken: { head: number; counter: number }[] = [];
    for (let head = 0; head < this.#size; head += 1) {
      if (this.#u8[stateByte(head)] === 0) continue;
      const word = stateByte(head) / 4;
      taken.push({ head, counter: (this.#u32[word + 3] as number) * 2 ** 32 + (this.#u32[word + 2] as number) });
    }
    taken.sort((a, b) => a.counter - b.counter);
    this.#counter = (taken.at(-1)?.counter ?? -1) + 1;
    return taken.map(({ head }) => head);
  }

  /** The device has taken the request. */
  taken(head: number): void {
    const word = stateByte(head) / 4;
    this.#u32[word + 2] = this.#counter % 2 ** 32;
    this.#u32[word + 3] = Math.floor(this.#counter / 2 ** 32);
    this.#counter += 1;
    Atomics.store(this.#u8, stateByte(head), 1);
  }

  /** The request went back into the ring, untouched. */
  putBack(head: number): void {
    Atomics.store(this.#u8, stateByte(head), 0);
  }

  /** Before the used ring's index is moved. */
  using(head: number): void {
    this.#u16[stateByte(head) / 2 + 3] = this.#u16[6] as number;
    Atomics.store(this.#u16, 6, head);
  }

  /** After it was. */
  used(head: number, usedIndex: number): void {
    Atomics.store(this.#u8, stateByte(head), 0);
    Atomics.store(this.#u16, 7, usedIndex);
  }

  /** The used ring moved on after used_idx was written: what it moved over is not in flight, whatever is noted. */
  #settle(usedIndex: number): void {
    const batch = (usedIndex - (this.#u16[7] as number)) & 0xffff;
    if (batch > this.#size) {
      throw new ProtocolError(`vhost-user: ring ${this.#index} of ${this.#size} entries used ${batch} requests since its in-flight region was last written`);
    }
    let head = this.#u16[6] as number;
    for (let left = batch; left > 0; left -= 1) {
      if (head >= this.#size) throw new ProtocolError(`vhost-user: the in-flight region of ring ${this.#index} names head ${head} of ${this.#size}`);
      this.#u8[stateByte(head)] = 0;
      head = this.#u16[stateByte(head) / 2 + 3] as number;
    }
    this.#u16[7] = usedIndex;
  }
}

function stateByte(head: number): number {
  return queueRegionSplit.sizeBytes + head * descStateSplit.sizeBytes;
}
