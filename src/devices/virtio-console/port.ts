// One port of a console device: bytes both ways between a test and what has the port open in the guest. Bytes to the
// guest wait until it has the port open and gives buffers; bytes from it are kept until they are read. Knows no
// control message: the device sends those.
import { ProtocolError, UsageError } from '../../errors.ts';
import type { Virtqueue } from '../../virtio/virtqueue.ts';
import type { WaitOptions } from '../arrivals.ts';
import { ByteQueue } from '../byte-queue.ts';
import { Changes } from '../changes.ts';

export interface ConsolePortOptions {
  /** What the guest finds it by: /sys/class/virtio-ports/vportNpM/name. At most 255 bytes of UTF-8. */
  readonly name?: string;
  /** A console (hvc) in the guest, and not only a character device. */
  readonly console?: boolean;
  /** Open at this end from the start (default). A guest that reads from a port that is not reads its end. */
  readonly open?: boolean;
}

/** What a test does with a port. Bytes are a stream: how they were cut into buffers does not show. */
export interface ConsolePort {
  readonly id: number;
  readonly name: string | undefined;
  readonly console: boolean;
  /** The driver has it. */
  readonly ready: boolean;
  /** Open at this end. */
  readonly open: boolean;
  /** Open in the guest: somebody has its character device, or it is a console. */
  readonly guestOpen: boolean;
  /** Received and not read. */
  readonly unreadBytes: number;
  /** Received and dropped: 16 MiB are kept, the oldest go. */
  readonly droppedBytes: number;
  /** Written and not in a buffer of the guest yet. */
  readonly unsentBytes: number;
  /** Resolves when it is open in the guest, or is not (`false`). */
  guestOpened(open?: boolean, options?: WaitOptions): Promise<void>;
  /** What has come and was not read, at least a byte. ProtocolError when the port was removed. */
  read(options?: WaitOptions): Promise<Buffer>;
  /** Exactly so many bytes. */
  readExactly(lengthBytes: number, options?: WaitOptions): Promise<Buffer>;
  /** All that comes up to and with this text (Latin-1), of a console's output say. */
  readUntil(text: string, options?: WaitOptions): Promise<string>;
  /** Resolves when all of it is in buffers of the guest. After a DeadlineError the rest is still to be sent. */
  write(bytes: Uint8Array | string, options?: WaitOptions): Promise<void>;
  /** Open it at this end, or close it. The guest is told. */
  setOpen(open: boolean): void;
}

/** Bytes of a port that nobody reads are kept up to this many. */
export const KEPT_BYTES_MAX = 16 * 2 ** 20;

interface Write {
  readonly bytes: Uint8Array;
  sent: number;
}

export class Port implements ConsolePort {
  readonly name: string | undefined;
  readonly console: boolean;
  ready = false;
  open: boolean;
  guestOpen = false;
  droppedBytes = 0;
  /** The queue to the driver while it runs. */
  queue: Virtqueue | undefined;
  readonly #received = new ByteQueue();
  readonly #writes: Write[] = [];
  readonly #changes = new Changes();
  readonly #tellOpen: (port: Port) => void;
  #removed = false;

  constructor(readonly id: number, { name, console = false, open = true }: ConsolePortOptions, tellOpen: (port: Port) => void) {
    this.name = name;
    this.console = console;
    this.open = open;
    this.#tellOpen = tellOpen;
  }

  get unreadBytes(): number {
    return this.#received.length;
  }

  get unsentBytes(): number {
    return this.#writes.reduce((sum, { bytes, sent }) => sum + bytes.length - sent, 0);
  }

  // What a test does.

  async guestOpened(open = true, options?: WaitOptions): Promise<void> {
    await this.#until(() => this.guestOpen === open, `the guest to ${open ? 'open' : 'close'} port ${this.id}`, options);
  }

  async read(options?: WaitOptions): Promise<Buffer> {
    await this.#until(() => this.#received.length > 0, `bytes from port ${this.id} of the guest`, options);
    return this.#received.take(this.#received.length);
  }

  async readExactly(lengthBytes: number, options?: WaitOptions): Promise<Buffer> {
    if (lengthBytes > KEPT_BYTES_MAX) throw new UsageError(`virtio-console: ${lengthBytes} bytes are more than are kept (${KEPT_BYTES_MAX})`);
    await this.#until(() => this.#received.length >= lengthBytes, `${lengthBytes} bytes from port ${this.id} of the guest`, options);
    return this.#received.take(lengthBytes);
  }

  async readUntil(text: string, options?: WaitOptions): Promise<string> {
    let seen = Buffer.alloc(0);
    let end = -1;
    const found = (): boolean => {
      if (this.#received.length > 0) {
        const from = Math.max(0, seen.length - text.length);
        seen = Buffer.concat([seen, this.#received.take(this.#received.length)]);
        end = seen.indexOf(text, from, 'latin1');
      }
      return end >= 0;
    };
    try {
      await this.#until(found, `${JSON.stringify(text)} from port ${this.id} of the guest`, options);
    } finally {
      this.#received.unshift(end < 0 ? seen : seen.subarray(end + text.length));
    }
    return seen.toString('latin1', 0, end + text.length);
  }

  async write(bytes: Uint8Array | string, options?: WaitOptions): Promise<void> {
    if (this.#removed) throw new UsageError(`virtio-console: port ${this.id} was removed`);
    if (bytes.length === 0) return;
    const write: Write = { bytes: new Uint8Array(Buffer.from(bytes)), sent: 0 };
    this.#writes.push(write);
    this.send();
    const { length } = write.bytes;
    await this.#until(() => write.sent === length, `port ${this.id} of the guest to take ${length} bytes`, options);
  }

  setOpen(open: boolean): void {
    if (open === this.open) return;
    this.open = open;
    this.#tellOpen(this);
  }

  // What the device tells and asks.

  /** Put what waits into buffers of the driver, while the guest has the port open. */
  send(): void {
    const { queue } = this;
    if (queue === undefined || !this.guestOpen) return;
    let done = false;
    while (this.#writes.length > 0) {
      const chain = queue.next();
      if (chain === undefined) break;
      if (chain.readableBytes > 0 || chain.writableBytes === 0) {
        queue.break(new ProtocolError(`virtio-console: a receive buffer of port ${this.id} with ${chain.readableBytes} readable and ${chain.writableBytes} writable bytes`));
        break;
      }
      const [write] = this.#writes;
      const length = Math.min(chain.writableBytes, write.bytes.length - write.sent);
      chain.copyIn(0, write.bytes, write.sent, length);
      queue.complete(chain, length);
      write.sent += length;
      if (write.sent < write.bytes.length) continue;
      this.#writes.shift();
      done = true;
    }
    if (done) this.#changes.tell();
  }

  receive(bytes: Uint8Array): void {
    this.#received.push(bytes);
    const over = this.#received.length - KEPT_BYTES_MAX;
    if (over > 0) {
      this.#received.take(over);
      this.droppedBytes += over;
    }
    this.#changes.tell();
  }

  setGuestOpen(open: boolean): void {
    this.guestOpen = open;
    this.#changes.tell();
    this.send();
  }

  /** The driver has let go of the device: what waits goes on waiting. */
  forgotten(): void {
    this.queue = undefined;
    this.ready = false;
    if (this.guestOpen) this.setGuestOpen(false);
  }

  removed(): void {
    this.#removed = true;
    this.#writes.length = 0;
    this.forgotten();
    this.#changes.tell();
  }

  async #until(done: () => boolean, what: string, options?: WaitOptions): Promise<void> {
    let so = false;
    await this.#changes.until(() => (so = done()) || this.#removed, what, options);
    if (!so) throw new ProtocolError(`virtio-console: port ${this.id} was removed before ${what}`);
  }
}
