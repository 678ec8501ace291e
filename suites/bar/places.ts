// Where a BAR is, by each side, and how a test puts it elsewhere from within the guest: setpci, remove and rescan.
// Facts only: the suites judge them. Linux Documentation/ABI/testing/sysfs-bus-pci; setpci(8).
import type { PciFunction } from 'rootport';

/** Where the guest's kernel has the BAR; undefined: nowhere. */
export async function kernelAddress(fn: PciFunction, bar: number): Promise<bigint | undefined> {
  return (await fn.guestResources()).find(({ index }) => index === bar)?.start;
}
export async function addressOf(fn: PciFunction, bar: number): Promise<bigint> {
  const address = await kernelAddress(fn, bar);
  if (address === undefined) throw new Error(`the guest's kernel has no BAR ${bar} of ${fn.bdf}`);
  return address;
}
/** Where QEMU decodes the BAR; undefined: nowhere. */
export async function decodedAt(fn: PciFunction, bar: number): Promise<bigint | undefined> {
  const address = (await fn.vmm()).regions.find((region) => region.bar === bar)?.address ?? -1;
  return address < 0 ? undefined : BigInt(address);
}
/** Four bytes of the machine's physical memory, as QEMU's monitor reads them; undefined: nothing is there. */
export async function physical({ machine }: PciFunction, at: bigint): Promise<bigint | undefined> {
  const [, word] = /: (0x[0-9a-f]+)/.exec(await machine.qmp.hmp(`xp /1wx 0x${hex(at)}`)) ?? [];
  return word === undefined ? undefined : BigInt(word);
}
export const hex = (value: bigint): string => value.toString(16);
/** Each word is `REGISTER[=VALUE[:MASK]]`; what it reads. */
export const setpci = async (fn: PciFunction, what: string): Promise<string> => (await fn.machine.guest.run(`setpci -s ${fn.bdf} ${what}`)).stdout.trim();
/** What the kernel logged of the function, since it was last found. */
export async function logOf(fn: PciFunction): Promise<string[]> {
  const lines = (await fn.machine.guest.dmesg()).split('\n').filter((line) => line.includes(fn.bdf));
  return lines.slice(lines.findLastIndex((line) => / type 00 class /.test(line)));
}
/** The kernel forgets the function and finds it again, unbound. */
export async function rescan(fn: PciFunction): Promise<void> {
  await fn.machine.guest.run(`echo 1 >${fn.sysfs}/remove && [ ! -e ${fn.sysfs} ] && echo 1 >/sys/bus/pci/rescan`);
  await fn.machine.guest.until(`[ -e ${fn.sysfs}/driver_override ]`, 'the rescan to find the function', 10_000);
}
/** An address where the function's bus is decoded, of this size and alignment, that is not the one taken. */
export async function freeAddress(fn: PciFunction, size: bigint, taken: bigint): Promise<bigint> {
  // A port's memory window is its resource 14, the 15th line. Of the root bus: the window that begins behind RAM, whose
  // devices are at its end.
  const { stdout } = await fn.machine.guest.run(`[ -e ${fn.sysfs}/../resource ] && sed -n 15p ${fn.sysfs}/../resource || grep '^[1-9a-f].* : PCI Bus 0000:00' /proc/iomem | tr - ' ' | sed 's/^/0x/; s/ / 0x/; q'`);
  const [start = 0n, end = 0n] = stdout.trim().split(' ').slice(0, 2).map((word) => BigInt(word));
  for (let at = start; at + size - 1n <= end; at += size) if (at !== taken) return at;
  throw new Error(`the window ${stdout.trim()} has no room beside ${hex(taken)}`);
}

/** An expansion ROM of 64 KiB that the kernel takes for one (PCI Firmware 3.0, 5.1.2); its bytes count up. */
export function romImage(): Buffer {
  const image = Buffer.from(Uint8Array.from({ length: 65536 }, (_, i) => (i * 7) & 0xff));
  image.writeUInt16LE(0xaa55, 0);
  image.writeUInt16LE(0x1c, 0x18); // to the data structure
  image.write('PCIR', 0x1c, 'latin1');
  image.writeUInt16LE(0x18, 0x1c + 0x0a);
  image.writeUInt16LE(image.length / 512, 0x1c + 0x10);
  image.writeUInt8(0x80, 0x1c + 0x15); // the last image
  return image;
}
