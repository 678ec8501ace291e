// A driver of a packed ring by chance: from one that keeps all rules to one that keeps none. It knows what it made
// available and what is its own again, so that a case of a sound one can say that nothing got lost.
import { VIRTQ_DESC_F_AVAIL, VIRTQ_DESC_F_USED } from '../../src/virtio/packed-ring.ts';
import type { PlainMemory } from '../virtio/plain-memory.ts';
import type { Random } from './random.ts';
import { DATA_FLAGS, LENGTHS } from './ring-world.ts';

const [NEXT, WRITE, INDIRECT] = [1, 2, 4];

export interface PackedPlace {
  readonly desc: number;
  readonly driver: number;
  readonly device: number;
  /** A sound driver's indirect tables, TABLE_BYTES for each of IDS_MAX ids, and its buffers. */
  readonly tables: number;
  readonly data: number;
  readonly dataBytes: number;
}

/** Enough for any number of steps, and cheap for the largest ring. */
export const IDS_MAX = 1024;
export const TABLE_BYTES = 16 * 8;

interface Buffer {
  readonly addr: number | bigint;
  readonly len: number;
  readonly flags: number;
}

export class PackedDriver {
  readonly #random: Random;
  readonly #memory: PlainMemory;
  readonly #place: PackedPlace;
  readonly #size: number;
  readonly #wild: number;
  readonly #indirect: boolean;
  readonly #ids: number[];
  /** Slots of what is available or with the device, by id. */
  readonly #slots = new Map<number, number>();
  #free: number;
  #index: number;
  #wrap: boolean;

  /** `start`: where both sides begin, with the wrap counter in bit 15. */
  constructor(random: Random, memory: PlainMemory, place: PackedPlace, { size, wild, indirect, start }: { size: number; wild: number; indirect: boolean; start: number }) {
    this.#random = random;
    this.#memory = memory;
    this.#place = place;
    this.#size = size;
    this.#wild = wild;
    this.#indirect = indirect;
    this.#ids = Array.from({ length: Math.min(size, IDS_MAX) }, (_, i) => size - 1 - i);
    this.#free = size;
    this.#index = start & 0x7fff;
    this.#wrap = start >> 15 === 1;
    // What is ahead of it belongs to the lap before, all of it used; `fresh` memory is that in a first lap.
    if (!this.#wrap) for (let i = this.#index; i < size; i += 1) this.#write(i, { flags: VIRTQ_DESC_F_AVAIL | VIRTQ_DESC_F_USED });
    if (this.#wrap && this.#index > 0) for (let i = 0; i < this.#index; i += 1) this.#write(i, { flags: VIRTQ_DESC_F_AVAIL | VIRTQ_DESC_F_USED });
  }

  /** Requests that were made available and did not come back. */
  get outstanding(): number {
    return this.#slots.size;
  }

  /** Make a few requests available. */
  publish(): void {
    for (let count = this.#random.below(6); count > 0 && this.#free > 0 && this.#ids.length > 0; count -= 1) this.#request();
  }

  /** The device used it. */
  used(id: number): void {
    const slots = this.#slots.get(id);
    if (slots === undefined) {
      if (this.#wild === 0) throw new Error(`buffer id ${id} was used, and is not with the device`);
      return;
    }
    this.#slots.delete(id);
    this.#free += slots;
    this.#ids.push(id);
  }

  /** Say, truly or not, when an interrupt is wanted. */
  askForEvents(): void {
    const region = this.#memory.region(this.#place.driver, 4);
    if (region === undefined) return;
    new DataView(region.u8.buffer, region.u8.byteOffset).setUint32(this.#place.driver - region.guestAddress, this.#random.chance(0.5) ? this.#random.below(3) << 16 | this.#random.below(0x10000) : this.#random.u32(), true);
  }

  /** Anything, anywhere in the ring. */
  scribble(): void {
    const random = this.#random;
    this.#write(random.below(this.#size), { addr: random.edge(), len: random.u32(), id: random.chance(0.5) ? random.below(this.#size) : random.below(0x10000), flags: random.below(0x10000) });
  }

  #request(): void {
    const random = this.#random;
    const wild = (): boolean => this.#wild > 0 && random.chance(this.#wild);
    const indirect = this.#indirect ? random.chance(0.3) : wild();
    const whole = wild() || random.chance(0.01);
    const slots = indirect && !wild() ? 1 : whole ? this.#free : 1 + random.below(Math.min(this.#free, random.pick([1, 2, 4])));
    const id = this.#ids.pop() as number;
    const readable = random.below(slots + 1);
    for (let i = 0; i < slots; i += 1) {
      const lap = (this.#wrap ? VIRTQ_DESC_F_AVAIL : VIRTQ_DESC_F_USED) ^ (wild() ? VIRTQ_DESC_F_AVAIL | VIRTQ_DESC_F_USED : 0);
      const last = i === slots - 1 && !wild();
      const data = indirect ? this.#table(this.#size - 1 - id) : this.#buffer(i >= readable);
      // The id counts in the last one only; a wrong one is out of range, or another request's.
      const said = wild() ? (random.chance(0.5) ? random.below(0x10000) : random.below(this.#size)) : i === slots - 1 ? id : 0xffff;
      this.#write(this.#index, { ...data, id: said, flags: data.flags | lap | (last || indirect ? 0 : NEXT) });
      this.#index += 1;
      if (this.#index >= this.#size) {
        this.#index = 0;
        this.#wrap = !this.#wrap;
      }
    }
    this.#free -= slots;
    this.#slots.set(id, slots);
  }

  #buffer(writable: boolean): Buffer {
    const random = this.#random;
    const { data, dataBytes } = this.#place;
    const flags = random.chance(this.#wild) ? random.pick([...DATA_FLAGS, INDIRECT, random.below(0x10000)]) : writable ? WRITE : 0;
    const addr = random.chance(this.#wild) ? random.edge() : data + random.below(dataBytes - 512);
    return { addr, len: random.chance(this.#wild) ? (random.chance(0.3) ? 0 : random.u32()) : random.pick(LENGTHS), flags };
  }

  /** An indirect table of up to eight entries at its place, and what refers to it. */
  #table(place: number): Buffer {
    const random = this.#random;
    const { data, dataBytes, tables } = this.#place;
    const entries = 1 + random.below(TABLE_BYTES / 16);
    const at = tables + TABLE_BYTES * place;
    const readable = random.below(entries + 1);
    for (let i = 0; i < entries; i += 1) {
      const { addr, len, flags } = this.#buffer(i >= readable);
      this.#put(at + 16 * i, addr, len, random.below(0x10000), flags & ~NEXT | (random.chance(0.3) ? NEXT : 0));
    }
    const len = random.chance(this.#wild) ? (random.chance(0.5) ? 16 * random.below(0x20000) : random.u32()) : 16 * entries;
    return { addr: random.chance(this.#wild) ? random.edge() : random.chance(this.#wild) ? data + random.below(dataBytes) : at, len, flags: INDIRECT | (random.chance(this.#wild) ? NEXT : 0) };
  }

  #write(index: number, { addr = 0, len = 0, id = 0, flags = 0 }: Partial<Buffer> & { readonly id?: number }): void {
    this.#put(this.#place.desc + 16 * index, addr, len, id, flags);
  }

  /** A descriptor, where there is memory for it; by hand, since a case writes thousands. */
  #put(address: number, addr: number | bigint, len: number, id: number, flags: number): void {
    const region = this.#memory.region(address, 16);
    if (region === undefined || (address - region.guestAddress) % 4 !== 0) return;
    const at = (address - region.guestAddress) / 4;
    region.u32[at] = typeof addr === 'bigint' ? Number(addr & 0xffffffffn) : addr;
    region.u32[at + 1] = typeof addr === 'bigint' ? Number(addr >> 32n) : Math.floor(addr / 2 ** 32);
    region.u32[at + 2] = len;
    region.u32[at + 3] = flags << 16 | id;
  }
}
