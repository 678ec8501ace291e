// A virtqueue (virtio 1.2, 2.6) as a device sees it, and as the transport does that made it. Split and
// packed rings implement both. It says nothing of layouts, sessions or interrupts' transport.
import type { ProtocolError } from '../errors.ts';

/**
 * One request: the buffers that the driver made available together. The device-readable part is one
 * run of bytes and the device-writable part another, however the driver cut them up. Valid from
 * next() to complete(); the object is used again afterwards, so keep no reference to it.
 */
export interface DescriptorChain {
  /** The request's id in the ring: the head descriptor's index (split), the buffer id (packed). */
  readonly head: number;
  readonly readableBytes: number;
  readonly writableBytes: number;
  /** Descriptors in the chain, indirect ones included, the reference to an indirect table not. */
  readonly descriptorCount: number;
  /** Copy from the readable part, at `offset` of it, to `target`. RangeError when it is shorter than that. */
  copyOut(offset: number, target: Uint8Array, targetStart?: number, lengthBytes?: number): void;
  /** Copy to the writable part, at `offset` of it, from `source`. RangeError when it is shorter than that. */
  copyIn(offset: number, source: Uint8Array, sourceStart?: number, lengthBytes?: number): void;
  /** Host views of [offset, offset + lengthBytes) of the readable part, in order; makes views. */
  readableSpans(offset?: number, lengthBytes?: number): Uint8Array[];
  /** Host views of [offset, offset + lengthBytes) of the writable part, in order; makes views. */
  writableSpans(offset?: number, lengthBytes?: number): Uint8Array[];
}

/** What a queue has seen since it was made: the device side's witness. */
export interface QueueCounts {
  /** Requests taken from the ring, less those put back. */
  readonly taken: number;
  /** Given back to the driver. With VIRTIO_F_IN_ORDER that is when those before it were. */
  readonly completed: number;
  /** Taken and not completed. */
  readonly inFlight: number;
  /** Times the driver was notified. */
  readonly notified: number;
  /** Completions without a notification of their own: not wanted, or told of together with another's. */
  readonly suppressed: number;
}

export interface Virtqueue {
  /** Entries of the ring. */
  readonly size: number;
  readonly counts: QueueCounts;
  /** Why the queue is broken, or undefined. A broken queue gives no requests and completes none. */
  readonly broken: ProtocolError | undefined;
  /**
   * The next request, or undefined when none waits, when the queue is broken or stopped, or when others
   * are to have a turn (the device is then called again by itself). Never throws.
   */
  next(): DescriptorChain | undefined;
  /**
   * Give a request back to the driver, in any order, with the number of bytes written to its writable
   * part from its start. With VIRTIO_F_IN_ORDER it is kept until those taken before it are given back. On a broken or stopped queue it does nothing. UsageError for a request
   * that is not in flight and for more bytes than the writable part has: the device's own mistakes.
   */
  complete(chain: DescriptorChain, writtenBytes: number): void;
  /**
   * Give several requests back at once: the driver sees all of them used or none, in this order (virtio 1.2,
   * 5.1.6.4: the buffers of one received packet). `writtenBytes` has a number for each; may be longer than
   * `count`, as may `chains`. UsageError as of complete(), and then none is given back.
   */
  completeTogether(chains: readonly DescriptorChain[], writtenBytes: readonly number[], count?: number): void;
  /** The driver broke the device's protocol (not the ring's): stop this queue as a broken ring would. */
  break(reason: ProtocolError): void;
  /**
   * Untake the request that was taken last, as if next() had not given it: for stopping a queue that
   * holds requests it did not start. False (and nothing done) when it was not the last.
   */
  putBack(chain: DescriptorChain): boolean;
  /** Steering only: put any id and length into the ring, right or wrong, and notify as usual. */
  completeAs(chain: DescriptorChain, id: number, writtenBytes: number): void;
  /** Steering only: put an element into the used ring that answers no request, and notify as usual. */
  putUsed(id: number, writtenBytes: number): void;
}

/** What a transport may do with a queue besides. */
export interface TransportVirtqueue extends Virtqueue {
  /**
   * Where a queue started after this one goes on, as vhost-user's vring base has it. Split: the avail
   * index. Packed: avail index in bits 0 to 14, its wrap counter in 15, used index in 16 to 30, its in 31.
   */
  readonly base: number;
  /** Guest memory was mapped anew: find the ring in it again. Only while no request is in flight. */
  remap(): void;
  /** Let go of the ring: from here on nothing of it is read or written. */
  stop(): void;
}
