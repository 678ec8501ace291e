// The MSI-X vectors of one function as a vfio-user client has set them up (VFIO_USER_DEVICE_SET_IRQS): an eventfd each.
// Not here: masks, of which QEMU 11.1 tells the server nothing, and the function's own enable bits.
import { adoptEventfd, closeFd, signalEventfd } from '../native/index.ts';
import { ERRNO, IRQ_SET_FLAG } from './protocol.ts';

/** A decoded VFIO_USER_DEVICE_SET_IRQS. */
export interface IrqSet {
  readonly flags: number;
  readonly start: number;
  readonly count: number;
}

export class InterruptLines {
  readonly #fds: (number | undefined)[];

  constructor(readonly count: number) {
    this.#fds = Array.from({ length: count });
  }

  /** False: the client does not listen to this vector. */
  signal(vector: number): boolean {
    const fd = this.#fds[vector];
    if (fd !== undefined) signalEventfd(fd);
    return fd !== undefined;
  }

  /** Do what the message says; 0, or an errno. Descriptors that are kept are taken out of `fds`. */
  set({ flags, start, count }: IrqSet, fds: number[]): number {
    if (start + count > this.count) return ERRNO.EINVAL;
    if (flags === (IRQ_SET_FLAG.DATA_NONE | IRQ_SET_FLAG.TRIGGER)) {
      if (count === 0) this.close();
      else for (let vector = start; vector < start + count; vector += 1) this.signal(vector);
      return 0;
    }
    // No descriptor at all: nobody listens to these any more.
    if (flags !== (IRQ_SET_FLAG.DATA_EVENTFD | IRQ_SET_FLAG.TRIGGER) || (fds.length !== 0 && fds.length !== count)) return ERRNO.EINVAL;
    if (!fds.every(adoptEventfd)) return ERRNO.EINVAL;
    const taken = fds.splice(0);
    for (let i = 0; i < count; i += 1) {
      this.#release(start + i);
      this.#fds[start + i] = taken[i];
    }
    return 0;
  }

  /** Let go of every eventfd. */
  close(): void {
    for (let vector = 0; vector < this.count; vector += 1) this.#release(vector);
  }

  #release(vector: number): void {
    const fd = this.#fds[vector];
    this.#fds[vector] = undefined;
    if (fd !== undefined) closeFd(fd);
  }
}
