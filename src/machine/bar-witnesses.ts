// One BAR as each side has it: config space as the guest reads it, the guest kernel's resource, QEMU's
// query-pci, and what QEMU's memory map has at that address. Facts only: matchers judge them.
// Sources: PCI Local Bus 3.0, 6.2.5; sysfs-bus-pci; QEMU qapi/pci.json, HMP `info mtree`.
import { IORESOURCE, readBars, type BarKind } from '../pci/bar.ts';
import { COMMAND, configOf } from '../pci/config-space.ts';
import { parseMemoryTrees, regionsAt } from '../qemu/memory-tree.ts';
import { BareFunction } from './bare-function.ts';
import type { PciFunction } from './pci-function.ts';

/** What one witness says of a BAR; what it does not tell is left out. */
export interface BarTestimony {
  readonly witness: string;
  readonly kind?: BarKind;
  readonly prefetchable?: boolean;
  /** `'off'`: it is decoded nowhere. */
  readonly address?: bigint | 'off';
  readonly sizeBytes?: bigint;
  /** Why it says nothing. */
  readonly missing?: string;
  readonly note?: string;
}

export interface BarWitnesses {
  /** Decoding of the BAR's space is on in the command register. */
  readonly decoding: boolean;
  readonly config: BarTestimony;
  readonly kernel: BarTestimony;
  readonly queryPci: BarTestimony;
  readonly memoryMap: BarTestimony;
}

export async function readBarWitnesses(fn: PciFunction | BareFunction, bar: number): Promise<BarWitnesses> {
  const reader = fn instanceof BareFunction ? fn : configOf(await fn.configSpace());
  const command = await reader.configRead(0x04, 2);
  const register = (await readBars(reader)).find(({ index }) => index === bar);
  const decoding = (command & (register?.kind === 'io' ? COMMAND.IO : COMMAND.MEMORY)) !== 0;
  const queryPci = await fromQueryPci(fn, bar);
  const kernel = fn instanceof BareFunction ? { witness: KERNEL, missing: 'there is no operating system' } : await fromKernel(fn, bar);
  const config: BarTestimony = register === undefined ? { witness: CONFIG, missing: 'the register is zero' } : {
    witness: CONFIG, kind: register.kind, prefetchable: register.prefetchable,
    address: decoding ? register.address : 'off',
    ...(decoding ? {} : { note: `0x${register.address.toString(16)} is in the register, decoding is off in COMMAND` }),
  };
  const at = decoding ? register?.address : undefined;
  return { decoding, config, kernel, queryPci, memoryMap: await fromMemoryMap(fn, register?.kind, at) };
}

const CONFIG = 'guest: config space';
const KERNEL = 'guest: kernel\'s resource';
const QUERY_PCI = 'VMM: query-pci';
const MEMORY_MAP = 'VMM: info mtree';

async function fromKernel(fn: PciFunction, bar: number): Promise<BarTestimony> {
  const resource = (await fn.guestResources()).find(({ index }) => index === bar);
  if (resource === undefined) return { witness: KERNEL, missing: 'sysfs shows no such BAR' };
  const { flags, start, sizeBytes } = resource;
  const assigned = (flags & (IORESOURCE.UNSET | IORESOURCE.DISABLED)) === 0n;
  return {
    witness: KERNEL,
    kind: (flags & IORESOURCE.IO) !== 0n ? 'io' : (flags & IORESOURCE.MEM_64) !== 0n ? 'mem64' : 'mem32',
    prefetchable: (flags & IORESOURCE.PREFETCH) !== 0n,
    address: assigned ? start : 'off',
    sizeBytes,
  };
}

async function fromQueryPci(fn: PciFunction | BareFunction, bar: number): Promise<BarTestimony> {
  const region = (await fn.vmm()).regions.find((one) => one.bar === bar);
  if (region === undefined) return { witness: QUERY_PCI, missing: 'it shows no such BAR' };
  return {
    witness: QUERY_PCI,
    kind: region.type === 'io' ? 'io' : region.mem_type_64 === true ? 'mem64' : 'mem32',
    prefetchable: region.prefetch === true,
    address: region.address < 0 ? 'off' : BigInt(region.address),
    sizeBytes: BigInt(region.size),
  };
}

/** The region whose start is the BAR's: the BAR itself, or else whatever an access there ends in. */
async function fromMemoryMap(fn: PciFunction | BareFunction, kind: BarKind | undefined, address: bigint | undefined): Promise<BarTestimony> {
  if (address === undefined) return { witness: MEMORY_MAP, missing: 'config space names no address to look at' };
  const trees = parseMemoryTrees(await fn.machine.qmp.hmp('info mtree'));
  const regions = regionsAt(trees, kind === 'io' ? 'I/O' : 'memory', address);
  const region = regions.find(({ start }) => start === address) ?? regions.at(-1);
  if (region === undefined) return { witness: MEMORY_MAP, address: 'off' };
  return { witness: MEMORY_MAP, address: region.start, sizeBytes: region.sizeBytes, note: region.name };
}
