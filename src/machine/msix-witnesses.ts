// A function's MSI-X capability as each side has it: config space as the guest reads it, the guest's own
// lspci, and QEMU's memory map, where table and pending bits are regions of their size.
// Sources: PCI Local Bus 3.0, 6.8.2; pciutils ls-caps.c; QEMU hw/pci/msix.c (msix_init).
import { configOf, type ConfigReader } from '../pci/config-space.ts';
import { msixPbaBytes, msixTableBytes, readMsixCapability } from '../pci/msix.ts';
import { parseMemoryTrees, regionsAt, type MemoryNode } from '../qemu/memory-tree.ts';
import { BareFunction } from './bare-function.ts';
import type { PciFunction } from './pci-function.ts';

/** What one witness says; what it does not tell is left out. */
export interface MsixTestimony {
  readonly witness: string;
  readonly vectors?: number;
  readonly tableBar?: number;
  readonly tableOffset?: number;
  readonly pbaBar?: number;
  readonly pbaOffset?: number;
  readonly missing?: string;
  readonly note?: string;
}

const CONFIG = 'guest: config space';
const LSPCI = 'guest: lspci';
const MEMORY_MAP = 'VMM: info mtree';

export async function readMsixWitnesses(fn: PciFunction | BareFunction): Promise<MsixTestimony[]> {
  if (fn instanceof BareFunction) return [await fromConfig(fn), { witness: LSPCI, missing: 'there is no operating system' }, await fromMemoryMap(fn)];
  return [await fromConfig(configOf(await fn.configSpace())), await fromLspci(fn), await fromMemoryMap(fn)];
}

async function fromConfig(config: ConfigReader): Promise<MsixTestimony> {
  const capability = await readMsixCapability(config);
  if (capability === undefined) return { witness: CONFIG, vectors: 0, note: 'no MSI-X capability' };
  const { tableSize, tableBar, tableOffset, pbaBar, pbaOffset, enabled, functionMasked } = capability;
  return {
    witness: CONFIG, vectors: tableSize, tableBar, tableOffset, pbaBar, pbaOffset,
    note: `${enabled ? 'enabled' : 'not enabled'}${functionMasked ? ', function masked' : ''}`,
  };
}

async function fromLspci(fn: PciFunction): Promise<MsixTestimony> {
  const { exitCode, stdout, stderr } = await fn.machine.guest.attempt(`lspci -vv -s ${fn.bdf}`);
  if (exitCode !== 0) return { witness: LSPCI, missing: stderr.trim().split('\n')[0] ?? 'it did not run' };
  if (!stdout.includes('Capabilities:')) return { witness: LSPCI, missing: 'it shows no capabilities' };
  const count = /MSI-X: Enable[+-] Count=(\d+)/.exec(stdout);
  if (count === null) return { witness: LSPCI, vectors: 0, note: 'no MSI-X capability' };
  const place = (name: string): { bar?: number; offset?: number } => {
    const match = new RegExp(`${name}: BAR=(\\d) offset=([0-9a-f]+)`).exec(stdout);
    return match === null ? {} : { bar: Number(match[1]), offset: parseInt(match[2] ?? '', 16) };
  };
  const table = place('Vector table');
  const pba = place('PBA');
  return {
    witness: LSPCI,
    vectors: Number(count[1]),
    ...(table.bar === undefined ? {} : { tableBar: table.bar, tableOffset: table.offset ?? 0 }),
    ...(pba.bar === undefined ? {} : { pbaBar: pba.bar, pbaOffset: pba.offset ?? 0 }),
  };
}

/** QEMU's own MSI-X lays `msix-table` and `msix-pba` regions into the BARs; a back end's own MSI-X may not. */
async function fromMemoryMap(fn: PciFunction | BareFunction): Promise<MsixTestimony> {
  const trees = parseMemoryTrees(await fn.machine.qmp.hmp('info mtree'));
  const regions = (await fn.vmm()).regions.filter(({ type, address }) => type === 'memory' && address >= 0);
  if (regions.length === 0) return { witness: MEMORY_MAP, missing: 'no memory BAR is decoded: nothing is mapped' };
  const find = (name: string): { bar: number; offset: number; sizeBytes: number } | undefined => {
    for (const { bar, address } of regions) {
      const region = regionsAt(trees, 'memory', BigInt(address)).find(({ start }) => start === BigInt(address));
      const node = region === undefined ? undefined : namedIn(region.node, name);
      if (region !== undefined && node !== undefined) return { bar, offset: Number(node.start - region.node.start), sizeBytes: Number(node.sizeBytes) };
    }
    return undefined;
  };
  const table = find('msix-table');
  const pba = find('msix-pba');
  if (table === undefined && pba === undefined) return { witness: MEMORY_MAP, vectors: 0, note: 'no msix-table region in any BAR' };
  const vectors = table === undefined ? undefined : table.sizeBytes / msixTableBytes({ tableSize: 1 });
  return {
    witness: MEMORY_MAP,
    ...(table === undefined ? {} : { tableBar: table.bar, tableOffset: table.offset }),
    ...(vectors === undefined ? {} : { vectors }),
    ...(pba === undefined ? {} : { pbaBar: pba.bar, pbaOffset: pba.offset }),
    ...(pba !== undefined && vectors !== undefined && pba.sizeBytes !== msixPbaBytes({ tableSize: vectors })
      ? { note: `the pending bits take ${pba.sizeBytes} bytes, and ${vectors} vectors need ${msixPbaBytes({ tableSize: vectors })}` } : {}),
  };
}

/** The region of this name, itself or at any depth in it. */
function namedIn(node: MemoryNode, name: string): MemoryNode | undefined {
  if (node.name === name) return node;
  for (const child of node.children) {
    const found = namedIn(child, name);
    if (found !== undefined) return found;
  }
  return undefined;
}
