// The virtio GPIO device (virtio 1.2, 5.18): lines with a direction, a value and an interrupt type; requests about
// them on one queue, and on the other a buffer for each line whose interrupt the driver has unmasked, which is
// given back when it fires. Knows no transport and no test.
import { ProtocolError } from '../../errors.ts';
import type { VirtioDevice } from '../../virtio/device.ts';
import { featureMask } from '../../virtio/features.ts';
import { VIRTIO_ID } from '../../virtio/ids.ts';
import type { DescriptorChain, Virtqueue } from '../../virtio/virtqueue.ts';
import {
  gpioConfig, gpioRequest, VIRTIO_GPIO_DIRECTION as DIRECTION, VIRTIO_GPIO_F_IRQ, VIRTIO_GPIO_IRQ_STATUS, VIRTIO_GPIO_IRQ_TYPE as IRQ,
  VIRTIO_GPIO_MSG as MSG, VIRTIO_GPIO_STATUS,
} from './layout.ts';

export interface LineState {
  readonly name: string;
  /** VIRTIO_GPIO_DIRECTION */
  direction: number;
  /** What the guest drives it to, as an output. */
  output: number;
  /** What the outside drives it to, as an input. */
  input: number;
  /** VIRTIO_GPIO_IRQ_TYPE */
  irqType: number;
  /** An edge came and the driver has not been told yet (5.18.6.8: edges are latched, levels are not). */
  latched: boolean;
}

export interface VirtioGpioDeviceOptions {
  readonly names: readonly string[];
  readonly log: (line: string) => void;
  /** The driver changed this of the line. */
  readonly onChange: (line: number, what: 'direction' | 'value' | 'irqType', value: number) => void;
}

interface Unmasked {
  readonly line: number;
  readonly chain: DescriptorChain;
}

const REQUEST_BYTES = gpioRequest.sizeBytes;
const IRQ_TYPES: ReadonlySet<number> = new Set(Object.values(IRQ));

export class VirtioGpioDevice implements VirtioDevice {
  readonly deviceId = VIRTIO_ID.GPIO;
  readonly features = featureMask(VIRTIO_GPIO_F_IRQ);
  /** 0: requests. 1: events (5.18.2). */
  readonly queueCount = 2;
  readonly queueSizeMax = 1024;
  readonly lines: readonly LineState[];
  readonly #options: VirtioGpioDeviceOptions;
  readonly #names: Uint8Array;
  readonly #request = new Uint8Array(REQUEST_BYTES);
  readonly #gpio = new Uint8Array(2);
  #events: Virtqueue | undefined;
  /** Buffers of the event queue that wait for an interrupt, in the order they were taken. */
  #unmasked: Unmasked[] = [];

  constructor(options: VirtioGpioDeviceOptions) {
    this.#options = options;
    this.lines = options.names.map((name) => ({ name, direction: DIRECTION.NONE, output: 0, input: 0, irqType: IRQ.NONE, latched: false }));
    const named = options.names.some((name) => name !== '');
    this.#names = named ? Buffer.from(options.names.map((name) => `${name}\0`).join('')) : new Uint8Array(0);
  }

  config(): Uint8Array {
    return gpioConfig.encode({ ngpio: this.lines.length, gpio_names_size: this.#names.length });
  }

  process(index: number, queue: Virtqueue): void {
    if (index === 0) return this.#takeRequests(queue);
    this.#events = queue;
    this.#takeEvents(queue);
  }

  /** Buffers that wait go back into the ring; one that cannot, because a later one was used, is given back as no interrupt. */
  drain(index: number): Promise<void> {
    const queue = this.#events;
    if (index === 1 && queue !== undefined) {
      for (const { chain, line } of this.#unmasked.splice(0).reverse()) {
        if (!queue.putBack(chain)) this.#giveBack(queue, { chain, line }, VIRTIO_GPIO_IRQ_STATUS.INVALID);
      }
      this.#events = undefined;
    }
    return Promise.resolve();
  }

  reset(): void {
    this.#events = undefined;
    this.#unmasked = [];
    for (const line of this.lines) Object.assign(line, { direction: DIRECTION.NONE, output: 0, irqType: IRQ.NONE, latched: false });
  }

  /** The outside drives the line: an edge may be an interrupt, and so may a level. */
  drive(index: number, level: number): void {
    const line = this.lines[index];
    const edge = level === line.input ? IRQ.NONE : level === 1 ? IRQ.EDGE_RISING : IRQ.EDGE_FALLING;
    line.input = level;
    if ((edge & line.irqType) !== 0) line.latched = true;
    this.#fire(index);
  }

  /** Give the line's buffer back if its interrupt is due. */
  #fire(index: number): void {
    const line = this.lines[index];
    const level = line.input === 1 ? IRQ.LEVEL_HIGH : IRQ.LEVEL_LOW;
    if (!line.latched && (line.irqType & level) === 0) return;
    const at = this.#unmasked.findIndex((one) => one.line === index);
    if (at < 0 || this.#events === undefined) return;
    line.latched = false;
    this.#giveBack(this.#events, this.#unmasked.splice(at, 1)[0], VIRTIO_GPIO_IRQ_STATUS.VALID);
  }

  #giveBack(queue: Virtqueue, { chain }: Unmasked, status: number): void {
    chain.copyIn(0, Uint8Array.of(status));
    queue.complete(chain, 1);
  }

  #takeEvents(queue: Virtqueue): void {
    for (let chain = queue.next(); chain !== undefined; chain = queue.next()) {
      if (chain.readableBytes < 2 || chain.writableBytes < 1) return this.#break(queue, 'an event buffer', chain);
      chain.copyOut(0, this.#gpio);
      const line = this.#gpio[0] + this.#gpio[1] * 256;
      const taken = this.#unmasked.some((one) => one.line === line);
      if (taken || (this.lines[line]?.irqType ?? IRQ.NONE) === IRQ.NONE) {
        this.#options.log(`virtio-gpio: a buffer for an interrupt of line ${line}, which ${taken ? 'has one already' : 'has no interrupt'}`);
        this.#giveBack(queue, { line, chain }, VIRTIO_GPIO_IRQ_STATUS.INVALID);
        continue;
      }
      this.#unmasked.push({ line, chain });
      this.#fire(line);
    }
  }

  #takeRequests(queue: Virtqueue): void {
    for (let chain = queue.next(); chain !== undefined; chain = queue.next()) {
      if (chain.readableBytes < REQUEST_BYTES || chain.writableBytes < 2) return this.#break(queue, 'a request', chain);
      chain.copyOut(0, this.#request);
      const { type, gpio, value } = gpioRequest.decode(this.#request);
      const answer = this.#answer(type, gpio, value, chain.writableBytes - 1);
      if (answer === undefined) this.#options.log(`virtio-gpio: request ${type} of line ${gpio} with value ${value} was refused`);
      const response = new Uint8Array(1 + (answer?.length ?? 1));
      response[0] = answer === undefined ? VIRTIO_GPIO_STATUS.ERR : VIRTIO_GPIO_STATUS.OK;
      if (answer !== undefined) response.set(answer, 1);
      chain.copyIn(0, response);
      queue.complete(chain, response.length);
    }
  }

  /** What follows the status, in at most so many bytes; undefined for a request that is refused. */
  #answer(type: number, index: number, value: number, roomBytes: number): Uint8Array | undefined {
    if (type === MSG.GET_NAMES) return this.#names.length > 0 && this.#names.length <= roomBytes ? this.#names : undefined;
    const line = this.lines[index];
    if (line === undefined) return undefined;
    switch (type) {
      case MSG.GET_DIRECTION: return Uint8Array.of(line.direction);
      case MSG.GET_VALUE: return Uint8Array.of(line.direction === DIRECTION.OUT ? line.output : line.input);
      case MSG.SET_DIRECTION:
        if (value > DIRECTION.IN || (line.irqType !== IRQ.NONE && value !== DIRECTION.IN)) return undefined;
        line.direction = value;
        this.#options.onChange(index, 'direction', value);
        return Uint8Array.of(0);
      case MSG.SET_VALUE:
        if (value > 1) return undefined;
        line.output = value;
        this.#options.onChange(index, 'value', value);
        return Uint8Array.of(0);
      case MSG.IRQ_TYPE:
        if (!IRQ_TYPES.has(value) || (value !== IRQ.NONE && line.direction !== DIRECTION.IN)) return undefined;
        this.#setIrqType(index, value);
        return Uint8Array.of(0);
      default: return undefined;
    }
  }

  /** With no type the line's buffer goes back at once (5.18.6.7), and what was latched is forgotten. */
  #setIrqType(index: number, type: number): void {
    const line = this.lines[index];
    line.irqType = type;
    line.latched = false;
    this.#options.onChange(index, 'irqType', type);
    const at = this.#unmasked.findIndex((one) => one.line === index);
    if (type === IRQ.NONE && at >= 0 && this.#events !== undefined) {
      this.#giveBack(this.#events, this.#unmasked.splice(at, 1)[0], VIRTIO_GPIO_IRQ_STATUS.INVALID);
    } else {
      this.#fire(index);
    }
  }

  #break(queue: Virtqueue, kind: string, chain: DescriptorChain): void {
    const what = `${kind} of ${chain.readableBytes} readable and ${chain.writableBytes} writable bytes`;
    this.#options.log(`virtio-gpio: ${what}`);
    queue.break(new ProtocolError(`virtio-gpio: ${what}`, { hint: 'virtio 1.2, 5.18.6: a request has 8 readable bytes and 2 writable ones, an event buffer 2 and 1.' }));
  }
}
