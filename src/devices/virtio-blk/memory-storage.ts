// A disk in memory: one copy a request, synchronous. Zero pages cost nothing until they are written
// (the host's calloc). Its content outlives an unplug.
import type { DescriptorChain } from '../../virtio/virtqueue.ts';
import type { Storage } from './storage.ts';

export class MemoryStorage implements Storage {
  bytes: Buffer;
  readonly physicalBlockBytes = 512;

  /** `shared`: memory of that size, for a disk that two threads see. */
  constructor(capacityBytes: number, shared?: SharedArrayBuffer) {
    this.bytes = shared === undefined ? Buffer.alloc(capacityBytes) : Buffer.from(shared);
  }

  get capacityBytes(): number {
    return this.bytes.length;
  }

  async open(): Promise<void> {}

  read(chain: DescriptorChain, positionBytes: number, lengthBytes: number): undefined {
    chain.copyIn(0, this.bytes, positionBytes, lengthBytes);
  }

  write(chain: DescriptorChain, offset: number, positionBytes: number, lengthBytes: number): undefined {
    chain.copyOut(offset, this.bytes, positionBytes, lengthBytes);
  }

  zero(positionBytes: number, lengthBytes: number): undefined {
    this.bytes.fill(0, positionBytes, positionBytes + lengthBytes);
  }

  discard(positionBytes: number, lengthBytes: number): undefined {
    this.zero(positionBytes, lengthBytes);
  }

  resize(capacityBytes: number): undefined {
    const bytes = Buffer.alloc(capacityBytes);
    this.bytes.copy(bytes);
    this.bytes = bytes;
  }

  flush(): undefined {}

  async close(): Promise<void> {}
}
