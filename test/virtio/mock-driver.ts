// The driver's side of a split ring over plain buffers: lays out descriptors, makes them available,
// kicks as the spec says, collects what was used. Device tests drive their devices with it. Raw
// writes (descriptor, availHead, availIndex) are for drivers that break the rules.
import type { ProtocolError } from '../../src/errors.ts';
import type { GuestAddress } from '../../src/virtio/guest-memory.ts';
import { needEvent, splitRingParts, virtqDesc } from '../../src/virtio/split-ring.ts';
import { SplitVirtqueue } from '../../src/virtio/split-virtqueue.ts';
import type { SplitVirtqueueOptions } from '../../src/virtio/split-virtqueue.ts';
import { PlainMemory } from './plain-memory.ts';

export interface MockDriverOptions {
  readonly size?: number;
  readonly eventIdx?: boolean;
  readonly indirect?: boolean;
  /** Both ring indices start here, as on a queue that was stopped and is started again. */
  readonly startIndex?: number;
  readonly memory?: PlainMemory;
  /** Where the ring is laid out; the data arena follows it. */
  readonly base?: number;
}

export interface Descriptor {
  addr: number | bigint;
  len: number;
  flags: number;
  next: number;
}

export interface UsedBuffer {
  readonly id: number;
  readonly len: number;
  /** The whole writable part of the request, as it is now. */
  readonly written: Uint8Array;
}

const NEXT = 1;
const WRITE = 2;
const INDIRECT = 4;

export class MockDriver {
  readonly memory: PlainMemory;
  readonly size: number;
  readonly desc: number;
  readonly avail: number;
  readonly used: number;
  /** Where data goes; raw tests may use it too. */
  readonly arena: number;
  /** How often the device notified the driver. */
  interrupts = 0;
  /** How often the driver would have kicked the device. */
  kicks = 0;
  readonly failures: ProtocolError[] = [];
  /** Called on each kick, as the transport would call the device. */
  onKick: (() => void) | undefined;
  readonly #options: MockDriverOptions;
  readonly #free: number[];
  readonly #outstanding = new Map<number, { descriptors: number[]; writable: { address: number; length: number }[] }>();
  #bump: number;
  #availIndex: number;
  #usedSeen: number;

  constructor(options: MockDriverOptions = {}) {
    this.#options = options;
    this.size = options.size ?? 8;
    this.memory = options.memory ?? new PlainMemory({ guestAddress: 0x10000, sizeBytes: 0x100000 });
    const align = (address: number, to: number): number => Math.ceil(address / to) * to;
    this.desc = align(options.base ?? this.memory.regions[0].guestAddress, 16);
    this.avail = this.desc + splitRingParts.desc.sizeBytes(this.size);
    this.used = align(this.avail + splitRingParts.avail.sizeBytes(this.size), 4);
    this.arena = align(this.used + splitRingParts.used.sizeBytes(this.size), 16);
    this.#bump = this.arena;
    this.#free = Array.from({ length: this.size }, (_, i) => i);
    this.#availIndex = (options.startIndex ?? 0) & 0xffff;
    this.#usedSeen = this.#availIndex;
    this.#u16(this.avail + 2, this.#availIndex);
    this.#u16(this.used + 2, this.#availIndex);
    this.#armInterrupt();
  }

  get freeDescriptors(): number {
    return this.#free.length;
  }

  /** The device's end of this ring. */
  queue({ lastAvailIndex, ...further }: Pick<Partial<SplitVirtqueueOptions>, 'lastAvailIndex' | 'chainLimit' | 'yieldTurn'> = {}): SplitVirtqueue {
    return new SplitVirtqueue({
      memory: this.memory,
      size: this.size,
      descAddress: this.desc as GuestAddress,
      availAddress: this.avail as GuestAddress,
      usedAddress: this.used as GuestAddress,
      eventIdx: this.#options.eventIdx ?? false,
      indirect: this.#options.indirect ?? false,
      lastAvailIndex: lastAvailIndex ?? this.#options.startIndex ?? 0,
      notify: () => { this.interrupts += 1; },
      onBroken: (error) => this.failures.push(error),
      ...further,
    });
  }

  /** Make one request available: readable buffers, then writable ones of these lengths. Returns its head. */
  submit(readable: readonly Uint8Array[], writable: readonly number[] = [], { indirect = false } = {}): number {
    const head = this.stage(readable, writable, { indirect });
    this.publish([head]);
    return head;
  }

  /** One readable buffer with this text, and as much room for an answer. */
  submitOne(name: string, indirect = false): number {
    return this.submit([Buffer.from(name)], [name.length], { indirect });
  }

  /** Lay out a request without making it available. */
  stage(readable: readonly Uint8Array[], writable: readonly number[] = [], { indirect = false } = {}): number {
    const buffers = [
      ...readable.map((data) => {
        const address = this.allocate(data.length);
        this.memory.write(address, data);
        return { address, length: data.length, flags: 0 };
      }),
      ...writable.map((length) => ({ address: this.allocate(length), length, flags: WRITE })),
    ];
    const needed = indirect ? 1 : buffers.length;
    if (needed > this.#free.length) throw new RangeError('the mock driver is out of descriptors');
    const descriptors = this.#free.splice(0, needed);
    const link = (i: number): number => (i < buffers.length - 1 ? NEXT : 0);
    if (indirect) {
      const table = this.allocate(16 * buffers.length);
      buffers.forEach(({ address, length, flags }, i) =>
        this.#descriptorAt(table + 16 * i, { addr: address, len: length, flags: flags | link(i), next: i + 1 < buffers.length ? i + 1 : 0 }));
      this.descriptor(descriptors[0], { addr: table, len: 16 * buffers.length, flags: INDIRECT });
    } else {
      buffers.forEach(({ address, length, flags }, i) =>
        this.descriptor(descriptors[i], { addr: address, len: length, flags: flags | link(i), next: descriptors[i + 1] ?? 0 }));
    }
    this.#outstanding.set(descriptors[0], { descriptors, writable: buffers.filter(({ flags }) => flags === WRITE) });
    return descriptors[0];
  }

  /** Make heads available, then kick if the device asked to be told. */
  publish(heads: readonly number[]): void {
    const before = this.#availIndex;
    for (const head of heads) {
      this.availHead(this.#availIndex, head);
      this.#availIndex = (this.#availIndex + 1) & 0xffff;
    }
    this.availIndex(this.#availIndex);
    const event = this.memory.view(this.used + 4 + 8 * this.size, 2).getUint16(0, true);
    const noNotify = (this.memory.view(this.used, 2).getUint16(0, true) & 1) !== 0;
    if (this.#options.eventIdx === true ? needEvent(event, this.#availIndex, before) : !noNotify) {
      this.kicks += 1;
      this.onKick?.();
    }
  }

  /** Take what the device used since the last call; with EVENT_IDX the next interrupt is asked for. */
  collect(): UsedBuffer[] {
    const taken: UsedBuffer[] = [];
    const end = this.memory.view(this.used + 2, 2).getUint16(0, true);
    while (this.#usedSeen !== end) {
      const element = this.memory.view(this.used + 4 + 8 * (this.#usedSeen % this.size), 8);
      const id = element.getUint32(0, true);
      const request = this.#outstanding.get(id);
      if (request !== undefined) {
        this.#outstanding.delete(id);
        this.#free.push(...request.descriptors);
      }
      const written = Buffer.concat((request?.writable ?? []).map(({ address, length }) => this.memory.read(address, length)));
      taken.push({ id, len: element.getUint32(4, true), written });
      this.#usedSeen = (this.#usedSeen + 1) & 0xffff;
    }
    if (this.#outstanding.size === 0) this.#bump = this.arena;
    this.#armInterrupt();
    return taken;
  }

  /** Room in the data arena; given back when nothing is outstanding. */
  allocate(length: number): number {
    const address = this.#bump;
    this.#bump += Math.ceil(length / 16) * 16;
    return address;
  }

  /** Raw: descriptor `index` of the table. */
  descriptor(index: number, fields: Partial<Descriptor>): void {
    this.#descriptorAt(this.desc + 16 * index, fields);
  }

  /** Raw: the avail ring's entry for this index. */
  availHead(index: number, head: number): void {
    this.#u16(this.avail + 4 + 2 * (index % this.size), head);
  }

  /** Raw: avail.idx. */
  availIndex(index: number): void {
    this.#u16(this.avail + 2, index);
  }

  /** avail.flags: VIRTQ_AVAIL_F_NO_INTERRUPT. */
  suppressInterrupts(suppress: boolean): void {
    this.#u16(this.avail, suppress ? 1 : 0);
  }

  /** used_event: which used index the driver wants to be told of. */
  askInterruptAt(usedIndex: number): void {
    this.#u16(this.avail + 4 + 2 * this.size, usedIndex & 0xffff);
  }

  #armInterrupt(): void {
    if (this.#options.eventIdx === true) this.askInterruptAt(this.#usedSeen);
  }

  #descriptorAt(address: number, { addr = 0, len = 0, flags = 0, next = 0 }: Partial<Descriptor>): void {
    this.memory.write(address, virtqDesc.encode({ addr: BigInt(addr), len, flags, next }));
  }

  #u16(address: number, value: number): void {
    this.memory.view(address, 2).setUint16(0, value, true);
  }
}
