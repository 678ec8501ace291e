// What stands for firmware on the bare tier: config space opened, interrupt routing and hot-plug ports found, the
// PCI hierarchy enumerated. Numbers of the two chipsets: QEMU hw/i386/pc_q35.c, pc_piix.c, hw/isa/lpc_ich9.c, piix.c.
import type { MachinePreset } from '../qemu/preset.ts';
import { AddressRange } from '../qtest/address-range.ts';
import type { QtestClient } from '../qtest/client.ts';
import { openQ35Window, portMechanism, type ConfigMechanism, type PciAddress } from '../qtest/config-mechanism.ts';
import { Enumeration, type AddressSpaces } from '../qtest/enumeration.ts';

export interface BareBus {
  readonly config: ConfigMechanism;
  readonly enumeration: Enumeration;
  /** Guest RAM that nobody uses, over the first MiB. */
  readonly ram: AddressRange;
  /** The lines of the I/O APIC that PIRQ A to D (q35: E to H) are. */
  readonly intxLines: readonly number[];
}

const MIB = 2n ** 20n;
/** q35's window for config space ends at 0xbfffffff, the I/O APIC begins at 0xfec00000. */
const MEMORY = [0xc0000000n, 0xfec00000n] as const;
/** Over all RAM, and under 2^40: what QEMU's CPUs of TCG can address. */
const PREFETCHABLE = [0x10_0000_0000n, 0x80_0000_0000n] as const;
/** Under pc's hot-plug registers at 0xae00; over everything that the chipsets fix (q35's are at 0xcc0). */
const IO = [0x1000n, 0xae00n] as const;

const PIIX3: PciAddress = { bus: 0, slot: 1, function: 0 };
const PIIX3_PIRQ_ROUTE = 0x60;
/** ISA interrupts that nothing else of the bare machine has. */
const PIIX3_IRQS = [5, 7, 10, 11] as const;
/** PIRQ E to H are wired to these; slots under 25 of bus 0 go to E to H (lpc_ich9.c, ich9_cc_init). */
const ICH9_LINES = [20, 21, 22, 23] as const;

export async function openBareBus(qtest: QtestClient, preset: MachinePreset, memoryMiB: number): Promise<BareBus> {
  const isQ35 = preset.portDriver !== undefined;
  const config = isQ35 ? await openQ35Window(qtest) : portMechanism(qtest);
  if (!isQ35) for (const [i, irq] of PIIX3_IRQS.entries()) await config.write(PIIX3, PIIX3_PIRQ_ROUTE + i, 1, irq);
  await qtest.interceptIn('ioapic');
  const spaces: AddressSpaces = {
    io: new AddressRange('I/O space', ...IO),
    memory: new AddressRange('memory under 4 GiB', ...MEMORY),
    prefetchable: new AddressRange('memory over 4 GiB', ...PREFETCHABLE),
  };
  const enumeration = new Enumeration(config, spaces);
  await enumeration.enumerate();
  return { config, enumeration, ram: new AddressRange('guest RAM', MIB, BigInt(memoryMiB) * MIB), intxLines: isQ35 ? ICH9_LINES : PIIX3_IRQS };
}
