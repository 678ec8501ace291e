// Where a disk's bytes are. The device checks positions and lengths before it calls.
import type { DescriptorChain } from '../../virtio/virtqueue.ts';

/** Work that may be done already: undefined is done. It rejects when the host's I/O failed. */
export type Work = Promise<void> | undefined;

export interface Storage {
  readonly capacityBytes: number;
  /** Size of the blocks below the 512-byte sectors, bytes: what the config space's topology says. */
  readonly physicalBlockBytes: number;
  /** Make ready for I/O; called before each plug. */
  open(): Promise<void>;
  /** Disk bytes [position, position + length) to the chain's writable part, from its start. */
  read(chain: DescriptorChain, positionBytes: number, lengthBytes: number): Work;
  /** `length` bytes of the chain's readable part, from `offset` of it, to the disk at `position`. */
  write(chain: DescriptorChain, offset: number, positionBytes: number, lengthBytes: number): Work;
  /** Zeroes to [position, position + length). */
  zero(positionBytes: number, lengthBytes: number): Work;
  /** Nobody needs [position, position + length) any more; what is read there is the storage's choice. */
  discard(positionBytes: number, lengthBytes: number): Work;
  /** Another capacity: what is past it is lost, what is new is zeroes. */
  resize(capacityBytes: number): Work;
  /** Make every write that was completed stable. */
  flush(): Work;
  /** Idempotent. */
  close(): Promise<void>;
}
