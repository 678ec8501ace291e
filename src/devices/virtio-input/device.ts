// The virtio input device (virtio 1.2, 5.8): config space that is asked for piece by piece, an event queue to the
// driver and a status queue from it. Events wait here until the driver has buffers for them; none is dropped
// while the device is not reset. Knows no transport and no test.
import { ProtocolError } from '../../errors.ts';
import type { VirtioDevice } from '../../virtio/device.ts';
import { VIRTIO_ID } from '../../virtio/ids.ts';
import type { Virtqueue } from '../../virtio/virtqueue.ts';
import { INPUT_DATA_BYTES, inputAbsInfo, inputConfig, inputDevids, inputEvent, VIRTIO_INPUT_CFG } from './layout.ts';

/** One event, in the numbers of linux/input-event-codes.h; the value is signed. */
export interface InputEvent {
  readonly type: number;
  readonly code: number;
  readonly value: number;
}

export interface InputIds {
  readonly bustype: number;
  readonly vendor: number;
  readonly product: number;
  readonly version: number;
}

export interface AbsInfo {
  readonly min: number;
  readonly max: number;
  readonly fuzz?: number;
  readonly flat?: number;
  /** Units per millimetre. */
  readonly resolution?: number;
}

export interface VirtioInputDeviceOptions {
  /** At most 128 bytes of UTF-8; the in-tree driver keeps 64. */
  readonly name: string;
  readonly serial: string;
  readonly ids: InputIds;
  /** Codes by event type. */
  readonly codes: ReadonlyMap<number, readonly number[]>;
  readonly axes: ReadonlyMap<number, AbsInfo>;
  readonly properties: readonly number[];
  readonly log: (line: string) => void;
  /** The driver sent a status: an LED, a sound. */
  readonly onStatus: (event: InputEvent) => void;
  /** No event waits any more: all are in buffers of the driver, less those that a reset dropped. */
  readonly onIdle: (dropped: number) => void;
}

const EVENT_BYTES = inputEvent.sizeBytes;

export class VirtioInputDevice implements VirtioDevice {
  readonly deviceId = VIRTIO_ID.INPUT;
  readonly features = 0n;
  /** 0: events, to the driver. 1: status, from it (5.8.2). */
  readonly queueCount = 2;
  readonly queueSizeMax = 1024;
  readonly #options: VirtioInputDeviceOptions;
  readonly #pending: InputEvent[] = [];
  readonly #event = new Uint8Array(EVENT_BYTES);
  #events: Virtqueue | undefined;
  #select = 0;
  #subsel = 0;

  constructor(options: VirtioInputDeviceOptions) {
    this.#options = options;
  }

  /** Events that wait for a buffer of the driver. */
  get pending(): number {
    return this.#pending.length;
  }

  config(): Uint8Array {
    const u = this.#selected();
    return inputConfig.encode({ select: this.#select, subsel: this.#subsel, size: u.length, u });
  }

  /** Front ends write the whole structure back; only what the driver owns is taken (5.8.5). */
  writeConfig(offset: number, bytes: Uint8Array): void {
    for (let i = 0; i < bytes.length && offset + i < 2; i += 1) {
      if (offset + i === 0) this.#select = bytes[i];
      else this.#subsel = bytes[i];
    }
  }

  /** Give the driver these events, now or as soon as it has buffers. */
  emit(events: readonly InputEvent[]): void {
    this.#pending.push(...events);
    if (this.#events !== undefined) this.#flush(this.#events);
  }

  process(index: number, queue: Virtqueue): void {
    if (index === 0) {
      this.#events = queue;
      this.#flush(queue);
    } else {
      this.#takeStatus(queue);
    }
  }

  drain(index: number): Promise<void> {
    if (index === 0) this.#events = undefined;
    return Promise.resolve();
  }

  reset(): void {
    this.#events = undefined;
    this.#select = 0;
    this.#subsel = 0;
    if (this.#pending.length === 0) return;
    const dropped = this.#pending.length;
    this.#pending.length = 0;
    this.#options.log(`virtio-input: a reset dropped ${dropped} events`);
    this.#options.onIdle(dropped);
  }

  /** A buffer is taken only when there is an event to put into it: until then it stays the driver's. */
  #flush(queue: Virtqueue): void {
    const before = this.#pending.length;
    while (this.#pending.length > 0) {
      const chain = queue.next();
      if (chain === undefined) return;
      if (chain.readableBytes > 0 || chain.writableBytes < EVENT_BYTES) {
        return this.#break(queue, `an event buffer of ${chain.readableBytes} readable and ${chain.writableBytes} writable bytes`);
      }
      const { type, code, value } = this.#pending.shift() as InputEvent;
      chain.copyIn(0, inputEvent.encode({ type, code, value: value >>> 0 }));
      queue.complete(chain, EVENT_BYTES);
    }
    if (before > 0) this.#options.onIdle(0);
  }

  #takeStatus(queue: Virtqueue): void {
    for (let chain = queue.next(); chain !== undefined; chain = queue.next()) {
      if (chain.writableBytes > 0 || chain.readableBytes < EVENT_BYTES) {
        return this.#break(queue, `a status of ${chain.readableBytes} readable and ${chain.writableBytes} writable bytes`);
      }
      chain.copyOut(0, this.#event);
      queue.complete(chain, 0);
      const { type, code, value } = inputEvent.decode(this.#event);
      this.#options.onStatus({ type, code, value: value | 0 });
    }
  }

  #break(queue: Virtqueue, what: string): void {
    this.#options.log(`virtio-input: ${what}`);
    queue.break(new ProtocolError(`virtio-input: ${what}`, {
      hint: 'virtio 1.2, 5.8.6.1: buffers of the eventq MUST be device-writable and hold an event, 8 bytes; those of the statusq hold one too.',
    }));
  }

  #selected(): Uint8Array {
    const { name, serial, ids, codes, axes, properties } = this.#options;
    switch (this.#select) {
      case VIRTIO_INPUT_CFG.VIRTIO_INPUT_CFG_ID_NAME: return text(name);
      case VIRTIO_INPUT_CFG.VIRTIO_INPUT_CFG_ID_SERIAL: return text(serial);
      case VIRTIO_INPUT_CFG.VIRTIO_INPUT_CFG_ID_DEVIDS: return inputDevids.encode(ids);
      case VIRTIO_INPUT_CFG.VIRTIO_INPUT_CFG_PROP_BITS: return bitmap(properties);
      case VIRTIO_INPUT_CFG.VIRTIO_INPUT_CFG_EV_BITS: return bitmap(codes.get(this.#subsel) ?? []);
      case VIRTIO_INPUT_CFG.VIRTIO_INPUT_CFG_ABS_INFO: {
        const axis = axes.get(this.#subsel);
        if (axis === undefined) return new Uint8Array(0);
        const { min, max, fuzz = 0, flat = 0, resolution = 0 } = axis;
        return inputAbsInfo.encode({ min: min >>> 0, max: max >>> 0, fuzz, flat, res: resolution });
      }
      default: return new Uint8Array(0); // 5.8.5.2: size 0 for what there is not
    }
  }
}

function text(value: string): Uint8Array {
  return Buffer.from(value).subarray(0, INPUT_DATA_BYTES);
}

/** Bit i of byte i / 8; as short as it can be, for drivers take the size for what there is (5.8.5.2). */
function bitmap(bits: readonly number[]): Uint8Array {
  if (bits.length === 0) return new Uint8Array(0);
  const map = new Uint8Array((Math.max(...bits) >> 3) + 1);
  for (const bit of bits) map[bit >> 3] |= 1 << (bit & 7);
  return map;
}
