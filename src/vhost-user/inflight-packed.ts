// What is in flight in a packed ring: QEMU docs/interop/vhost-user.rst, "Inflight I/O tracking", QueueRegionPacked
// and DescStatePacked. Used entries overwrite descriptors of requests that are still in flight, so the descriptors
// themselves are noted, in entries of a free list. What is written last counts: old_free_head for a request taken,
// the flags of the first used descriptor for a batch used.
//
// Where the specification leaves the order of two writes open, it is one that a crash between them does not hurt:
// the wrap counter before the index, for both the pair in progress and the old pair.
import { layout, u16, u32, u64, u8 } from '../bytes/layout.ts';
import { ProtocolError } from '../errors.ts';
import type { DescriptorTable } from '../virtio/descriptor-walk.ts';
import { availableFlags, packedRingParts, VIRTQ_DESC_F_AVAIL, VIRTQ_DESC_F_USED } from '../virtio/packed-ring.ts';
import type { JournalledRequest, Resubmission } from '../virtio/ring-journal.ts';
import type { InflightRegion, NotedRing, RegionPlace, RegionViews } from './inflight.ts';

export const queueRegionPacked = layout('QueueRegionPacked', 32, {
  features: u64(0, 'none'),
  version: u16(8, '1; 0: nothing was ever noted'),
  desc_num: u16(10, 'entries that follow: the queue size'),
  free_head: u16(12, 'the first free entry; desc_num: none'),
  old_free_head: u16(14, 'the same when the last request was taken or used completely'),
  used_idx: u16(16, 'where the next used descriptor goes'),
  old_used_idx: u16(18, 'the same when the last use was complete'),
  used_wrap_counter: u8(20, 'of used_idx'),
  old_used_wrap_counter: u8(21, 'of old_used_idx'),
});

export const descStatePacked = layout('DescStatePacked', 32, {
  inflight: u8(0, '1: the device has the request whose first descriptor this is'),
  next: u16(2, 'the next free entry, or the next of the request'),
  last: u16(4, 'of a request’s first entry: its last'),
  num: u16(6, 'of a request’s first entry: how many it has'),
  counter: u64(8, 'of a request’s first entry: the order in which requests were taken'),
  id: u16(16, 'the buffer id'),
  flags: u16(18, 'VIRTQ_DESC_F_*'),
  len: u32(20, 'length in bytes'),
  addr: u64(24, 'guest-physical address'),
});

const VERSION = 1;
/** Words of 16 bits in the region's head, of 8 for the wrap counters. */
const [AT_VERSION, AT_DESC_NUM, AT_FREE, AT_OLD_FREE, AT_USED, AT_OLD_USED] = [4, 5, 6, 7, 8, 9];
const [AT_WRAP, AT_OLD_WRAP] = [20, 21];
/** Words of 16 and 32 bits in an entry. */
const [NEXT, LAST, NUM] = [1, 2, 3];
const [COUNTER, DESCRIPTOR] = [2, 4];
const LAP_BITS = VIRTQ_DESC_F_AVAIL | VIRTQ_DESC_F_USED;

interface Noted extends Required<Resubmission> {
  readonly first: number;
  readonly last: number;
  readonly counter: number;
}

export class PackedInflight implements InflightRegion {
  readonly #u8: Uint8Array;
  readonly #u16: Uint16Array;
  readonly #u32: Uint32Array;
  readonly #place: RegionPlace;
  /** What was written to the area, since the front end could write there too. By entry: */
  readonly #next: Uint16Array;
  readonly #last: Uint16Array;
  /** By buffer id: the request's first entry. */
  readonly #first: Uint16Array;
  #free = 0;
  #freeCount: number;
  #used = 0;
  #usedWrap = true;
  #counter = 0;
  /** First entries of the batch whose use is under way. */
  readonly #batch: Uint16Array;
  #batchSize = 0;

  constructor({ u8: bytes, u16: halves, u32: words }: RegionViews, place: RegionPlace) {
    this.#u8 = bytes;
    this.#u16 = halves;
    this.#u32 = words;
    this.#place = place;
    this.#next = new Uint16Array(place.entries);
    this.#last = new Uint16Array(place.entries);
    this.#first = new Uint16Array(place.size);
    this.#batch = new Uint16Array(place.entries);
    this.#freeCount = place.entries;
  }

  resume({ memory, descAddress, base }: NotedRing): { base: number; resubmit: Noted[] } | undefined {
    const { size, entries } = this.#place;
    const version = this.#u16[AT_VERSION];
    if (version === 0) {
      this.#prepare(base >>> 16);
      return undefined;
    }
    if (version !== VERSION || this.#u16[AT_DESC_NUM] !== entries) {
      throw this.#wrong(`is of version ${version} for ${this.#u16[AT_DESC_NUM]} entries, not ${VERSION} for ${entries}`);
    }
    this.#settle((at) => {
      const region = memory.region(descAddress, packedRingParts.desc.sizeBytes(size));
      const offset = descAddress - (region?.guestAddress ?? 0);
      // Not there or not aligned: that breaks the ring anyway.
      return region === undefined || offset % 2 !== 0 ? 0 : Atomics.load(region.u16, offset / 2 + 8 * at + 7);
    });
    const taken = this.#load();
    taken.sort((a, b) => a.counter - b.counter);
    this.#counter = (taken.at(-1)?.counter ?? -1) + 1;
    const inFlight = taken.reduce((sum, { descriptors }) => sum + descriptors.length / 4, 0);
    if (inFlight > size) throw this.#wrong(`has ${inFlight} descriptors in flight of a ring of ${size}`);
    for (const { head, first, last } of taken) {
      if (head >= size) throw this.#wrong(`names buffer id ${head} of a ring of ${size}`);
      this.#first[head] = first;
      this.#last[first] = last;
    }
    const used = lapped(this.#used, this.#usedWrap);
    return { base: (used << 16 | this.#ahead(inFlight)) >>> 0, resubmit: taken };
  }

  taken({ head, slots }: JournalledRequest, { words, base, entries }: DescriptorTable, first: number): boolean {
    if (slots > this.#freeCount) return false;
    const entry = this.#free;
    let [last, next] = [entry, entry];
    for (let i = 0; i < slots; i += 1) {
      last = next;
      const from = base + 4 * ((first + i) % entries);
      const to = stateByte(last) / 4 + DESCRIPTOR;
      this.#u32[to] = words[from + 3];
      this.#u32[to + 1] = words[from + 2];
      this.#u32[to + 2] = words[from];
      this.#u32[to + 3] = words[from + 1];
      next = this.#next[last];
    }
    // Of the last descriptor the queue read the id; the driver may have written another since.
    this.#u16[stateByte(last) / 2 + 2 * DESCRIPTOR] = head;
    this.#first[head] = entry;
    this.#last[entry] = last;
    this.#u16[stateByte(entry) / 2 + LAST] = last;
    this.#u16[stateByte(entry) / 2 + NUM] = slots;
    this.#u32[stateByte(entry) / 4 + COUNTER] = this.#counter % 2 ** 32;
    this.#u32[stateByte(entry) / 4 + COUNTER + 1] = Math.floor(this.#counter / 2 ** 32);
    this.#counter += 1;
    Atomics.store(this.#u8, stateByte(entry), 1);
    this.#freeCount -= slots;
    this.#free = next;
    this.#u16[AT_FREE] = next;
    Atomics.store(this.#u16, AT_OLD_FREE, next);
    return true;
  }

  putBack({ head, slots }: JournalledRequest): void {
    const entry = this.#giveBack(head, slots);
    Atomics.store(this.#u16, AT_OLD_FREE, entry);
    Atomics.store(this.#u8, stateByte(entry), 0);
  }

  using({ head, slots }: JournalledRequest): void {
    this.#batch[this.#batchSize] = this.#giveBack(head, slots);
    this.#batchSize += 1;
    const used = this.#used + slots;
    const wraps = used >= this.#place.size;
    this.#writeUsed(wraps ? used - this.#place.size : used, this.#usedWrap !== wraps);
  }

  used(place: number): void {
    // Elsewhere than using() says when a test puts entries there that answer no request.
    this.#writeUsed(place & 0x7fff, place >> 15 === 1);
    for (let i = 0; i < this.#batchSize; i += 1) Atomics.store(this.#u8, stateByte(this.#batch[i]), 0);
    this.#batchSize = 0;
    this.#commit();
  }

  /** The request's entries lead the free list; its first one. */
  #giveBack(head: number, slots: number): number {
    const entry = this.#first[head];
    this.#link(this.#last[entry], this.#free);
    this.#free = entry;
    this.#freeCount += slots;
    Atomics.store(this.#u16, AT_FREE, entry);
    return entry;
  }

  #link(entry: number, next: number): void {
    this.#next[entry] = next;
    this.#u16[stateByte(entry) / 2 + NEXT] = next;
  }

  /** The wrap counter first: the old index with a new counter reads as a whole lap that the ring knows nothing of. */
  #writeUsed(used: number, wrap: boolean): void {
    this.#used = used;
    this.#usedWrap = wrap;
    Atomics.store(this.#u8, AT_WRAP, wrap ? 1 : 0);
    Atomics.store(this.#u16, AT_USED, used);
  }

  /** The index last: as long as it differs what is written before it is written again. */
  #commit(): void {
    Atomics.store(this.#u16, AT_OLD_FREE, this.#free);
    Atomics.store(this.#u8, AT_OLD_WRAP, this.#usedWrap ? 1 : 0);
    Atomics.store(this.#u16, AT_OLD_USED, this.#used);
  }

  /** Notes of a ring of which there are none, its used index at `used` (with its wrap counter). */
  #prepare(used: number): void {
    const { entries } = this.#place;
    this.#u16[AT_DESC_NUM] = entries;
    for (let entry = 0; entry < entries; entry += 1) this.#link(entry, entry + 1);
    this.#writeUsed(used & 0x7fff, used >> 15 === 1);
    this.#free = 0;
    this.#u16[AT_FREE] = 0;
    this.#commit();
    Atomics.store(this.#u16, AT_VERSION, VERSION);
  }

  /** Make what was in progress done or undone: done when the driver could see it. `flagsAt`: of a descriptor of the ring. */
  #settle(flagsAt: (index: number) => number): void {
    const { size, entries } = this.#place;
    const [used, old] = [this.#u16[AT_USED], this.#u16[AT_OLD_USED]];
    const [wrap, oldWrap] = [this.#u8[AT_WRAP] === 1, this.#u8[AT_OLD_WRAP] === 1];
    if (used >= size || old >= size) throw this.#wrong(`has used index ${Math.max(used, old)} of a ring of ${size}`);
    // No batch goes back in the same lap: this one is done, and the commit was half written.
    const halfDone = wrap === oldWrap && used < old;
    const done = (used !== old || wrap !== oldWrap) && (halfDone || (flagsAt(old) & LAP_BITS) !== availableFlags(oldWrap));
    this.#free = this.#u16[done ? AT_FREE : AT_OLD_FREE];
    if (this.#free > entries) throw this.#wrong(`has free entry ${this.#free} of ${entries}`);
    this.#u16[AT_FREE] = this.#free;
    this.#used = done ? used : old;
    this.#usedWrap = done ? wrap : oldWrap;
    // Undone, the index goes back first: a lap less with the index of the batch would read as half done.
    Atomics.store(this.#u16, AT_USED, this.#used);
    Atomics.store(this.#u8, AT_WRAP, this.#usedWrap ? 1 : 0);
    this.#commit();
  }

  /** The free list, and the requests in flight. What is neither is free from here on. */
  #load(): Noted[] {
    const { entries } = this.#place;
    const known = new Uint8Array(entries);
    const claim = (entry: number): void => {
      if (entry >= entries || known[entry] === 1) throw this.#wrong(`has entry ${entry} of ${entries} twice, or not at all`);
      known[entry] = 1;
      this.#next[entry] = this.#u16[stateByte(entry) / 2 + NEXT];
    };
    this.#freeCount = 0;
    for (let entry = this.#free; entry !== entries; entry = this.#next[entry]) {
      claim(entry);
      this.#u8[stateByte(entry)] = 0;
      this.#freeCount += 1;
    }
    const taken: Noted[] = [];
    for (let first = 0; first < entries; first += 1) {
      if (this.#u8[stateByte(first)] !== 1 || known[first] === 1) continue;
      const num = this.#u16[stateByte(first) / 2 + NUM];
      if (num === 0 || num > entries) throw this.#wrong(`has a request of ${num} descriptors`);
      const descriptors = new Uint32Array(4 * num);
      let last = first;
      for (let i = 0; i < num; i += 1) {
        if (i > 0) last = this.#next[last];
        claim(last);
        const from = stateByte(last) / 4 + DESCRIPTOR;
        const [idAndFlags, len, low, high] = this.#u32.subarray(from, from + 4);
        descriptors.set([low, high, len, (idAndFlags & ~(LAP_BITS << 16)) | availableFlags(true) << 16], 4 * i);
      }
      const at = stateByte(first) / 4 + COUNTER;
      const counter = this.#u32[at + 1] * 2 ** 32 + this.#u32[at];
      taken.push({ head: (descriptors[4 * num - 1]) & 0xffff, descriptors, first, last, counter });
    }
    for (let entry = 0; entry < entries; entry += 1) {
      if (known[entry] === 1) continue;
      this.#link(entry, this.#free);
      this.#free = entry;
      this.#freeCount += 1;
      this.#u16[AT_FREE] = entry;
      Atomics.store(this.#u16, AT_OLD_FREE, entry);
    }
    return taken;
  }

  /** The place so many descriptors after the next used one. */
  #ahead(count: number): number {
    const place = this.#used + count;
    const { size } = this.#place;
    return place >= size ? lapped(place - size, !this.#usedWrap) : lapped(place, this.#usedWrap);
  }

  #wrong(what: string): ProtocolError {
    return new ProtocolError(`vhost-user: the in-flight region of ring ${this.#place.index} ${what}`);
  }
}

function lapped(index: number, wrap: boolean): number {
  return index | (wrap ? 0x8000 : 0);
}

function stateByte(entry: number): number {
  return queueRegionPacked.sizeBytes + entry * descStatePacked.sizeBytes;
}
