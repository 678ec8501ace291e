// One stream between a port of this process and one of the guest (virtio 1.2, 5.10.6.3 and 5.10.6.6): what was
// received and not read, what was written and not sent, and the credit of both sides. Says which packets are
// due; the device sends them. Knows no queue.
import { DeadlineError, ProtocolError, UsageError } from '../../errors.ts';
import type { WaitOptions } from '../arrivals.ts';
import { ByteQueue } from '../byte-queue.ts';
import { Changes } from '../changes.ts';
import { VIRTIO_VSOCK_OP, VIRTIO_VSOCK_SHUTDOWN } from './layout.ts';

export interface ConnectionOwner {
  /** Something may be sent. */
  wake(): void;
  /** Send RST: the connection is over from this side. */
  reset(): void;
  log(line: string): void;
}

const NOTHING = new Uint8Array(0);

interface Write {
  readonly bytes: Uint8Array;
  sent: number;
}

/** What a test does with a connection. Bytes are a stream: how they were cut into packets does not show. */
export interface VsockConnection {
  readonly hostPort: number;
  readonly guestPort: number;
  readonly state: 'connecting' | 'open' | 'closed';
  /** Received and not read. The guest may have bufferBytes of them under way, and no more. */
  readonly unreadBytes: number;
  /** Written and not in a buffer of the guest yet. */
  readonly unsentBytes: number;
  /** Bytes that the guest has room for now. */
  readonly credit: number;
  /** What has come and was not read, at least a byte; undefined at the end of what the guest sends. ProtocolError when it reset the connection. */
  read(options?: WaitOptions): Promise<Buffer | undefined>;
  /** Exactly so many bytes. ProtocolError when the guest ends before. */
  readExactly(lengthBytes: number, options?: WaitOptions): Promise<Buffer>;
  /** All to the end of what the guest sends. */
  readToEnd(options?: WaitOptions): Promise<Buffer>;
  /** Resolves when all of it is in buffers of the guest. After a DeadlineError the rest is still to be sent. */
  write(bytes: Uint8Array | string, options?: WaitOptions): Promise<void>;
  /** Send no more, after what was written: the guest reads the end. */
  end(): void;
  /** End both ways, after what was written, and wait (2 s) for the guest to agree; without it the connection is reset. */
  close(options?: WaitOptions): Promise<void>;
  /** Reset the connection now. */
  destroy(): void;
}

export class Connection implements VsockConnection {
  state: 'connecting' | 'open' | 'closed' = 'connecting';
  readonly #owner: ConnectionOwner;
  readonly #received = new ByteQueue();
  /** Modulo 2^32: bytes received; bytes read; bytes read as the guest was last told; bytes sent. */
  #receivedCount = 0;
  #forwarded = 0;
  #toldForwarded = 0;
  #sentCount = 0;
  #peerBuffer = 0;
  #peerForwarded = 0;
  /** A CREDIT_UPDATE is due, for much was read or the guest asked; a CREDIT_REQUEST was sent. */
  #updateDue = false;
  #creditAsked = false;
  readonly #writes: Write[] = [];
  /** SHUTDOWN flags: what the guest said, what this side wants to say, what it said. */
  #peerShutdown = 0;
  #wanted = 0;
  #said = 0;
  #failure: ProtocolError | undefined;
  readonly #changes = new Changes();

  constructor(readonly hostPort: number, readonly guestPort: number, readonly bufferBytes: number, owner: ConnectionOwner) {
    this.#owner = owner;
  }

  get unreadBytes(): number {
    return this.#received.length;
  }

  get unsentBytes(): number {
    return this.#writes.reduce((sum, { bytes, sent }) => sum + bytes.length - sent, 0);
  }

  get credit(): number {
    return Math.max(0, this.#peerBuffer - ((this.#sentCount - this.#peerForwarded) >>> 0));
  }

  // What a test does.

  async read(options?: WaitOptions): Promise<Buffer | undefined> {
    await this.#changes.until(() => this.#received.length > 0 || this.#readEnded, `bytes from port ${this.guestPort} of the guest`, options);
    if (this.#received.length > 0) return this.#consume(this.#received.length);
    if (this.#failure !== undefined) throw this.#failure;
    return undefined;
  }

  async readExactly(lengthBytes: number, { timeoutMs = 10_000, signal }: WaitOptions = {}): Promise<Buffer> {
    const parts: Buffer[] = [];
    const deadline = performance.now() + timeoutMs;
    for (let left = lengthBytes; left > 0;) {
      const what = `${lengthBytes} bytes from port ${this.guestPort} of the guest (${lengthBytes - left} came)`;
      await this.#changes.until(() => this.#received.length > 0 || this.#readEnded, what, { timeoutMs: deadline - performance.now(), signal }, timeoutMs);
      if (this.#received.length === 0) {
        throw this.#failure ?? new ProtocolError(`virtio-vsock: port ${this.guestPort} of the guest ended after ${lengthBytes - left} of ${lengthBytes} bytes`);
      }
      parts.push(this.#consume(Math.min(left, this.#received.length)));
      left -= parts.at(-1)?.length ?? 0;
    }
    return Buffer.concat(parts);
  }

  async readToEnd({ timeoutMs = 10_000, signal }: WaitOptions = {}): Promise<Buffer> {
    const parts: Buffer[] = [];
    const deadline = performance.now() + timeoutMs;
    for (;;) {
      await this.#changes.until(() => this.#received.length > 0 || this.#readEnded, `port ${this.guestPort} of the guest to end`, { timeoutMs: deadline - performance.now(), signal }, timeoutMs);
      if (this.#received.length > 0) parts.push(this.#consume(this.#received.length));
      else if (this.#failure !== undefined) throw this.#failure;
      else return Buffer.concat(parts);
    }
  }

  async write(bytes: Uint8Array | string, options?: WaitOptions): Promise<void> {
    if (this.#wanted !== 0) throw new UsageError('virtio-vsock: a write after end() or close()');
    if (bytes.length === 0) return;
    const write: Write = { bytes: new Uint8Array(Buffer.from(bytes)), sent: 0 };
    this.#writes.push(write);
    this.#owner.wake();
    const { length } = write.bytes;
    await this.#changes.until(() => write.sent === length || this.#writeEnded, `port ${this.guestPort} of the guest to take ${length} bytes`, options);
    if (write.sent === length) return;
    throw this.#failure ?? new ProtocolError(`virtio-vsock: port ${this.guestPort} of the guest took ${write.sent} of ${length} bytes, and receives no more`);
  }

  end(): void {
    this.#wanted |= VIRTIO_VSOCK_SHUTDOWN.F_SEND;
    this.#owner.wake();
  }

  async close({ timeoutMs = 2000, signal }: WaitOptions = {}): Promise<void> {
    this.#wanted |= VIRTIO_VSOCK_SHUTDOWN.BOTH;
    this.#owner.wake();
    try {
      await this.#changes.until(() => this.state === 'closed', `port ${this.guestPort} of the guest to close`, { timeoutMs, signal });
    } catch (error) {
      if (!(error instanceof DeadlineError)) throw error;
      this.#owner.log(`virtio-vsock: port ${this.guestPort} of the guest did not answer a shutdown: reset`);
      this.destroy();
    }
  }

  destroy(): void {
    if (this.state === 'closed') return;
    this.closed(new ProtocolError(`virtio-vsock: the connection to port ${this.guestPort} of the guest was destroyed`));
    this.#owner.reset();
  }

  // What the device tells and asks.

  /** Wait until the guest took or refused the connection. */
  async opened(options?: WaitOptions): Promise<void> {
    await this.#changes.until(() => this.state !== 'connecting', `the guest to answer a connection to its port ${this.guestPort}`, options);
    if (this.#failure !== undefined) throw this.#failure;
  }

  open(): void {
    this.state = 'open';
    this.#changes.tell();
  }

  /** Every packet says what its sender has room for. False when it claims to have consumed what was never sent. */
  credited(bufferBytes: number, forwarded: number): boolean {
    if (((this.#sentCount - forwarded) >>> 0) > ((this.#sentCount - this.#peerForwarded) >>> 0)) return false;
    this.#creditAsked &&= bufferBytes === this.#peerBuffer && forwarded === this.#peerForwarded;
    this.#peerBuffer = bufferBytes;
    this.#peerForwarded = forwarded;
    return true;
  }

  /** False when there was no room for it: the guest exceeded its credit, or had said that it sends no more. */
  receive(payload: Uint8Array): boolean {
    const outstanding = (this.#receivedCount - this.#toldForwarded) >>> 0;
    if (outstanding + payload.length > this.bufferBytes || (this.#peerShutdown & VIRTIO_VSOCK_SHUTDOWN.F_SEND) !== 0) return false;
    this.#receivedCount = (this.#receivedCount + payload.length) >>> 0;
    // This side wants no more: what comes is consumed at once.
    if ((this.#said & VIRTIO_VSOCK_SHUTDOWN.F_RECEIVE) !== 0) {
      this.#forward(payload.length);
    } else if (payload.length > 0) {
      this.#received.push(payload);
      this.#changes.tell();
    }
    return true;
  }

  /** True when the guest neither sends nor receives any more. */
  peerShutdown(flags: number): boolean {
    this.#peerShutdown |= flags & VIRTIO_VSOCK_SHUTDOWN.BOTH;
    if ((flags & VIRTIO_VSOCK_SHUTDOWN.F_RECEIVE) !== 0) this.#writes.length = 0;
    this.#changes.tell();
    return this.#peerShutdown === VIRTIO_VSOCK_SHUTDOWN.BOTH;
  }

  /** The connection is over. A failure shows where bytes were still to come or to go; not after a shutdown. */
  closed(failure?: ProtocolError): void {
    if (this.state === 'closed') return;
    this.state = 'closed';
    if (this.#said !== VIRTIO_VSOCK_SHUTDOWN.BOTH && this.#peerShutdown !== VIRTIO_VSOCK_SHUTDOWN.BOTH) this.#failure = failure;
    this.#writes.length = 0;
    this.#changes.tell();
  }

  /** The guest asked what room there is. */
  askedForCredit(): void {
    this.#updateDue = true;
  }

  /** The operation that is to be sent next; undefined for none. */
  get due(): number | undefined {
    if (this.state !== 'open') return undefined;
    if (this.#writes.length > 0 && this.credit > 0) return VIRTIO_VSOCK_OP.VIRTIO_VSOCK_OP_RW;
    if (this.#wanted !== this.#said && this.#writes.length === 0) return VIRTIO_VSOCK_OP.VIRTIO_VSOCK_OP_SHUTDOWN;
    if (this.#updateDue) return VIRTIO_VSOCK_OP.VIRTIO_VSOCK_OP_CREDIT_UPDATE;
    return this.#writes.length > 0 && !this.#creditAsked ? VIRTIO_VSOCK_OP.VIRTIO_VSOCK_OP_CREDIT_REQUEST : undefined;
  }

  /** What was due is being sent: its flags, its payload of at most `roomBytes`, and what it tells of this side's buffer. */
  send(op: number, roomBytes: number): { flags: number; payload: Uint8Array; buf_alloc: number; fwd_cnt: number } {
    this.#toldForwarded = this.#forwarded;
    this.#updateDue = false;
    const told = { flags: 0, payload: NOTHING, buf_alloc: this.bufferBytes, fwd_cnt: this.#forwarded };
    if (op === VIRTIO_VSOCK_OP.VIRTIO_VSOCK_OP_RW) return { ...told, payload: this.#take(Math.min(roomBytes, this.credit)) };
    if (op === VIRTIO_VSOCK_OP.VIRTIO_VSOCK_OP_CREDIT_REQUEST) this.#creditAsked = true;
    if (op !== VIRTIO_VSOCK_OP.VIRTIO_VSOCK_OP_SHUTDOWN) return told;
    this.#said = this.#wanted;
    return { ...told, flags: this.#said };
  }

  #take(most: number): Uint8Array {
    const [write] = this.#writes;
    const part = write.bytes.subarray(write.sent, write.sent + most);
    write.sent += part.length;
    this.#sentCount = (this.#sentCount + part.length) >>> 0;
    if (write.sent === write.bytes.length) {
      this.#writes.shift();
      this.#changes.tell();
    }
    return part;
  }

  get #readEnded(): boolean {
    return this.state === 'closed' || (this.#peerShutdown & VIRTIO_VSOCK_SHUTDOWN.F_SEND) !== 0;
  }

  get #writeEnded(): boolean {
    return this.state === 'closed' || (this.#peerShutdown & VIRTIO_VSOCK_SHUTDOWN.F_RECEIVE) !== 0;
  }

  #consume(lengthBytes: number): Buffer {
    const bytes = this.#received.take(lengthBytes);
    this.#forward(lengthBytes);
    return bytes;
  }

  #forward(lengthBytes: number): void {
    this.#forwarded = (this.#forwarded + lengthBytes) >>> 0;
    // A packet for every read would cost more than it gives: half of the buffer is what the guest hears of.
    if (((this.#forwarded - this.#toldForwarded) >>> 0) * 2 < this.bufferBytes) return;
    this.#updateDue = true;
    this.#owner.wake();
  }
}
