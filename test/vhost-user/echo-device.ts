// A virtio device for session tests: answers every request with its own bytes in capitals. Steerable:
// it can keep requests, and be slow to drain.
import type { VirtioDevice } from '../../src/virtio/device.ts';
import type { DescriptorChain, Virtqueue } from '../../src/virtio/virtqueue.ts';

export class EchoDevice implements VirtioDevice {
  readonly deviceId = 4;
  readonly features = 1n << 5n;
  /** Absent unless a test says. */
  ringFeatures: bigint | undefined;
  configSpace = new Uint8Array([1, 2, 3, 4, 5, 6, 7, 8]);
  accepted: bigint | undefined;
  resets = 0;
  /** Take requests and keep them. */
  holding = false;
  readonly held: { chain: DescriptorChain; queue: Virtqueue }[] = [];
  drains: number[] = [];
  disables: number[] = [];
  failure: Error | undefined;
  #idle: (() => void)[] = [];

  constructor(readonly queueCount = 2, readonly queueSizeMax = 256) {}

  config(): Uint8Array {
    return this.configSpace;
  }

  writeConfig(offset: number, bytes: Uint8Array): void {
    this.configSpace.set(bytes, offset);
  }

  negotiated(features: bigint): void {
    this.accepted = features;
  }

  process(_index: number, queue: Virtqueue): void {
    if (this.failure !== undefined) throw this.failure;
    for (let chain = queue.next(); chain !== undefined; chain = queue.next()) {
      if (this.holding) this.held.push({ chain, queue });
      else answer(chain, queue);
    }
  }

  /** Answer what was kept. */
  release(): void {
    this.holding = false;
    for (const { chain, queue } of this.held.splice(0)) answer(chain, queue);
    for (const resolve of this.#idle.splice(0)) resolve();
  }

  disabled(index: number): void {
    this.disables.push(index);
  }

  drain(index: number): Promise<void> {
    this.drains.push(index);
    if (this.held.length === 0) return Promise.resolve();
    return new Promise((resolve) => this.#idle.push(resolve));
  }

  reset(): void {
    this.resets += 1;
  }
}

function answer(chain: DescriptorChain, queue: Virtqueue): void {
  const bytes = new Uint8Array(Math.min(chain.readableBytes, chain.writableBytes));
  chain.copyOut(0, bytes);
  chain.copyIn(0, new TextEncoder().encode(new TextDecoder().decode(bytes).toUpperCase()));
  queue.complete(chain, bytes.length);
}
