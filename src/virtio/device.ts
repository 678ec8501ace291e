// What a virtio device of ours is, whatever transport carries it. A user's own device implements it: the
// worked example is suites/virtio-edu, and virtioDevice() plugs it. Three things are the implementer's:
// what the driver sends is checked (it is not trusted), each request is completed once, and a request that
// takes time is awaited by drain(). Rings, interrupts, features of the transport, and resets of queues are not.
import type { Virtqueue } from './virtqueue.ts';

export interface VirtioDevice {
  /** Virtio device id (virtio 1.2, section 5): 2 block, 4 entropy. */
  readonly deviceId: number;
  /** Device feature bits offered, less the transport's and the ring's own (those the session adds). */
  readonly features: bigint;
  /**
   * Ring features offered, of RING_EVENT_IDX, RING_INDIRECT_DESC, RING_PACKED and IN_ORDER. Absent: the first
   * two. Some of QEMU's devices (vhost-user-rng of 10.0 and later) give the driver whatever is offered here.
   */
  readonly ringFeatures?: bigint;
  /** With IN_ORDER: let one used entry stand for a run of requests, where the spec lets it. Not all drivers can. */
  readonly usedBatches?: boolean;
  readonly queueCount: number;
  /** Largest queue size accepted, entries. */
  readonly queueSizeMax: number;
  /** Device-specific config space as the driver reads it now; empty when there is none. */
  config(): Uint8Array;
  /** The driver wrote config space. Absent: config is read-only and the write is refused. */
  writeConfig?(offset: number, bytes: Uint8Array): void;
  /** The driver's accepted features, before any queue is started. */
  negotiated?(features: bigint): void;
  /**
   * Requests may be waiting on this queue: take them with queue.next(), finish them with
   * queue.complete(), at once or later. Called on a kick and when the queue is started or resumed.
   */
  process(index: number, queue: Virtqueue): void;
  /**
   * The queue was disabled, not stopped: take and finish nothing of it until process() is called again.
   * For a device that takes requests by itself (vhost-user.rst, "Ring states": no received packets then).
   */
  disabled?(index: number): void;
  /** The queue is going away: resolve when no request of it is in use any more (async I/O drained). */
  drain?(index: number): Promise<void>;
  /** The driver reset the device. */
  reset?(): void;
  /** Release files and timers. */
  close?(): Promise<void>;
}
