// A virtio I2C adapter to plug: QEMU's vhost-user-i2c-pci with this process as its bus. The test puts targets on it and
// sees what goes over it. QEMU gives it no MSI-X: INTx only.
import { UsageError } from '../../errors.ts';
import { Arrivals } from '../arrivals.ts';
import type { WaitOptions } from '../arrivals.ts';
import { vhostUserDevice } from '../vhost-user-device.ts';
import type { BackEndFaults, VhostUserDevice } from '../vhost-user-device.ts';
import { VirtioI2cDevice } from './device.ts';
import type { I2cTransfer } from './device.ts';
import type { I2cTarget } from './target.ts';

export { i2cEeprom } from './target.ts';
export type { I2cEeprom, I2cEepromOptions, I2cTarget } from './target.ts';
export type { I2cTransfer } from './device.ts';

export interface VirtioI2cOptions extends BackEndFaults {
  /** By 7-bit address: `{ 0x50: i2cEeprom() }`. */
  readonly targets?: Readonly<Record<number, I2cTarget>>;
}

export interface VirtioI2c extends VhostUserDevice {
  /** What is on the bus now, by 7-bit address: set() and delete() put on and take off. */
  readonly targets: Map<number, I2cTarget>;
  /** The next request that went over the bus and this method has not given yet (the last 10,000 are kept). */
  nextTransfer(options?: WaitOptions): Promise<I2cTransfer>;
  /** All requests that nextTransfer() has not given, which this gives. */
  takeTransfers(): readonly I2cTransfer[];
}

/**
 * Throws UsageError for an address that there is not. Debian's kernels have no driver for it (I2C_VIRTIO is off):
 * load your own before plug().
 */
export function virtioI2c({ targets = {}, ...faults }: VirtioI2cOptions = {}): VirtioI2c {
  const bus = new Map<number, I2cTarget>();
  for (const [address, target] of Object.entries(targets)) {
    if (Number(address) > 0x7f) throw new UsageError(`virtioI2c: ${address} is not a 7-bit address`, { hint: '0 to 0x7f, without the bit for the direction' });
    bus.set(Number(address), target);
  }
  const transfers = new Arrivals<I2cTransfer>();
  const { device } = vhostUserDevice({
    kind: 'virtio-i2c',
    driver: 'vhost-user-i2c-pci',
    properties: {},
    guest: { modules: ['virtio_pci'], ready: 'virtio*' },
    faults,
    make: (log) => new VirtioI2cDevice({ targets: bus, log, onTransfer: (transfer) => transfers.push(transfer) }),
  });
  return {
    ...device,
    targets: bus,
    nextTransfer: (options) => transfers.next('a request on the I2C bus', options),
    takeTransfers() {
      const all = [...transfers.waiting];
      transfers.clear();
      return all;
    },
  };
}
