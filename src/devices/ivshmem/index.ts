// QEMU's ivshmem-doorbell, fed by our own server: the purest source of MSI-X, one eventfd a vector and
// nothing else (QEMU: docs/specs/ivshmem-spec.rst). 1af4:1110; BAR0 registers, BAR1 MSI-X table and PBA,
// BAR2 shared memory.
import { join } from 'node:path';
import { UsageError } from '../../errors.ts';
import { IVSHMEM_VECTORS_MAX, IvshmemServer } from '../../ivshmem/index.ts';
import type { Tally } from '../../recorder.ts';
import type { Attachment, AttachSite, Device } from '../../qemu/attachment.ts';

export interface IvshmemOptions {
  /** MSI-X vectors, 1 to 2048; default 1. */
  readonly vectors?: number;
  /** Shared memory (BAR2), a power of two; default 1 MiB. */
  readonly sharedBytes?: number;
  /** The guest rang a doorbell of the host's peer. */
  readonly onDoorbell?: (doorbell: number, count: number) => void;
}

/** Registers in BAR0, 4 bytes each. */
export const IVSHMEM = {
  vendorId: 0x1af4,
  deviceId: 0x1110,
  INTERRUPT_MASK: 0x0,
  INTERRUPT_STATUS: 0x4,
  /** RO: the guest's peer id. */
  IV_POSITION: 0x8,
  /** WO: peer id << 16 | vector. */
  DOORBELL: 0xc,
} as const;

export class Ivshmem implements Device {
  readonly kind = 'ivshmem';
  readonly vectors: number;
  readonly #options: IvshmemOptions;
  #server: IvshmemServer | undefined;
  #fires: ((vector: number) => void) | undefined;

  constructor(options: IvshmemOptions) {
    this.#options = options;
    this.vectors = options.vectors ?? 1;
    if (!Number.isInteger(this.vectors) || this.vectors < 1 || this.vectors > IVSHMEM_VECTORS_MAX) {
      throw new UsageError(`ivshmem: ${this.vectors} vectors asked for`, { hint: `it has 1 to ${IVSHMEM_VECTORS_MAX}` });
    }
  }

  /** Fire a vector once. Fires less than 1 ms apart may merge: the eventfd counts them as one. */
  fire(vector: number): void {
    this.#plugged().fire(vector);
    this.#fires?.(vector);
  }

  /** The shared memory (BAR2), mapped here. */
  get memory(): ArrayBuffer {
    return this.#plugged().memory;
  }

  async attach(site: AttachSite): Promise<Attachment> {
    if (this.#server !== undefined) throw new UsageError('this ivshmem device is plugged already', { hint: 'make another with ivshmem()' });
    const path = join(site.directory, `${site.id}.sock`);
    const { onDoorbell } = this.#options;
    const server = IvshmemServer.listen({
      path, vectors: this.vectors, sharedBytes: this.#options.sharedBytes ?? 1 << 20,
      onError: site.fail, log: site.log, ...(onDoorbell === undefined ? {} : { onDoorbell }),
    });
    this.#server = server;
    this.#fires = firesOf(site);
    const chardev = `${site.id}-chardev`;
    return {
      driver: 'ivshmem-doorbell',
      properties: { vectors: this.vectors, chardev },
      chardevs: [{ id: chardev, path }],
      backEnd: () => undefined,
      witness: { unit: 'vector', fired: () => server.fired(), watch: (listener) => { server.onFired = listener; } },
      // QEMU 7.2 to 10.0, hw/misc/ivshmem.c: ivshmem_exit closes the vectors' eventfds and leaves the
      // handlers that watch_vector_notifier set on them, with an opaque that is then freed.
      // The numbers below them, of the shared memory and of the doorbells, are free too and are filled first.
      danglingFds: this.vectors + Math.min(this.vectors, 16) + 4,
      ready: (options) => server.ready(options),
      quiesce: () => server.quiesce(),
      detach: async () => {
        await server.close();
        if (this.#server === server) this.#server = undefined;
      },
    };
  }

  #plugged(): IvshmemServer {
    if (this.#server === undefined) throw new UsageError('this ivshmem device is not plugged', { hint: 'await vm.plug(device) first' });
    return this.#server;
  }
}

/** The recorder's tally of each vector. */
function firesOf({ recorder, id }: AttachSite): ((vector: number) => void) | undefined {
  const tallies: Tally[] = [];
  return recorder && ((vector) => (tallies[vector] ??= recorder.tally('interrupt', `${id} vector ${vector}: fired`)).hit(1, performance.now()));
}

export function ivshmem(options: IvshmemOptions = {}): Ivshmem {
  return new Ivshmem(options);
}
