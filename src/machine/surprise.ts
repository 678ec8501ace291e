// Surprise removal: a card that is gone from its slot before anybody asked (PCIe Base 5.0, 6.7.3.3; Linux
// drivers/pci/hotplug/pciehp_ctrl.c, "Card not present"). QEMU has no command for it: it lets go of a card when Slot
// Control turns power and power indicator off (hw/pci/pcie.c, pcie_cap_slot_write_config). That is written while the
// guest stands still, and then what was there before, so that to the guest its slot has power and no card.
// Native hot-plug only: under ACPI nothing would tell the guest.
import { ProtocolError, UsageError } from '../errors.ts';
import { PCIE_REGISTER, readPcieCapability, SLOT_CONTROL } from '../pci/pcie.ts';
import { findByQdevId, type QueryPciBus } from '../pci/query-pci.ts';
import type { ConfigWidth } from '../pci/access.ts';
import type { QmpClient } from '../qmp/client.ts';
import { formatBdf } from '../qtest/config-mechanism.ts';
import type { Machine } from './machine.ts';

/** Configuration mechanism #1 (PCI Local Bus 3.0, 3.2.2.3.2): the first 256 bytes of a function's config space. */
const CONFIG_ADDRESS = 0xcf8;
const CONFIG_DATA = 0xcfc;
const SIZE_LETTER = { 1: 'b', 2: 'h', 4: 'w' } as const;

/**
 * QEMU deletes what is in the port; its DEVICE_DELETED follows. The guest runs again when this resolves.
 * @returns waits until the guest is done with the slot: a card that came earlier would be ejected when the guest, a
 * second after it cut the power, turns the indicator off
 */
export async function pullCard(machine: Machine, port: string): Promise<(timeoutMs: number) => Promise<void>> {
  const { preset, ports } = machine.innards;
  if (preset.hotplug !== 'pciehp' || !ports.includes(port)) {
    throw new UsageError(`a card cannot be pulled out of ${port} of ${preset.name}`, { hint: 'a surprise removal takes native hot-plug: machine: q35NativeHotplug()' });
  }
  const { qmp, guest } = machine;
  const at = findByQdevId(await qmp.execute<QueryPciBus[]>('query-pci'), port);
  if (at?.bus === undefined) throw new ProtocolError(`query-pci does not show the port ${port}`);
  const address = (0x80000000 | at.bus << 16 | at.slot << 11 | at.function << 8) >>> 0;
  const sysfs = `/sys/bus/pci/devices/${formatBdf({ ...at, bus: at.bus })}`;
  let control = 0;
  await qmp.execute('stop');
  try {
    const selected = await ioRead(qmp, CONFIG_ADDRESS, 4); // the guest may be between its two accesses
    const slot = configOf(qmp, address);
    const found = await readPcieCapability(slot);
    if (found?.slot === undefined) throw new ProtocolError(`${port} has no slot`);
    control = found.offset + PCIE_REGISTER.SLOT_CONTROL;
    await slot.configWrite(control, 2, found.slot.control | SLOT_CONTROL.POWER_OFF | SLOT_CONTROL.POWER_INDICATOR);
    await slot.configWrite(control, 2, found.slot.control);
    await ioWrite(qmp, CONFIG_ADDRESS, 4, selected);
  } finally {
    await qmp.execute('cont');
  }
  // The second byte of Slot Control: power off, indicator off.
  const done = `[ $(( $(od -An -tu1 -j${control + 1} -N1 ${sysfs}/config) & 7 )) = 7 ]`;
  return (timeoutMs) => guest.until(done, `the guest to switch the slot ${port} off`, timeoutMs);
}

function configOf(qmp: QmpClient, address: number): {
  configRead(offset: number, width: ConfigWidth): Promise<number>;
  configWrite(offset: number, width: ConfigWidth, value: number): Promise<void>;
} {
  const select = (offset: number): Promise<void> => ioWrite(qmp, CONFIG_ADDRESS, 4, (address | offset & 0xfc) >>> 0);
  return {
    async configRead(offset, width) {
      await select(offset);
      return ioRead(qmp, CONFIG_DATA + (offset & 3), width);
    },
    async configWrite(offset, width, value) {
      await select(offset);
      await ioWrite(qmp, CONFIG_DATA + (offset & 3), width, value);
    },
  };
}

async function ioRead(qmp: QmpClient, port: number, width: ConfigWidth): Promise<number> {
  const said = await qmp.hmp(`i /${SIZE_LETTER[width]} 0x${port.toString(16)}`);
  const value = /= (0x[0-9a-f]+)\s*$/.exec(said)?.[1];
  if (value === undefined) throw new ProtocolError(`HMP i answered ${JSON.stringify(said)}`, { received: said });
  return Number(value);
}

async function ioWrite(qmp: QmpClient, port: number, width: ConfigWidth, value: number): Promise<void> {
  const said = await qmp.hmp(`o /${SIZE_LETTER[width]} 0x${port.toString(16)} 0x${value.toString(16)}`);
  if (said.trim() !== '') throw new ProtocolError(`HMP o answered ${JSON.stringify(said)}`, { received: said });
}
