// What a driver does whatever the layout: buffers in an arena, ids, kicks as the device asked for, what
// was used. mock-driver.ts lays it out as a split ring, packed-mock-driver.ts as a packed one.
import type { ProtocolError } from '../../src/errors.ts';
import { featureMask, VIRTIO_F } from '../../src/virtio/features.ts';
import type { GuestAddress } from '../../src/virtio/guest-memory.ts';
import type { RingVirtqueueOptions } from '../../src/virtio/ring-virtqueue.ts';
import type { TransportVirtqueue } from '../../src/virtio/virtqueue.ts';
import { PlainMemory } from './plain-memory.ts';

export interface MockDriverOptions {
  readonly size?: number;
  readonly eventIdx?: boolean;
  readonly indirect?: boolean;
  /** VIRTIO_F_IN_ORDER: one used entry may stand for a run of requests. */
  readonly inOrder?: boolean;
  /** Both ring indices start here, as on a queue that was stopped and is started again. */
  readonly startIndex?: number;
  readonly memory?: PlainMemory;
  /** Where the ring is laid out; the data arena follows it. */
  readonly base?: number;
}

export interface UsedBuffer {
  readonly id: number;
  readonly len: number;
  /** The whole writable part of the request, as it is now. */
  readonly written: Uint8Array;
}

/** One buffer of a request, before a layout makes a descriptor of it. */
export interface Piece {
  readonly address: number;
  readonly length: number;
  readonly writable: boolean;
}

interface Outstanding {
  readonly slots: number;
  readonly buffers: readonly Piece[];
  readonly token: unknown;
}

export type QueueOptions = Pick<RingVirtqueueOptions, 'chainLimit' | 'yieldTurn' | 'usedBatches'> & { readonly base?: number };

export const NEXT = 1;
export const WRITE = 2;
export const INDIRECT = 4;

export abstract class DriverSide {
  readonly memory: PlainMemory;
  readonly size: number;
  readonly eventIdx: boolean;
  /** The descriptor, driver and device areas. */
  abstract readonly desc: number;
  abstract readonly driverArea: number;
  abstract readonly deviceArea: number;
  /** Where data goes; raw tests may use it too. */
  abstract readonly arena: number;
  /** How often the device notified the driver. */
  interrupts = 0;
  /** How often the driver would have kicked the device. */
  kicks = 0;
  readonly failures: ProtocolError[] = [];
  /** Called on each kick, as the transport would call the device. */
  onKick: (() => void) | undefined;
  protected readonly options: MockDriverOptions;
  /** What the device has, in the order it was made available. */
  readonly #outstanding = new Map<number, Outstanding>();
  #bump = 0;

  constructor(options: MockDriverOptions, ringBytes: number) {
    this.options = options;
    this.size = options.size ?? 8;
    this.eventIdx = options.eventIdx ?? false;
    this.memory = options.memory ?? new PlainMemory({ guestAddress: 0x10000, sizeBytes: 0xf0000 + align(ringBytes + 32 * this.size, 0x10000) });
  }

  /** The base of a queue that starts where this driver does. */
  protected abstract readonly startBase: number;
  /** The base of a queue that took and used so many requests, of so many descriptors, from this driver's start. */
  abstract baseAfter(requests: number, slots: number): number;
  protected abstract readonly packed: boolean;
  abstract get freeDescriptors(): number;

  /** The virtio features that this driver accepted. */
  get features(): bigint {
    const { eventIdx = false, indirect = false, inOrder = false } = this.options;
    return featureMask(
      VIRTIO_F.VIRTIO_F_VERSION_1,
      ...(eventIdx ? [VIRTIO_F.VIRTIO_F_RING_EVENT_IDX] : []),
      ...(indirect ? [VIRTIO_F.VIRTIO_F_RING_INDIRECT_DESC] : []),
      ...(inOrder ? [VIRTIO_F.VIRTIO_F_IN_ORDER] : []),
      ...(this.packed ? [VIRTIO_F.VIRTIO_F_RING_PACKED] : []),
    );
  }

  /** The device's end of this ring. */
  abstract queue(options?: QueueOptions): TransportVirtqueue;

  protected queueOptions({ base, ...further }: QueueOptions): RingVirtqueueOptions {
    return {
      memory: this.memory,
      size: this.size,
      descAddress: this.desc as GuestAddress,
      driverAddress: this.driverArea as GuestAddress,
      deviceAddress: this.deviceArea as GuestAddress,
      eventIdx: this.eventIdx,
      indirect: this.options.indirect ?? false,
      inOrder: this.options.inOrder ?? false,
      base: base ?? this.startBase,
      notify: () => { this.interrupts += 1; },
      onBroken: (error) => this.failures.push(error),
      ...further,
    };
  }

  /** Make one request available: readable buffers, then writable ones of these lengths. Returns its id. */
  submit(readable: readonly Uint8Array[], writable: readonly number[] = [], { indirect = false } = {}): number {
    const id = this.stage(readable, writable, { indirect });
    this.publish([id]);
    return id;
  }

  /** One readable buffer with this text, and as much room for an answer. */
  submitOne(name: string, indirect = false): number {
    return this.submit([Buffer.from(name)], [name.length], { indirect });
  }

  /** Lay out a request without making it available. */
  stage(readable: readonly Uint8Array[], writable: readonly number[] = [], { indirect = false } = {}): number {
    const buffers: Piece[] = [
      ...readable.map((data) => {
        const address = this.allocate(data.length);
        this.memory.write(address, data);
        return { address, length: data.length, writable: false };
      }),
      ...writable.map((length) => ({ address: this.allocate(length), length, writable: true })),
    ];
    const slots = indirect ? 1 : buffers.length;
    if (slots > this.freeDescriptors) throw new RangeError('the mock driver is out of descriptors');
    const { id, token } = this.layOut(buffers, indirect);
    this.#outstanding.set(id, { slots, buffers, token });
    return id;
  }

  /** Write the descriptors of a request, but do not make it available. */
  protected abstract layOut(buffers: readonly Piece[], indirect: boolean): { id: number; token: unknown };

  /** Make requests available, then kick if the device asked to be told. */
  publish(ids: readonly number[]): void {
    if (!this.makeAvailable(ids)) return;
    this.kicks += 1;
    this.onKick?.();
  }

  /** Make requests available; whether the device wants a kick for it. */
  protected abstract makeAvailable(ids: readonly number[]): boolean;

  /** Take what the device used since the last call; with EVENT_IDX the next interrupt is asked for. */
  collect(): UsedBuffer[] {
    const taken: UsedBuffer[] = [];
    for (let entry = this.readUsed(); entry !== undefined; entry = this.readUsed()) {
      let [requests, slots] = [0, 0];
      const batch = this.options.inOrder === true && this.#outstanding.has(entry.id) ? [...this.#outstanding.keys()] : [entry.id];
      for (const id of batch) {
        const request = this.#outstanding.get(id);
        requests += 1;
        // A wrong id does not say how far the device went on: as far as the oldest request goes is a guess.
        slots += (request ?? this.#outstanding.values().next().value)?.slots ?? 1;
        const written = Buffer.concat((request?.buffers ?? []).filter(({ writable }) => writable).map(({ address, length }) => this.memory.read(address, length)));
        // 2.7.9, 2.8.9: a request that was skipped over was used completely.
        taken.push({ id, len: id === entry.id ? entry.len : written.length, written });
        if (request !== undefined) this.giveBack(id, request.token);
        this.#outstanding.delete(id);
        if (id === entry.id) break;
      }
      this.goOn(requests, slots);
    }
    if (this.#outstanding.size === 0) this.#bump = 0;
    this.armInterrupt();
    return taken;
  }

  /** The next used entry, or undefined. */
  protected abstract readUsed(): { id: number; len: number } | undefined;
  /** The device went on by so many requests, of so many descriptors. */
  protected abstract goOn(requests: number, slots: number): void;
  /** The descriptors of a request are free again. */
  protected abstract giveBack(id: number, token: unknown): void;
  /** With EVENT_IDX, ask to be told of the next used buffer. */
  protected abstract armInterrupt(): void;
  /** Ask for no interrupts, or for all. */
  abstract suppressInterrupts(suppress: boolean): void;

  /** Room in the data arena; given back when nothing is outstanding. */
  allocate(length: number): number {
    const address = this.arena + this.#bump;
    this.#bump += Math.ceil(length / 16) * 16;
    return address;
  }

  protected u16(address: number, value: number): void {
    this.memory.view(address, 2).setUint16(0, value, true);
  }
}

export function align(address: number, to: number): number {
  return Math.ceil(address / to) * to;
}
