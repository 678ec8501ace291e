// What is in a machine's saved state, by what QEMU says of it at the stream's end: a device of which QEMU knows no state
// (edu has no VMStateDescription) is left out without a word, and comes back as one that was just reset.
// QEMU: migration/savevm.c (QEMU_VM_VMDESCRIPTION), hw/pci/pci.c (pcibus_get_dev_path). Pure.
import { ProtocolError } from '../errors.ts';
import type { QueryPciBus, QueryPciDevice } from '../pci/query-pci.ts';

const QEMU_VM_VMDESCRIPTION = 6;
/** Of the description's head: the byte that announces it and its length, 32 bits, big-endian. */
const HEAD_BYTES = 5;

/**
 * The names of the sections: `timer`, `0000:00:10.0:00.0/vhost-user-blk`.
 * @throws ProtocolError for a stream that does not end in a description
 */
export function sectionNames(state: Buffer): string[] {
  for (let at = state.lastIndexOf(QEMU_VM_VMDESCRIPTION, state.length - HEAD_BYTES); at >= 0; at = at === 0 ? -1 : state.lastIndexOf(QEMU_VM_VMDESCRIPTION, at - 1)) {
    if (state.readUInt32BE(at + 1) !== state.length - at - HEAD_BYTES) continue;
    try {
      const { devices } = JSON.parse(state.toString('utf8', at + HEAD_BYTES)) as { devices: { name: string }[] };
      return devices.map(({ name }) => name);
    } catch {
      continue; // a byte that only looks like it
    }
  }
  throw new ProtocolError(`the saved state, ${state.length} bytes, does not end in a description of what is in it`);
}

/** PCI functions that have no section of their own: by QEMU's id, or the address and ids of one without. */
export function functionsWithout(sections: readonly string[], buses: readonly QueryPciBus[]): string[] {
  const walk = (devices: readonly QueryPciDevice[], path: string): string[] => devices.flatMap((one) => {
    const own = `${path}:${hex(one.slot)}.${one.function}`;
    const missing = sections.some((name) => name.startsWith(`${own}/`)) ? [] : [one.qdev_id === '' ? `${own} ${hex(one.id.vendor, 4)}:${hex(one.id.device, 4)}` : one.qdev_id];
    return [...missing, ...walk(one.pci_bridge?.devices ?? [], own)];
  });
  return buses.filter(({ bus }) => bus === 0).flatMap(({ devices }) => walk(devices, '0000:00'));
}

function hex(value: number, digits = 2): string {
  return value.toString(16).padStart(digits, '0');
}
