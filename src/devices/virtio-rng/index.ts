// A virtio entropy device to plug: QEMU's vhost-user-rng-pci with this process as its back end. What
// it does is device.ts's.
import { randomFillSync } from 'node:crypto';
import { UsageError } from '../../errors.ts';
import { ringsAsAsked } from '../ring-options.ts';
import type { RingOptions } from '../ring-options.ts';
import { vhostUserDevice } from '../vhost-user-device.ts';
import type { BackEndFaults, VhostUserDevice } from '../vhost-user-device.ts';
import { VirtioRngDevice } from './device.ts';
import type { EntropySource } from './device.ts';

export type { EntropySource } from './device.ts';

export interface VirtioRngOptions extends RingOptions, BackEndFaults {
  /**
   * Where the bytes come from: the host's CSPRNG unless told. Bytes are repeated for ever, so that a
   * test can prove whose they are; a function fills what it is given.
   */
  readonly source?: Uint8Array | EntropySource;
}

/** queue(0) is its only one. */
export interface VirtioRng extends VhostUserDevice {
  /** Bytes given to the driver since the device was made. */
  readonly bytesGiven: number;
}

/** Throws UsageError for an empty source. */
export function virtioRng({ source = randomFill, ...options }: VirtioRngOptions = {}): VirtioRng {
  const { core, device } = vhostUserDevice({
    kind: 'virtio-rng',
    maker: 'virtioRng',
    driver: 'vhost-user-rng-pci',
    // One for the queue, one for config changes: without this QEMU gives the device INTx only.
    properties: { vectors: 2 },
    // The driver asks for its vectors late in its probe; the link to it is there before that.
    guest: { modules: ['virtio_pci', 'virtio_rng'], ready: 'msi_irqs' },
    faults: options,
    make: (log) => new VirtioRngDevice({ ...ringsAsAsked(options), source: typeof source === 'function' ? source : repeat(source), log }),
  });
  return {
    ...device,
    get bytesGiven() {
      return core.bytesGiven;
    },
  };
}

function randomFill(target: Uint8Array): void {
  randomFillSync(target);
}

function repeat(pattern: Uint8Array): EntropySource {
  if (pattern.length === 0) throw new UsageError('virtioRng: a source of no bytes');
  let at = 0;
  return (target) => {
    for (let i = 0; i < target.length; i += 1) {
      target[i] = pattern[at];
      at = (at + 1) % pattern.length;
    }
  };
}
