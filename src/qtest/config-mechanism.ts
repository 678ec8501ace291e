// How config space is reached from the CPU's side: through the memory-mapped window of PCI Express (ECAM), or
// through the ports 0xcf8 and 0xcfc of conventional PCI. One access is one access of its width.
// Sources: PCIe Base 5.0, 7.2.2; PCI Local Bus 3.0, 3.2.2.3.2; QEMU hw/pci-host/q35.c (PCIEXBAR).
import type { ConfigWidth } from '../pci/access.ts';
import { checkConfigAccess, CONFIG_BYTES } from '../pci/config-space.ts';
import type { QtestClient } from './client.ts';

export interface PciAddress {
  readonly bus: number;
  readonly slot: number;
  readonly function: number;
}

/** Any function's config space. A function that is not there reads ones and ignores writes. */
export interface ConfigMechanism {
  read(address: PciAddress, offset: number, width: ConfigWidth): Promise<number>;
  write(address: PciAddress, offset: number, width: ConfigWidth, value: number): Promise<void>;
}

/** As Linux and lspci have it: `0000:01:00.0`. */
export function formatBdf({ bus, slot, function: fn }: PciAddress): string {
  return `0000:${bus.toString(16).padStart(2, '0')}:${slot.toString(16).padStart(2, '0')}.${fn}`;
}

const CONFIG_ADDRESS = 0xcf8;
const CONFIG_DATA = 0xcfc;

/** Two accesses each: nobody else may use the ports meanwhile. Extended config space reads ones. */
export function portMechanism(qtest: QtestClient): ConfigMechanism {
  const select = ({ bus, slot, function: fn }: PciAddress, offset: number): Promise<void> =>
    qtest.ioWrite(CONFIG_ADDRESS, 4, (0x80000000 | (bus << 16) | (slot << 11) | (fn << 8) | (offset & 0xfc)) >>> 0);
  return {
    async read(address, offset, width) {
      checkConfigAccess(offset, width);
      if (offset >= CONFIG_BYTES) return 2 ** (8 * width) - 1;
      // Both lines are on their way before the first answer: no other access can come between them.
      const selected = select(address, offset);
      const [, value] = await Promise.all([selected, qtest.ioRead(CONFIG_DATA + (offset & 3), width)]);
      return value;
    },
    async write(address, offset, width, value) {
      checkConfigAccess(offset, width);
      if (offset >= CONFIG_BYTES) return;
      const selected = select(address, offset);
      await Promise.all([selected, qtest.ioWrite(CONFIG_DATA + (offset & 3), width, value)]);
    },
  };
}

/** The window that starts at `base`. */
export function memoryMechanism(qtest: QtestClient, base: bigint): ConfigMechanism {
  const at = ({ bus, slot, function: fn }: PciAddress, offset: number): bigint =>
    base + BigInt(bus * 0x100000 + slot * 0x8000 + fn * 0x1000 + offset);
  return {
    async read(address, offset, width) {
      checkConfigAccess(offset, width);
      return Number(await qtest.memoryRead(at(address, offset), width));
    },
    async write(address, offset, width, value) {
      checkConfigAccess(offset, width);
      await qtest.memoryWrite(at(address, offset), width, BigInt(value));
    },
  };
}

/** Where q35's window is put: SeaBIOS's and OVMF's address. */
export const Q35_MMCONFIG_BASE = 0xb0000000n;
const Q35_HOST_BRIDGE: PciAddress = { bus: 0, slot: 0, function: 0 };
const Q35_PCIEXBAR = 0x60;

/** Open q35's window of 256 buses, as firmware does. */
export async function openQ35Window(qtest: QtestClient): Promise<ConfigMechanism> {
  const ports = portMechanism(qtest);
  await ports.write(Q35_HOST_BRIDGE, Q35_PCIEXBAR + 4, 4, 0);
  await ports.write(Q35_HOST_BRIDGE, Q35_PCIEXBAR, 4, Number(Q35_MMCONFIG_BASE | 1n));
  return memoryMechanism(qtest, Q35_MMCONFIG_BASE);
}
