// Any PCI device model of QEMU's own that needs no back end, by its name: igb, e1000e, pci-testdev, megasas.
// What is in it is QEMU's; there is no driver to wait for and no witness of ours.
import { UsageError } from '../../errors.ts';
import type { Attachment, Device, PropertyValue } from '../../qemu/attachment.ts';

/**
 * `qemuDevice('megasas', { use_msi: 'on' })`. Properties are those of `-device NAME,help`.
 * UsageError for a name that cannot be one; what QEMU does not know, QEMU refuses.
 */
export function qemuDevice(driver: string, properties: Readonly<Record<string, PropertyValue>> = {}): Device {
  if (!/^[\w.-]+$/.test(driver)) throw new UsageError(`${JSON.stringify(driver)} is no name of a QEMU device`);
  return { kind: driver, attach: async (): Promise<Attachment> => ({ driver, properties, chardevs: [], detach: async () => {} }) };
}
