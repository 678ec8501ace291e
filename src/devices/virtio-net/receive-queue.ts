// One receive queue (virtio 1.2, 5.1.6.3 and 5.1.6.4): packets into the buffers that the driver posted, one
// buffer each or, with MRG_RXBUF, several. Buffers are taken only when a packet is there for them, and
// none is waited for. Knows no peer and no steering.
import { ProtocolError } from '../../errors.ts';
import type { DescriptorChain, Virtqueue } from '../../virtio/virtqueue.ts';
import { netHeader } from './layout.ts';
import type { Delivery, SentHeader } from './peer.ts';

/** How the driver takes packets: what it negotiated. */
export interface ReceiveFormat {
  readonly headerBytes: number;
  /** MRG_RXBUF. */
  readonly mergeable: boolean;
}

export class ReceiveQueue {
  /** The ring while it runs and is enabled. */
  #queue: Virtqueue | undefined;
  /** Where the buffers below are from: it may be disabled. */
  #source: Virtqueue | undefined;
  /** Buffers taken and not filled: a packet was longer than all of them. In the ring's order. */
  #taken: DescriptorChain[] = [];
  /** Reused: the buffers of one packet, and the bytes written to each. */
  readonly #parts: DescriptorChain[] = [];
  readonly #written: number[] = [];
  readonly #header = new Uint8Array(12);

  constructor(readonly index: number) {}

  get live(): boolean {
    return this.#queue !== undefined && this.#queue.broken === undefined;
  }

  /** The ring may be used: it was started, enabled, or has new buffers. */
  use(queue: Virtqueue): void {
    if (this.#source !== queue) this.#taken = [];
    this.#queue = queue;
    this.#source = queue;
  }

  /** The ring is disabled: its buffers stay taken, and use() may come. */
  disable(): void {
    this.#queue = undefined;
  }

  /** The ring is being stopped: the buffers go back into it. */
  stop(): void {
    for (const chain of this.#taken.splice(0).reverse()) this.#source?.putBack(chain);
    this.#queue = undefined;
    this.#source = undefined;
  }

  /** The device was reset: nothing of the ring is of use. */
  reset(): void {
    this.#taken = [];
    this.#queue = undefined;
    this.#source = undefined;
  }

  /** Put a frame into the driver's buffers, or say why not; then nothing of them was used. */
  deliver(frame: Uint8Array, format: ReceiveFormat, lie?: SentHeader): Delivery {
    const queue = this.#queue;
    if (queue === undefined || queue.broken !== undefined) return 'queue-down';
    const neededBytes = format.headerBytes + frame.length;
    const count = this.#gather(queue, neededBytes, format);
    if (typeof count !== 'number') return count;

    const header = this.#headerOf(count, lie);
    let at = 0; // in header and frame together
    for (let i = 0; i < count; i += 1) {
      const chain = this.#taken[i];
      const lengthBytes = Math.min(chain.writableBytes, neededBytes - at);
      let start = 0;
      if (i === 0) {
        chain.copyIn(0, header, 0, format.headerBytes);
        start = format.headerBytes;
      }
      chain.copyIn(start, frame, at + start - format.headerBytes, lengthBytes - start);
      this.#parts[i] = chain;
      this.#written[i] = lengthBytes;
      at += lengthBytes;
    }
    this.#taken.splice(0, count);
    queue.completeTogether(this.#parts, this.#written, count);
    return 'delivered';
  }

  /** num_buffers is 1 without MRG_RXBUF too (5.1.6.4.1), and not copied where the header ends before it. */
  #headerOf(count: number, lie: SentHeader | undefined): Uint8Array {
    if (lie !== undefined) return netHeader.encode({ num_buffers: count, ...lie });
    this.#header[10] = count & 0xff;
    this.#header[11] = count >> 8;
    return this.#header;
  }

  /** How many of `taken`, from its start, hold this many bytes: takes more as needed. */
  #gather(queue: Virtqueue, neededBytes: number, { headerBytes, mergeable }: ReceiveFormat): number | Delivery {
    let roomBytes = 0;
    for (let count = 0; ; count += 1) {
      const chain = this.#taken[count] ?? this.#take(queue, headerBytes);
      if (chain === undefined && queue.broken !== undefined) return 'queue-down';
      // All that the ring can hold is here: more would never come.
      if (chain === undefined) return count >= queue.size ? 'too-long' : 'no-buffers';
      roomBytes += chain.writableBytes;
      if (roomBytes >= neededBytes) return count + 1;
      if (!mergeable) return 'too-long';
    }
  }

  #take(queue: Virtqueue, headerBytes: number): DescriptorChain | undefined {
    // Now and then next() gives nothing so that others have a turn. This device is called by those others,
    // and takes what it has a packet for: it asks once more.
    const chain = queue.next() ?? queue.next();
    if (chain === undefined) return undefined;
    if (chain.readableBytes > 0 || chain.writableBytes < headerBytes) {
      queue.break(new ProtocolError(
        `virtio-net queue ${this.index}: a receive buffer of ${chain.readableBytes} readable and ${chain.writableBytes} writable bytes`,
        { hint: `virtio 1.2, 5.1.6.3: a receive buffer is device-writable and has room for the header of ${headerBytes} bytes at least.` },
      ));
      return undefined;
    }
    this.#taken.push(chain);
    return chain;
  }
}
