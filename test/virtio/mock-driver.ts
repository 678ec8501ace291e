// The driver's side of a split ring over plain buffers. Device tests drive their devices with it (and with
// packed-mock-driver.ts). Raw writes (descriptor, availHead, availIndex) are for drivers that break the rules.
import { needEvent, splitRingParts, virtqDesc } from '../../src/virtio/split-ring.ts';
import { SplitVirtqueue } from '../../src/virtio/split-virtqueue.ts';
import { align, DriverSide, INDIRECT, NEXT, WRITE } from './driver-side.ts';
import type { MockDriverOptions, Piece, QueueOptions } from './driver-side.ts';

export type { MockDriverOptions, UsedBuffer } from './driver-side.ts';

export interface Descriptor {
  addr: number | bigint;
  len: number;
  flags: number;
  next: number;
}

export class MockDriver extends DriverSide {
  readonly desc: number;
  readonly avail: number;
  readonly used: number;
  readonly arena: number;
  protected readonly packed = false;
  #free: number[];
  #availIndex: number;
  #usedSeen: number;

  constructor(options: MockDriverOptions = {}) {
    super(options, 26 * (options.size ?? 8));
    this.desc = align(options.base ?? this.memory.regions[0].guestAddress, 16);
    this.avail = this.desc + splitRingParts.desc.sizeBytes(this.size);
    this.used = align(this.avail + splitRingParts.avail.sizeBytes(this.size), 4);
    this.arena = align(this.used + splitRingParts.used.sizeBytes(this.size), 16);
    this.#free = Array.from({ length: this.size }, (_, i) => i);
    this.#availIndex = this.startBase;
    this.#usedSeen = this.#availIndex;
    this.u16(this.avail + 2, this.#availIndex);
    this.u16(this.used + 2, this.#availIndex);
    this.armInterrupt();
  }

  get driverArea(): number {
    return this.avail;
  }

  get deviceArea(): number {
    return this.used;
  }

  get freeDescriptors(): number {
    return this.#free.length;
  }

  protected get startBase(): number {
    return (this.options.startIndex ?? 0) & 0xffff;
  }

  baseAfter(requests: number): number {
    return (this.startBase + requests) & 0xffff;
  }

  queue(options: QueueOptions = {}): SplitVirtqueue {
    return new SplitVirtqueue(this.queueOptions(options));
  }

  protected layOut(buffers: readonly Piece[], indirect: boolean): { id: number; token: unknown } {
    const descriptors = this.#free.splice(0, indirect ? 1 : buffers.length);
    const flagsOf = ({ writable }: Piece, i: number): number => (writable ? WRITE : 0) | (i < buffers.length - 1 ? NEXT : 0);
    if (indirect) {
      const table = this.allocate(16 * buffers.length);
      buffers.forEach((piece, i) => this.#descriptorAt(table + 16 * i,
        { addr: piece.address, len: piece.length, flags: flagsOf(piece, i), next: i + 1 < buffers.length ? i + 1 : 0 }));
      this.descriptor(descriptors[0], { addr: table, len: 16 * buffers.length, flags: INDIRECT });
    } else {
      buffers.forEach((piece, i) =>
        this.descriptor(descriptors[i], { addr: piece.address, len: piece.length, flags: flagsOf(piece, i), next: descriptors[i + 1] ?? 0 }));
    }
    return { id: descriptors[0], token: descriptors };
  }

  protected makeAvailable(heads: readonly number[]): boolean {
    const before = this.#availIndex;
    for (const head of heads) {
      this.availHead(this.#availIndex, head);
      this.#availIndex = (this.#availIndex + 1) & 0xffff;
    }
    this.availIndex(this.#availIndex);
    const event = this.memory.view(this.used + 4 + 8 * this.size, 2).getUint16(0, true);
    const noNotify = (this.memory.view(this.used, 2).getUint16(0, true) & 1) !== 0;
    return this.eventIdx ? needEvent(event, this.#availIndex, before) : !noNotify;
  }

  protected readUsed(): { id: number; len: number } | undefined {
    if (this.#usedSeen === this.memory.view(this.used + 2, 2).getUint16(0, true)) return undefined;
    const element = this.memory.view(this.used + 4 + 8 * (this.#usedSeen % this.size), 8);
    return { id: element.getUint32(0, true), len: element.getUint32(4, true) };
  }

  protected goOn(requests: number): void {
    this.#usedSeen = (this.#usedSeen + requests) & 0xffff;
  }

  protected giveBack(_id: number, descriptors: unknown): void {
    this.#free.push(...descriptors as number[]);
  }

  protected armInterrupt(): void {
    if (this.eventIdx) this.askInterruptAt(this.#usedSeen);
  }

  /** Raw: descriptor `index` of the table. */
  descriptor(index: number, fields: Partial<Descriptor>): void {
    this.#descriptorAt(this.desc + 16 * index, fields);
  }

  /** Raw: the avail ring's entry for this index. */
  availHead(index: number, head: number): void {
    this.u16(this.avail + 4 + 2 * (index % this.size), head);
  }

  /** Raw: avail.idx. */
  availIndex(index: number): void {
    this.u16(this.avail + 2, index);
  }

  /** avail.flags: VIRTQ_AVAIL_F_NO_INTERRUPT. */
  suppressInterrupts(suppress: boolean): void {
    this.u16(this.avail, suppress ? 1 : 0);
  }

  /** used_event: which used index the driver wants to be told of. */
  askInterruptAt(usedIndex: number): void {
    this.u16(this.avail + 4 + 2 * this.size, usedIndex & 0xffff);
  }

  #descriptorAt(address: number, { addr = 0, len = 0, flags = 0, next = 0 }: Partial<Descriptor>): void {
    this.memory.write(address, virtqDesc.encode({ addr: BigInt(addr), len, flags, next }));
  }
}
