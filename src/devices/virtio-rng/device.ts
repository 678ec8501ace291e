// The virtio entropy device (virtio 1.2, 5.4): one queue, no features, no config; every request is
// filled. Knows no transport and no test.
import { ProtocolError } from '../../errors.ts';
import { RING_FEATURES } from '../../virtio/features.ts';
import { VIRTIO_ID } from '../../virtio/ids.ts';
import type { VirtioDevice } from '../../virtio/device.ts';
import type { Virtqueue } from '../../virtio/virtqueue.ts';

/** Fill the whole of `target` with entropy, synchronously. */
export type EntropySource = (target: Uint8Array) => void;

export interface VirtioRngDeviceOptions {
  readonly source: EntropySource;
  readonly log: (line: string) => void;
  readonly ringFeatures?: bigint;
  readonly usedBatches?: boolean;
}

/**
 * The driver says how much it wants, up to 4 GiB in one request: no more than this is given
 * (5.4.6.1: the device may use less of the buffer, but at least one byte).
 */
export const RNG_BYTES_MAX = 64 * 1024;

export class VirtioRngDevice implements VirtioDevice {
  readonly deviceId = VIRTIO_ID.RNG;
  readonly features = 0n;
  readonly ringFeatures: bigint;
  readonly usedBatches: boolean;
  readonly queueCount = 1;
  readonly queueSizeMax = 1024;
  /** Bytes given to the driver. */
  bytesGiven = 0;
  readonly #source: EntropySource;
  readonly #log: (line: string) => void;

  constructor({ source, log, ringFeatures = RING_FEATURES, usedBatches = false }: VirtioRngDeviceOptions) {
    this.ringFeatures = ringFeatures;
    this.usedBatches = usedBatches;
    this.#source = source;
    this.#log = log;
  }

  config(): Uint8Array {
    return new Uint8Array(0);
  }

  process(_index: number, queue: Virtqueue): void {
    for (let chain = queue.next(); chain !== undefined; chain = queue.next()) {
      if (chain.readableBytes > 0 || chain.writableBytes === 0) {
        this.#log(`virtio-rng: a request of ${chain.readableBytes} readable and ${chain.writableBytes} writable bytes`);
        queue.break(new ProtocolError('virtio-rng: a request that is not device-writable only', {
          hint: 'virtio 1.2, 5.4.6.1: the driver MUST NOT place driver-readable buffers into the queue.',
        }));
        return;
      }
      const lengthBytes = Math.min(chain.writableBytes, RNG_BYTES_MAX);
      for (const span of chain.writableSpans(0, lengthBytes)) this.#source(span);
      this.bytesGiven += lengthBytes;
      queue.complete(chain, lengthBytes);
    }
  }
}
