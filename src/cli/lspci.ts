// `rootport lspci`: a machine with the devices named, and its PCI functions as lspci shows them; or a dump's.
// What is printed is rendered here, out of the config spaces that the guest reads, or (--no-guest) that qtest reads of
// a machine without an operating system; the guest's own lspci is not run.
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Command } from 'commander';
import { UsageError } from '../errors.ts';
import { readPciFunctions } from '../guest/pci-functions.ts';
import { bare } from '../machine/bare.ts';
import { boot } from '../machine/boot.ts';
import { cachedTree, terminalProgress } from '../packages/index.ts';
import { type LspciFunction, type LspciOptions, parseDump, parseIds, parsePciIds, type PciIds, parseSlot, renderLspci, type Selection } from '../pci/lspci/index.ts';
import type { Device } from '../qemu/attachment.ts';
import type { MachineType } from '../qemu/preset.ts';
import { readPciFunctions as readBareFunctions } from '../qtest/pci-functions.ts';
import { deviceByName, DEVICES } from './device-catalogue.ts';
import { EXIT_CODES_HELP } from './exit-codes.ts';
import { onInterrupt } from './interrupts.ts';
import { addMachineOptions, bootOptions, type MachineOptions } from './machine-options.ts';
import { checkChoices } from './preparation.ts';
import { wholeNumber } from './whole-number.ts';

const PORTS_LEAST = 4;

interface LspciCommandOptions extends MachineOptions {
  readonly machine: string;
  readonly cpus: number;
  readonly v: number;
  readonly n: number;
  readonly x: number;
  readonly m: number;
  readonly t?: true;
  readonly b?: true;
  readonly k?: true;
  readonly D?: true;
  readonly s?: Selection;
  readonly d?: Selection;
  readonly F?: string;
  /** False with --no-guest. */
  readonly guest: boolean;
}

/** How often a flag was given. */
function count(_: unknown, before: number): number {
  return before + 1;
}

export function addLspci(program: Command): void {
  addMachineOptions(program.command('lspci'))
    .option('--machine <machine>', 'q35, q35-native-hotplug, q35-iommu or pc', 'q35')
    .option('--cpus <n>', 'CPUs of the guest', wholeNumber, 1)
    .option('-v', 'verbose: -v, -vv, -vvv', count, 0)
    .option('-n', 'numbers for names; -nn: both', count, 0)
    .option('-x', 'hex dump: -x the header, -xxx 256 bytes, -xxxx all 4096', count, 0)
    .option('-t', 'buses and bridges as a tree')
    .option('-b', 'addresses and interrupts as the registers have them')
    .option('-k', 'drivers and modules')
    .option('-D', 'domains always')
    .option('-m', 'machine-readable; -mm: the newer form', count, 0)
    .option('-s <slot>', '[[[[domain]:]bus]:][device][.[function]]', parseSlot)
    .option('-d <ids>', '[vendor]:[device][:class[:prog-if]]', parseIds)
    .option('-F <file>', 'the functions of a dump that lspci -x wrote; no machine')
    .option('--no-guest', 'no operating system: the functions as firmware would leave them, in a moment')
    .description('the PCI functions of a machine, as lspci shows them')
    .argument('[devices...]', `${Object.keys(DEVICES).join(', ')}; options as name:option=value,option=value`)
    .addHelpText('after', [
      '', 'Names come from the guest\'s pci.ids; without one there are numbers.', EXIT_CODES_HELP,
      '', 'Examples:', '  rootport lspci -tv edu virtio-blk', '  rootport lspci -vvv -d 1af4: virtio-net', '  rootport lspci --no-guest -xxxx -s 01: ivshmem',
      '  rootport lspci -F dump.txt -nnvv', '',
    ].join('\n'))
    .action(async (names: string[], options: LspciCommandOptions) => {
      if (options.F !== undefined && names.length > 0) throw new UsageError('a dump takes no devices', { hint: 'leave out -F, or the devices' });
      const functions = options.F === undefined ? await machineFunctions(names.map(deviceByName), options) : parseDump(await dumpText(options.F));
      process.stdout.write(renderLspci(functions, { ...renderOptions(options), ids: await pciIds() }));
    });
}

async function dumpText(file: string): Promise<string> {
  if (!existsSync(file)) throw new UsageError(`there is no file ${file}`);
  return readFile(file, 'utf8');
}

function renderOptions({ v, n, x, m, t, b, k, D, s, d }: LspciCommandOptions): LspciOptions {
  const most = <T extends number>(value: number, limit: T): T => Math.min(value, limit) as T;
  return {
    verbosity: most(v, 3) as 0 | 1 | 2 | 3, numeric: most(n, 2) as 0 | 1 | 2, dump: most(x, 4) as 0 | 1 | 2 | 3 | 4, machineReadable: most(m, 2) as 0 | 1 | 2,
    tree: t === true, busView: b === true, drivers: k === true, domains: D === true, selection: { ...s, ...d },
  };
}

async function machineFunctions(devices: readonly Device[], options: LspciCommandOptions): Promise<LspciFunction[]> {
  const machine: MachineType = { preset: options.machine, cpus: options.cpus, ports: Math.max(PORTS_LEAST, devices.length) };
  return options.guest ? guestFunctions(devices, machine, options) : bareFunctions(devices, machine, options);
}

async function guestFunctions(devices: readonly Device[], machineType: MachineType, options: LspciCommandOptions): Promise<LspciFunction[]> {
  const boots = bootOptions(options);
  await checkChoices(boots);
  const machine = await boot({ ...boots, machine: machineType, progress: terminalProgress() });
  const forget = onInterrupt(() => machine.close());
  try {
    for (const device of devices) await machine.plug(device);
    return await readPciFunctions(machine.guest, { modules: options.k === true || options.v > 0 });
  } finally {
    await machine.close();
    forget();
  }
}

/** Devices are there from the start: plugging has nobody to take them in. */
async function bareFunctions(devices: readonly Device[], machineType: MachineType, options: LspciCommandOptions): Promise<LspciFunction[]> {
  if (options.kernel !== undefined) throw new UsageError('--no-guest has no kernel', { hint: 'leave out --kernel, or --no-guest' });
  if (options.k === true) throw new UsageError('--no-guest has no drivers to show', { hint: 'leave out -k, or --no-guest' });
  const { qemu } = bootOptions(options);
  await using machine = await bare({ machine: machineType, devices, progress: terminalProgress(), ...(qemu === undefined ? {} : { qemu }) });
  const forget = onInterrupt(() => machine.close());
  try {
    return await readBareFunctions(machine.innards.bus.config, machine.functions().map(({ address }) => address));
  } finally {
    forget();
  }
}

/** The database of the guest's userland, when it is in the cache. */
async function pciIds(): Promise<PciIds | undefined> {
  const tree = cachedTree('userland');
  const file = tree === undefined ? undefined : join(tree, 'usr/share/misc/pci.ids');
  return file === undefined || !existsSync(file) ? undefined : parsePciIds(await readFile(file, 'utf8'));
}
