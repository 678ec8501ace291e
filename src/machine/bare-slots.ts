// Hot-plug without an operating system: what a slot tells and what ends it, as a driver or the firmware's AML would
// read and write it. Native: the Slot registers of a root port (PCIe Base 5.0, 6.7). ACPI: QEMU's hot-plug
// registers (QEMU docs/specs/acpi_pci_hotplug.rst).
import { UsageError } from '../errors.ts';
import { PCIE_REGISTER, readPcieCapability, SLOT_CONTROL, SLOT_STATUS } from '../pci/pcie.ts';
import type { QtestClient } from '../qtest/client.ts';
import type { BareFunction } from './bare-function.ts';
import type { BareMachine } from './bare-machine.ts';

/** What a slot has told since it was asked last; asking takes it. */
export interface SlotEvents {
  readonly inserted: boolean;
  readonly removalRequested: boolean;
}

export interface BareSlots {
  readonly kind: 'pciehp' | 'acpi';
  events(port: string): Promise<SlotEvents>;
  /** Give a card that came power. */
  powerOn(port: string): Promise<void>;
  /** Let QEMU have the device that is in there: DEVICE_DELETED follows if its removal was requested. */
  eject(port: string): Promise<void>;
}

export function slotsOf(machine: BareMachine): BareSlots {
  return machine.innards.preset.hotplug === 'pciehp' ? nativeSlots(machine) : acpiSlots(machine);
}

const POWER_INDICATOR_ON = 0x0100;
const POWER_INDICATOR_OFF = 0x0300;
const EVENTS = SLOT_STATUS.ATTENTION_BUTTON_PRESSED | SLOT_STATUS.PRESENCE_DETECT_CHANGED | SLOT_STATUS.LINK_STATE_CHANGED | SLOT_STATUS.COMMAND_COMPLETED;

function nativeSlots(machine: BareMachine): BareSlots {
  const capability = async (port: string): Promise<{ fn: BareFunction; offset: number }> => {
    const fn = await machine.functionOf(port);
    const found = await readPcieCapability(fn);
    if (found?.slot === undefined) throw new UsageError(`${port} has no slot`);
    return { fn, offset: found.offset };
  };
  const control = async (port: string, set: number): Promise<void> => {
    const { fn, offset } = await capability(port);
    const before = await fn.configRead(offset + PCIE_REGISTER.SLOT_CONTROL, 2);
    const kept = before & ~(SLOT_CONTROL.POWER_OFF | SLOT_CONTROL.POWER_INDICATOR);
    await fn.configWrite(offset + PCIE_REGISTER.SLOT_CONTROL, 2, kept | set);
  };
  return {
    kind: 'pciehp',
    async events(port) {
      const { fn, offset } = await capability(port);
      const status = await fn.configRead(offset + PCIE_REGISTER.SLOT_STATUS, 2);
      await fn.configWrite(offset + PCIE_REGISTER.SLOT_STATUS, 2, status & EVENTS);
      const isPresent = (status & SLOT_STATUS.PRESENCE_DETECT_STATE) !== 0;
      const changed = (status & SLOT_STATUS.PRESENCE_DETECT_CHANGED) !== 0;
      const pressed = (status & SLOT_STATUS.ATTENTION_BUTTON_PRESSED) !== 0;
      return { inserted: isPresent && changed, removalRequested: isPresent && pressed && !changed };
    },
    powerOn: (port) => control(port, POWER_INDICATOR_ON),
    eject: (port) => control(port, SLOT_CONTROL.POWER_OFF | POWER_INDICATOR_OFF),
  };
}

/** Offsets of QEMU's registers; 32 bits each, a bit a slot. */
const ACPI = { UP: 0x0, DOWN: 0x4, EJECT: 0x8, SELECT_BUS: 0x10 } as const;
const ACPI_BASE = { pc: 0xae00, q35: 0x0cc0 } as const;

function acpiSlots(machine: BareMachine): BareSlots {
  const { preset, plugged } = machine.innards;
  const isQ35 = preset.portDriver !== undefined;
  const base = isQ35 ? ACPI_BASE.q35 : ACPI_BASE.pc;
  const { qtest }: { qtest: QtestClient } = machine;
  /** A bus has a number of QEMU's own, which an OS has from the DSDT, as the property BSEL there. */
  const select = async (port: string): Promise<void> => {
    const path = isQ35 ? `/machine/peripheral/${port}/${port}` : `/machine/i440fx/${preset.bus}`;
    const bsel = await machine.qmp.execute<number>('qom-get', { path, property: 'acpi-pcihp-bsel' });
    await qtest.ioWrite(base + ACPI.SELECT_BUS, 4, bsel);
  };
  const bit = (port: string): number => 1 << (isQ35 ? 0 : Number(machine.placementOf(port).addr));
  return {
    kind: 'acpi',
    async events(port) {
      await select(port);
      const inserted = (await qtest.ioRead(base + ACPI.UP, 4) & bit(port)) !== 0;
      const removalRequested = (await qtest.ioRead(base + ACPI.DOWN, 4) & bit(port)) !== 0;
      return { inserted, removalRequested };
    },
    // QEMU gives ports under ACPI hot-plug power itself.
    powerOn: () => Promise.resolve(),
    async eject(port) {
      if (!plugged.some((one) => one.port === port)) throw new UsageError(`there is nothing in ${port}`);
      await select(port);
      await qtest.ioWrite(base + ACPI.EJECT, 4, bit(port) >>> 0);
    },
  };
}
