// The virtio console device (virtio 1.2, 5.3): ports, each with a queue to the driver and one from it, and with
// MULTIPORT two control queues by which ports are announced, opened, named, resized and removed. What the driver
// says is checked. What a port does with bytes is port.ts's. Knows no transport.
import { ProtocolError, UsageError } from '../../errors.ts';
import type { VirtioDevice } from '../../virtio/device.ts';
import { featureMask } from '../../virtio/features.ts';
import { VIRTIO_ID } from '../../virtio/ids.ts';
import type { Virtqueue } from '../../virtio/virtqueue.ts';
import { CONTROL, consoleConfig, consoleControl, consoleResize, controlName, VIRTIO_CONSOLE_F } from './layout.ts';
import { KEPT_BYTES_MAX, Port } from './port.ts';
import type { ConsolePortOptions } from './port.ts';

export interface ConsoleSize {
  /** Characters in a line, 1 to 65,535. */
  readonly columns: number;
  readonly rows: number;
}

export interface VirtioConsoleDeviceOptions {
  readonly ports: readonly ConsolePortOptions[];
  readonly maxPorts: number;
  /** Without: one port, which is a console and always open. */
  readonly multiport: boolean;
  readonly size: ConsoleSize | undefined;
  readonly log: (line: string) => void;
}

/** A message to the driver; `more` is a name or a size. */
interface ControlMessage {
  readonly id: number;
  readonly event: number;
  readonly value: number;
  readonly more?: Uint8Array;
}

const CONTROL_RX = 2;
const CONTROL_TX = 3;
const NOTHING = new Uint8Array(0);
const EMERGENCY_MAX = 65_536;
const REFUSED_MAX = 1000;

export class VirtioConsoleDevice implements VirtioDevice {
  readonly deviceId = VIRTIO_ID.CONSOLE;
  readonly features: bigint;
  /** 0 and 1: port 0; 2 and 3: control; 2n + 2 and 2n + 3: port n. To the driver, and from it (5.3.2). */
  readonly queueCount: number;
  readonly queueSizeMax = 128;
  /** What the driver did against the spec, the first thousand. */
  readonly refused: string[] = [];
  /** Characters that the driver wrote to emerg_wr. */
  emergency = '';
  readonly #options: VirtioConsoleDeviceOptions;
  readonly #ports = new Map<number, Port>();
  readonly #control = new Uint8Array(consoleControl.sizeBytes);
  #messages: ControlMessage[] = [];
  #controlQueue: Virtqueue | undefined;
  #size: ConsoleSize | undefined;
  /** The driver said DEVICE_READY: it is to hear of ports. */
  #driverReady = false;

  constructor(options: VirtioConsoleDeviceOptions) {
    const { multiport, maxPorts, size } = options;
    this.#options = options;
    this.#size = size;
    this.queueCount = multiport ? 2 * maxPorts + 2 : 2;
    this.features = featureMask(
      VIRTIO_CONSOLE_F.VIRTIO_CONSOLE_F_EMERG_WRITE,
      ...(multiport ? [VIRTIO_CONSOLE_F.VIRTIO_CONSOLE_F_MULTIPORT] : []),
      ...(size === undefined ? [] : [VIRTIO_CONSOLE_F.VIRTIO_CONSOLE_F_SIZE]),
    );
    for (const port of options.ports) this.addPort(port);
  }

  get ports(): readonly Port[] {
    return [...this.#ports.values()];
  }

  get size(): ConsoleSize | undefined {
    return this.#size;
  }

  config(): Uint8Array {
    const { columns = 0, rows = 0 } = this.#size ?? {};
    return consoleConfig.encode({ cols: columns, rows, max_nr_ports: this.#options.maxPorts });
  }

  /** A front end can write the whole space back for a write of a part: emerg_wr alone is the driver's. */
  writeConfig(offset: number, bytes: Uint8Array): void {
    const at = consoleConfig.fields.emerg_wr.offset - offset;
    if (at < 0 || at >= bytes.length || bytes[at] === 0) return;
    if (this.emergency.length < EMERGENCY_MAX) this.emergency += String.fromCharCode(bytes[at]);
  }

  /** A port under the lowest id that is free. UsageError when all are taken. */
  addPort(options: ConsolePortOptions): Port {
    let id = 0;
    while (this.#ports.has(id)) id += 1;
    if (id >= this.#options.maxPorts) throw new UsageError(`virtio-console: ${id} ports are all that there can be`, { hint: 'Make the device with a larger maxPorts.' });
    const port = new Port(id, options, (one) => {
      if (one.ready) this.#say({ id, event: CONTROL.VIRTIO_CONSOLE_PORT_OPEN, value: one.open ? 1 : 0 });
    });
    this.#ports.set(id, port);
    if (this.#driverReady) this.#say({ id, event: CONTROL.VIRTIO_CONSOLE_DEVICE_ADD, value: 1 });
    return port;
  }

  /** Whether the driver knew of it or not, there is no such port any more. UsageError when there was none. */
  removePort(id: number): void {
    const port = this.#ports.get(id);
    if (port === undefined || !this.#options.multiport) throw new UsageError(`virtio-console: there is no port ${id} that can be removed`);
    this.#ports.delete(id);
    port.removed();
    if (this.#driverReady) this.#say({ id, event: CONTROL.VIRTIO_CONSOLE_DEVICE_REMOVE, value: 1 });
  }

  /** Every console has this size from now on. With MULTIPORT the driver is told here; without, by a config change. */
  resize(size: ConsoleSize): void {
    this.#size = size;
    for (const port of this.#ports.values()) if (port.ready && port.console) this.#sayResize(port, size);
  }

  process(index: number, queue: Virtqueue): void {
    const { multiport } = this.#options;
    if (multiport && index === CONTROL_RX) {
      this.#controlQueue = queue;
      this.#sendControl();
    } else if (multiport && index === CONTROL_TX) {
      this.#takeControl(queue);
    } else {
      const port = this.#ports.get(index < 2 ? 0 : (index >> 1) - 1);
      if (index % 2 === 1) return this.#receive(port, queue);
      if (port === undefined) return; // its buffers stay in the ring
      port.queue = queue;
      if (!multiport && !port.guestOpen) {
        port.ready = true;
        port.setGuestOpen(true);
      }
      port.send();
    }
  }

  drain(index: number): Promise<void> {
    if (this.#options.multiport && index === CONTROL_RX) this.#controlQueue = undefined;
    else if (index % 2 === 0) {
      const port = this.#ports.get(index < 2 ? 0 : (index >> 1) - 1);
      if (port !== undefined) port.queue = undefined;
    }
    return Promise.resolve();
  }

  reset(): void {
    this.#controlQueue = undefined;
    this.#driverReady = false;
    this.#messages = [];
    for (const port of this.#ports.values()) port.forgotten();
  }

  /** What the guest wrote to a port. To one that is not there: taken, and dropped. */
  #receive(port: Port | undefined, queue: Virtqueue): void {
    for (let chain = queue.next(); chain !== undefined; chain = queue.next()) {
      const length = chain.readableBytes;
      if (chain.writableBytes > 0 || length > KEPT_BYTES_MAX) {
        return this.#break(queue, `a transmit buffer of ${length} readable and ${chain.writableBytes} writable bytes`);
      }
      const bytes = new Uint8Array(length);
      chain.copyOut(0, bytes);
      queue.complete(chain, 0);
      if (port === undefined) this.#refuse(`${length} bytes on a port that is not there`);
      else port.receive(bytes);
    }
  }

  #takeControl(queue: Virtqueue): void {
    for (let chain = queue.next(); chain !== undefined; chain = queue.next()) {
      if (chain.writableBytes > 0 || chain.readableBytes < consoleControl.sizeBytes) {
        return this.#break(queue, `a control message of ${chain.readableBytes} readable and ${chain.writableBytes} writable bytes`);
      }
      chain.copyOut(0, this.#control);
      queue.complete(chain, 0);
      const { id, event, value } = consoleControl.decode(this.#control);
      this.#heard(id, event, value);
      // Each message of the driver is answered by a few at most: one that takes no answers is not listened to for ever.
      if (this.#messages.length > 16 * (this.#options.maxPorts + 1)) return this.#break(queue, 'control messages, and no buffers for the answers');
    }
  }

  #heard(id: number, event: number, value: number): void {
    if (event === CONTROL.VIRTIO_CONSOLE_DEVICE_READY) {
      if (value !== 1) return this.#refuse(`DEVICE_READY ${value}: the driver could not set the device up`);
      this.#driverReady = true;
      for (const port of this.#ports.values()) this.#say({ id: port.id, event: CONTROL.VIRTIO_CONSOLE_DEVICE_ADD, value: 1 });
      return;
    }
    const port = this.#ports.get(id);
    if (port === undefined) return this.#refuse(`${controlName(event)} of port ${id}, which is not there`);
    if (event === CONTROL.VIRTIO_CONSOLE_PORT_READY && value === 1) this.#introduce(port);
    else if (event === CONTROL.VIRTIO_CONSOLE_PORT_READY) this.#refuse(`PORT_READY ${value}: the driver could not set port ${id} up`);
    else if (event === CONTROL.VIRTIO_CONSOLE_PORT_OPEN && value <= 1) port.setGuestOpen(value === 1);
    else this.#refuse(`${controlName(event)} ${value} of port ${id}`);
  }

  /** The driver has the port: what it is. */
  #introduce(port: Port): void {
    const { id, name, console, open } = port;
    port.ready = true;
    if (console) {
      this.#say({ id, event: CONTROL.VIRTIO_CONSOLE_CONSOLE_PORT, value: 1 });
      if (this.#size !== undefined) this.#sayResize(port, this.#size);
    }
    if (name !== undefined) this.#say({ id, event: CONTROL.VIRTIO_CONSOLE_PORT_NAME, value: 1, more: Buffer.from(name) });
    if (open) this.#say({ id, event: CONTROL.VIRTIO_CONSOLE_PORT_OPEN, value: 1 });
  }

  #sayResize({ id }: Port, { columns, rows }: ConsoleSize): void {
    this.#say({ id, event: CONTROL.VIRTIO_CONSOLE_RESIZE, value: 0, more: consoleResize.encode({ cols: columns, rows }) });
  }

  #say(message: ControlMessage): void {
    this.#messages.push(message);
    this.#sendControl();
  }

  #sendControl(): void {
    const queue = this.#controlQueue;
    while (queue !== undefined && this.#messages.length > 0) {
      const chain = queue.next();
      if (chain === undefined) return;
      const { id, event, value, more = NOTHING } = this.#messages.shift() as ControlMessage;
      const lengthBytes = consoleControl.sizeBytes + more.length;
      if (chain.readableBytes > 0 || chain.writableBytes < lengthBytes) {
        return this.#break(queue, `a control buffer of ${chain.readableBytes} readable and ${chain.writableBytes} writable bytes`);
      }
      chain.copyIn(0, consoleControl.encode({ id, event, value }));
      if (more.length > 0) chain.copyIn(consoleControl.sizeBytes, more);
      queue.complete(chain, lengthBytes);
    }
  }

  #refuse(what: string): void {
    this.#options.log(`virtio-console: the driver sent ${what}`);
    if (this.refused.length < REFUSED_MAX) this.refused.push(what);
  }

  #break(queue: Virtqueue, what: string): void {
    this.#refuse(what);
    queue.break(new ProtocolError(`virtio-console: the driver sent ${what}`));
  }
}
