// Base address registers: what one says, how large it is, and what sysfs says of it.
// Source: PCI Local Bus 3.0, 6.2.5; Linux Documentation/ABI/testing/sysfs-bus-pci (`resource`),
// include/linux/ioport.h. Not here: the expansion ROM, resizable BARs, bridge windows.
import { ProtocolError, UsageError } from '../errors.ts';
import type { PciAccess } from './access.ts';
import { COMMAND } from './config-space.ts';
import type { ConfigReader } from './config-space.ts';

export type BarKind = 'io' | 'mem32' | 'mem64';

/** A BAR as its register tells: kind and address. */
export interface BarRegister {
  /** 0 to 5; a 64-bit BAR has its lower half here and its upper half in the next. */
  readonly index: number;
  readonly kind: BarKind;
  readonly prefetchable: boolean;
  readonly address: bigint;
}

export interface Bar extends BarRegister {
  readonly sizeBytes: bigint;
}

/** The offset of BAR `index` in config space. */
export function barOffset(index: number): number {
  if (!Number.isInteger(index) || index < 0 || index > 5) throw new UsageError(`BARs are 0 to 5; ${index} is none`);
  return 0x10 + 4 * index;
}

const IO_SPACE = 0x1;
const TYPE_MASK = 0x6;
const TYPE_64_BIT = 0x4;
const PREFETCHABLE = 0x8;
const IO_ADDRESS_MASK = 0xfffffffcn;
const MEMORY_ADDRESS_MASK = 0xfffffff0n;

/** One BAR of its register and, for a 64-bit one, the next. A 64-bit BAR without a next is `mem32`. */
export function decodeBar(index: number, low: number, high: number | undefined): BarRegister {
  const word = BigInt(low >>> 0);
  if ((low & IO_SPACE) !== 0) return { index, kind: 'io', prefetchable: false, address: word & IO_ADDRESS_MASK };
  const prefetchable = (low & PREFETCHABLE) !== 0;
  const address = word & MEMORY_ADDRESS_MASK;
  if ((low & TYPE_MASK) !== TYPE_64_BIT || high === undefined) return { index, kind: 'mem32', prefetchable, address };
  return { index, kind: 'mem64', prefetchable, address: address | (BigInt(high >>> 0) << 32n) };
}

/**
 * The BARs of a header's registers (six for an endpoint, two for a bridge). A register of zero is
 * left out: it is absent, or a 32-bit BAR that has no address yet; sizing tells which.
 */
export function decodeBars(registers: readonly number[]): BarRegister[] {
  const bars: BarRegister[] = [];
  for (let index = 0; index < registers.length; index++) {
    const low = registers[index] ?? 0;
    const bar = decodeBar(index, low, registers[index + 1]);
    if (low !== 0) bars.push(bar);
    if (bar.kind === 'mem64') index += 1;
  }
  return bars;
}

/** The BARs as config space has them now. `count` is 6 for an endpoint, 2 for a bridge. */
export async function readBars(reader: ConfigReader, count: 2 | 6 = 6): Promise<BarRegister[]> {
  const registers: number[] = [];
  for (let index = 0; index < count; index++) registers.push(await reader.configRead(barOffset(index), 4));
  return decodeBars(registers);
}

/**
 * The BARs with their sizes, by writing ones to each and reading back (PCI 3.0, 6.2.5.1). Decoding is
 * off meanwhile, and command register and BARs are put back, also when an access fails. A driver that
 * uses the function loses its accesses in that time. A BAR that takes no address bit is absent.
 * Rejects with a ProtocolError when no function answers.
 */
export async function sizeBars(access: Pick<PciAccess, 'configRead' | 'configWrite'>, count: 2 | 6 = 6): Promise<Bar[]> {
  const command = await access.configRead(0x04, 2);
  if (command === 0xffff) throw new ProtocolError('BARs cannot be sized: config space reads all ones, the function is gone');
  const decoding = COMMAND.IO | COMMAND.MEMORY;
  await access.configWrite(0x04, 2, command & ~decoding);
  try {
    const bars: Bar[] = [];
    for (let index = 0; index < count; index++) {
      const low = await probe(access, index);
      const pair = decodeBar(index, low.mask, index + 1 < count ? 0 : undefined).kind === 'mem64';
      const high = pair ? await probe(access, index + 1) : undefined;
      const sizeBytes = sizeOf(low.mask, high?.mask);
      if (sizeBytes !== 0n) bars.push({ ...decodeBar(index, withFlags(low), high?.saved), sizeBytes });
      if (pair) index += 1;
    }
    return bars;
  } finally {
    await access.configWrite(0x04, 2, command);
  }
}

interface Probed {
  readonly saved: number;
  readonly mask: number;
}

async function probe(access: Pick<PciAccess, 'configRead' | 'configWrite'>, index: number): Promise<Probed> {
  const offset = barOffset(index);
  const saved = await access.configRead(offset, 4);
  try {
    await access.configWrite(offset, 4, 0xffffffff);
    return { saved, mask: await access.configRead(offset, 4) };
  } finally {
    await access.configWrite(offset, 4, saved);
  }
}

/** The flag bits are read-only; those read back with the ones are the same. */
function withFlags({ saved, mask }: Probed): number {
  return saved | ((mask & IO_SPACE) !== 0 ? mask & 0x3 : mask & 0xf);
}

/** The lowest address bit that can be set is the size; 0 when none can. */
function sizeOf(low: number, high: number | undefined): bigint {
  const isIo = (low & IO_SPACE) !== 0;
  const settable = (BigInt(low >>> 0) & (isIo ? IO_ADDRESS_MASK : MEMORY_ADDRESS_MASK)) | (BigInt((high ?? 0) >>> 0) << 32n);
  return settable & -settable;
}

/** Linux's IORESOURCE_* bits, as the third column of sysfs `resource` has them. */
export const IORESOURCE = {
  IO: 0x100n,
  MEM: 0x200n,
  PREFETCH: 0x2000n,
  MEM_64: 0x100000n,
  DISABLED: 0x10000000n,
  /** It has a size and no address yet. */
  UNSET: 0x20000000n,
} as const;

export interface KernelBar extends Bar {
  /** The kernel gave it an address; `address` is meaningless otherwise. */
  readonly assigned: boolean;
}

/** BARs 0 to 5 of sysfs `resource`: start, end, flags a line. Absent ones are left out, as is the ROM. */
export function parseResourceFile(text: string): KernelBar[] {
  const bars: KernelBar[] = [];
  for (const [index, line] of text.split(/\r?\n/).slice(0, 6).entries()) {
    const match = /^(0x[0-9a-f]+) (0x[0-9a-f]+) (0x[0-9a-f]+)$/.exec(line.trim());
    if (match === null) continue;
    const [start, end, flags] = [BigInt(match[1] ?? 0), BigInt(match[2] ?? 0), BigInt(match[3] ?? 0)];
    if ((flags & (IORESOURCE.IO | IORESOURCE.MEM)) === 0n) continue;
    const kind = (flags & IORESOURCE.IO) !== 0n ? 'io' : (flags & IORESOURCE.MEM_64) !== 0n ? 'mem64' : 'mem32';
    const prefetchable = (flags & IORESOURCE.PREFETCH) !== 0n;
    bars.push({ index, kind, prefetchable, address: start, sizeBytes: end - start + 1n, assigned: (flags & (IORESOURCE.UNSET | IORESOURCE.DISABLED)) === 0n });
  }
  return bars;
}
