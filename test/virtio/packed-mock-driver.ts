// The driver's side of a packed ring over plain buffers (virtio 1.2, 2.8): the steps of 2.8.21 and 2.8.22, with
// ids that are not the descriptors' places. Raw writes (descriptor, driverEvent) are for drivers that break the rules.
import { PackedVirtqueue } from '../../src/virtio/packed-virtqueue.ts';
import { packedRingParts, pvirtqDesc } from '../../src/virtio/packed-ring.ts';
import { align, DriverSide, INDIRECT, NEXT, WRITE } from './driver-side.ts';
import type { MockDriverOptions, Piece, QueueOptions } from './driver-side.ts';

const AVAIL = 1 << 7;
const USED = 1 << 15;
const [ENABLE, DISABLE, DESC] = [0, 1, 2];

export interface PackedDescriptor {
  addr: number | bigint;
  len: number;
  id: number;
  flags: number;
}

/** A place in the ring and its wrap counter. */
interface Cursor {
  index: number;
  wrap: boolean;
}

export class PackedMockDriver extends DriverSide {
  readonly desc: number;
  readonly driverArea: number;
  readonly deviceArea: number;
  readonly arena: number;
  protected readonly packed = true;
  protected readonly startBase: number;
  readonly #avail: Cursor;
  readonly #used: Cursor;
  readonly #ids: number[];
  #freeSlots: number;
  /** First descriptors of requests laid out and not yet available, with the flags that make them so. */
  readonly #staged = new Map<number, { place: number; flags: number; slots: number }>();

  constructor(options: MockDriverOptions = {}) {
    super(options, 16 * (options.size ?? 8));
    this.desc = align(options.base ?? this.memory.regions[0].guestAddress, 16);
    this.driverArea = this.desc + packedRingParts.desc.sizeBytes(this.size);
    this.deviceArea = this.driverArea + 4;
    this.arena = align(this.deviceArea + 4, 16);
    const start = options.startIndex ?? 0;
    const cursor = { index: start % this.size, wrap: Math.floor(start / this.size) % 2 === 0 };
    this.startBase = (wrapped(cursor) << 16 | wrapped(cursor)) >>> 0;
    this.#avail = { ...cursor };
    this.#used = { ...cursor };
    this.#freeSlots = this.size;
    // Highest first, so that no id is its descriptor's place by chance.
    this.#ids = Array.from({ length: this.size }, (_, i) => i);
    // As a ring is that went this far: what lies before the start is used, the rest of the lap before.
    for (let i = 0; i < this.size; i += 1) {
      const lap = i < cursor.index ? cursor.wrap : !cursor.wrap;
      this.descriptor(i, { flags: lap ? AVAIL | USED : 0 });
    }
    this.armInterrupt();
  }

  get freeDescriptors(): number {
    return this.#freeSlots;
  }

  baseAfter(_requests: number, slots: number): number {
    const cursor = { index: this.startBase & 0x7fff, wrap: (this.startBase & 0x8000) !== 0 };
    for (let i = 0; i < slots; i += 1) advance(cursor, 1, this.size);
    return (wrapped(cursor) << 16 | wrapped(cursor)) >>> 0;
  }

  queue(options: QueueOptions = {}): PackedVirtqueue {
    return new PackedVirtqueue(this.queueOptions(options));
  }

  protected layOut(buffers: readonly Piece[], indirect: boolean): { id: number; token: unknown } {
    const id = this.#ids.pop() as number;
    const slots = indirect ? 1 : buffers.length;
    const place = this.#avail.index;
    const first = indirect ? this.#table(buffers) : { address: buffers[0].address, length: buffers[0].length, flags: this.#flagsOf(buffers, 0) };
    const flags = first.flags | availableBits(this.#avail.wrap);
    // Until it is published the first descriptor stays as the device left it.
    const { flags: before } = pvirtqDesc.decode(this.memory.read(this.desc + 16 * place, 16));
    this.descriptor(place, { addr: first.address, len: first.length, id: slots === 1 ? id : 0xffff, flags: before });
    advance(this.#avail, 1, this.size);
    for (let i = 1; i < slots; i += 1) {
      const { address, length } = buffers[i];
      this.descriptor(this.#avail.index, {
        addr: address, len: length, id: i === slots - 1 ? id : 0xffff, flags: this.#flagsOf(buffers, i) | availableBits(this.#avail.wrap),
      });
      advance(this.#avail, 1, this.size);
    }
    this.#freeSlots -= slots;
    this.#staged.set(id, { place, flags, slots });
    return { id, token: slots };
  }

  /** In the order they were staged, whatever the order of `ids`: a packed ring has no other. */
  protected makeAvailable(ids: readonly number[]): boolean {
    let moved = 0;
    for (const id of ids) {
      const staged = this.#staged.get(id);
      if (staged === undefined) throw new RangeError(`request ${id} is not staged`);
      this.#staged.delete(id);
      moved += staged.slots;
      this.u16(this.desc + 16 * staged.place + 14, staged.flags);
    }
    const { desc, flags } = this.deviceEvent();
    if (flags !== DESC) return flags !== DISABLE;
    // What is staged and not yet available lies before the cursor.
    const ahead = [...this.#staged.values()].reduce((sum, { slots }) => sum + slots, 0);
    const now = { ...this.#avail };
    advance(now, -ahead, this.size);
    const event = (desc & 0x7fff) - (desc >> 15 === (now.wrap ? 1 : 0) ? 0 : this.size);
    return event >= now.index - moved && event < now.index;
  }

  protected readUsed(): { id: number; len: number } | undefined {
    const { id, len, flags } = pvirtqDesc.decode(this.memory.read(this.desc + 16 * this.#used.index, 16));
    const bits = this.#used.wrap ? AVAIL | USED : 0;
    if ((flags & (AVAIL | USED)) !== bits) return undefined;
    return { id, len: (flags & WRITE) === 0 ? 0 : len };
  }

  protected goOn(_requests: number, slots: number): void {
    advance(this.#used, slots, this.size);
  }

  protected giveBack(id: number, slots: unknown): void {
    this.#freeSlots += slots as number;
    this.#ids.push(id);
  }

  protected armInterrupt(): void {
    if (this.eventIdx) this.driverEvent(wrapped(this.#used), DESC);
  }

  suppressInterrupts(suppress: boolean): void {
    this.driverEvent(0, suppress ? DISABLE : ENABLE);
  }

  /** Raw: descriptor `index` of the ring. */
  descriptor(index: number, { addr = 0, len = 0, id = 0, flags = 0 }: Partial<PackedDescriptor>): void {
    this.memory.write(this.desc + 16 * index, pvirtqDesc.encode({ addr: BigInt(addr), len, id, flags }));
  }

  /** Raw: the driver event suppression structure. */
  driverEvent(desc: number, flags: number): void {
    this.memory.view(this.driverArea, 4).setUint32(0, (flags << 16 | desc) >>> 0, true);
  }

  /** The device event suppression structure. */
  deviceEvent(): { desc: number; flags: number } {
    const view = this.memory.view(this.deviceArea, 4);
    return { desc: view.getUint16(0, true), flags: view.getUint16(2, true) };
  }

  #flagsOf(buffers: readonly Piece[], i: number): number {
    return (buffers[i].writable ? WRITE : 0) | (i < buffers.length - 1 ? NEXT : 0);
  }

  #table(buffers: readonly Piece[]): { address: number; length: number; flags: number } {
    const address = this.allocate(16 * buffers.length);
    buffers.forEach((piece, i) => this.memory.write(address + 16 * i,
      pvirtqDesc.encode({ addr: BigInt(piece.address), len: piece.length, id: 0xffff, flags: piece.writable ? WRITE : 0 })));
    return { address, length: 16 * buffers.length, flags: INDIRECT };
  }
}

function wrapped({ index, wrap }: Cursor): number {
  return index | (wrap ? 0x8000 : 0);
}

function availableBits(wrap: boolean): number {
  return wrap ? AVAIL : USED;
}

function advance(cursor: Cursor, by: number, size: number): void {
  cursor.index += by;
  if (cursor.index >= size || cursor.index < 0) {
    cursor.index = (cursor.index + size) % size;
    cursor.wrap = !cursor.wrap;
  }
}
