// What is in flight in a split ring: QEMU docs/interop/vhost-user.rst, "Inflight I/O tracking", QueueRegionSplit
// and DescStateSplit. A request that is used is on the list of its batch before the used index moves; how far that
// moved says, after a crash, how much of the list counts.
import { layout, u16, u64, u8 } from '../bytes/layout.ts';
import { ProtocolError } from '../errors.ts';
import type { JournalledRequest, Resubmission } from '../virtio/ring-journal.ts';
import type { InflightRegion, NotedRing, RegionPlace, RegionViews } from './inflight.ts';

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

export class SplitInflight implements InflightRegion {
  readonly #u8: Uint8Array;
  readonly #u16: Uint16Array;
  readonly #u32: Uint32Array;
  readonly #place: RegionPlace;
  #counter = 0;
  /** Heads of the batch whose use is under way. */
  readonly #batch: Uint16Array;
  #batchSize = 0;

  constructor({ u8: bytes, u16: halves, u32: words }: RegionViews, place: RegionPlace) {
    this.#u8 = bytes;
    this.#u16 = halves;
    this.#u32 = words;
    this.#place = place;
    this.#batch = new Uint16Array(place.size);
  }

  resume({ memory, deviceAddress }: NotedRing): { base: number; resubmit: Resubmission[] } | undefined {
    const region = memory.region(deviceAddress + 2, 2);
    // 0 when the ring is not there: that breaks it anyway.
    const there = region !== undefined && (deviceAddress - region.guestAddress) % 2 === 0;
    const usedIndex = there ? Atomics.load(region.u16, (deviceAddress + 2 - region.guestAddress) / 2) : 0;
    const heads = this.recover(usedIndex);
    return heads === undefined ? undefined : { base: usedIndex + heads.length, resubmit: heads.map((head) => ({ head })) };
  }

  /** resume() with the used ring at `usedIndex`: the heads in flight. */
  recover(usedIndex: number): number[] | undefined {
    const { index, size, entries } = this.#place;
    const version = this.#u16[4] as number;
    if (version === 0) {
      this.#u16[5] = entries;
      this.#u16[7] = usedIndex;
      Atomics.store(this.#u16, 4, VERSION);
      return undefined;
    }
    if (version !== VERSION || this.#u16[5] !== entries) {
      throw new ProtocolError(`vhost-user: the in-flight region of ring ${index} is of version ${version} for ${this.#u16[5]} entries, not ${VERSION} for ${entries}`);
    }
    this.#settle(usedIndex);
    const taken: { head: number; counter: number }[] = [];
    for (let head = 0; head < size; head += 1) {
      if (this.#u8[stateByte(head)] === 0) continue;
      const word = stateByte(head) / 4;
      taken.push({ head, counter: (this.#u32[word + 3] as number) * 2 ** 32 + (this.#u32[word + 2] as number) });
    }
    taken.sort((a, b) => a.counter - b.counter);
    this.#counter = (taken.at(-1)?.counter ?? -1) + 1;
    return taken.map(({ head }) => head);
  }

  taken({ head }: JournalledRequest): true {
    const word = stateByte(head) / 4;
    this.#u32[word + 2] = this.#counter % 2 ** 32;
    this.#u32[word + 3] = Math.floor(this.#counter / 2 ** 32);
    this.#counter += 1;
    Atomics.store(this.#u8, stateByte(head), 1);
    return true;
  }

  putBack({ head }: JournalledRequest): void {
    Atomics.store(this.#u8, stateByte(head), 0);
  }

  using({ head }: JournalledRequest): void {
    this.#batch[this.#batchSize] = head;
    this.#batchSize += 1;
    this.#u16[stateByte(head) / 2 + 3] = this.#u16[6] as number;
    Atomics.store(this.#u16, 6, head);
  }

  used(usedIndex: number): void {
    for (let i = 0; i < this.#batchSize; i += 1) Atomics.store(this.#u8, stateByte(this.#batch[i] as number), 0);
    this.#batchSize = 0;
    Atomics.store(this.#u16, 7, usedIndex);
  }

  /** The used ring moved on after used_idx was written: what it moved over is not in flight, whatever is noted. */
  #settle(usedIndex: number): void {
    const { index, size } = this.#place;
    const batch = (usedIndex - (this.#u16[7] as number)) & 0xffff;
    if (batch > size) {
      throw new ProtocolError(`vhost-user: ring ${index} of ${size} entries used ${batch} requests since its in-flight region was last written`);
    }
    let head = this.#u16[6] as number;
    for (let left = batch; left > 0; left -= 1) {
      if (head >= size) throw new ProtocolError(`vhost-user: the in-flight region of ring ${index} names head ${head} of ${size}`);
      this.#u8[stateByte(head)] = 0;
      head = this.#u16[stateByte(head) / 2 + 3] as number;
    }
    this.#u16[7] = usedIndex;
  }
}

function stateByte(head: number): number {
  return queueRegionSplit.sizeBytes + head * descStateSplit.sizeBytes;
}
