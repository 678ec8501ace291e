// The driver's side of a block device over the mock ring: requests by type, and the answer to each.
import type { VirtioDevice } from '../../../src/virtio/device.ts';
import type { TransportVirtqueue } from '../../../src/virtio/virtqueue.ts';
import { blkRequestHeader } from '../../../src/devices/virtio-blk/layout.ts';
import { within } from '../../../src/wait.ts';
import type { DriverSide, MockDriverOptions } from '../../virtio/driver-side.ts';
import { mockDriver } from '../../virtio/layouts.ts';

export interface BlkRequest {
  readonly type: number;
  readonly sector?: bigint;
  /** Data for the device, in as many buffers. */
  readonly out?: readonly Uint8Array[];
  /** Room for the device's data, in as many buffers. */
  readonly into?: readonly number[];
}

export interface BlkAnswer {
  readonly status: number;
  readonly data: Buffer;
  /** The used length that the device reported. */
  readonly usedBytes: number;
}

export class BlkDriver {
  readonly ring: DriverSide;
  readonly queue: TransportVirtqueue;
  readonly #device: VirtioDevice;
  readonly #waiting = new Map<number, (answer: BlkAnswer) => void>();

  constructor(device: VirtioDevice, readonly index = 0, options: MockDriverOptions = {}) {
    this.#device = device;
    this.ring = mockDriver(undefined, { size: 128, indirect: true, ...options });
    this.queue = this.ring.queue();
    this.ring.onKick = () => device.process(index, this.queue);
  }

  /** Make a request; its answer, or a DeadlineError. */
  async request({ type, sector = 0n, out = [], into = [] }: BlkRequest, indirect = true): Promise<BlkAnswer> {
    const header = blkRequestHeader.encode({ type, sector });
    const head = this.ring.stage([header, ...out], [...into, 1], { indirect });
    const answered = new Promise<BlkAnswer>((resolve) => this.#waiting.set(head, resolve));
    this.ring.publish([head]);
    const poll = setInterval(() => this.collect(), 1);
    try {
      this.collect();
      return await within(answered, { timeoutMs: 5000, what: `the answer to request ${head}` });
    } finally {
      clearInterval(poll);
    }
  }

  /** Take what was used, and answer who waits. */
  collect(): void {
    for (const { id, len, written } of this.ring.collect()) {
      const resolve = this.#waiting.get(id);
      this.#waiting.delete(id);
      resolve?.({ status: written[written.length - 1], data: Buffer.from(written.subarray(0, written.length - 1)), usedBytes: len });
    }
  }

  drain(): Promise<void> {
    return this.#device.drain?.(this.index) ?? Promise.resolve();
  }
}
