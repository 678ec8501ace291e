// Injecting PCI Express errors: QEMU sets the status bit, logs, and sends the message to the root port as the
// device's own hardware would (QEMU hw/pci/pcie_aer.c, HMP pcie_aer_inject_error). Errors have the names of
// src/pci/aer.ts, which lspci and Linux's log use too. What the guest makes of it is not here.
import { UsageError } from '../errors.ts';
import { CORRECTABLE_ERRORS, UNCORRECTABLE_ERRORS, type CorrectableError, type UncorrectableError } from '../pci/aer.ts';
import type { QmpClient } from '../qmp/client.ts';

export type AerError = UncorrectableError | CorrectableError;

export async function injectAerError(qmp: QmpClient, id: string, error: AerError): Promise<void> {
  const isCorrectable = Object.hasOwn(CORRECTABLE_ERRORS, error);
  if (!isCorrectable && !Object.hasOwn(UNCORRECTABLE_ERRORS, error)) {
    const names = [...Object.keys(UNCORRECTABLE_ERRORS), ...Object.keys(CORRECTABLE_ERRORS)].join(', ');
    throw new UsageError(`there is no PCI Express error named ${JSON.stringify(error)}`, { hint: `they are ${names}` });
  }
  // By number: QEMU's own names are neither the specification's nor the same in all versions.
  const bit = 1 << { ...UNCORRECTABLE_ERRORS, ...CORRECTABLE_ERRORS }[error];
  const said = await qmp.hmp(`pcie_aer_inject_error ${isCorrectable ? '-c ' : ''}${id} 0x${(bit >>> 0).toString(16)}`);
  if (said.startsWith('OK ')) return;
  throw new UsageError(`QEMU injects no ${error} into ${id}: ${said.trim()}`, {
    hint: 'the device must be PCI Express and have AER: qemuDevice(\'virtio-rng-pci\', { aer: true }) in a port of q35, say',
  });
}
