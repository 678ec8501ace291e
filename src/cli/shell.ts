// `rootport shell`: a guest with the devices named, and a shell in it; the exit code is the shell's.
import type { Command } from 'commander';
import { MachineExitError } from '../errors.ts';
import { boot } from '../machine/boot.ts';
import { GdbStub } from '../machine/gdb-stub.ts';
import type { Machine } from '../machine/machine.ts';
import { terminalProgress } from '../packages/index.ts';
import type { Device } from '../qemu/attachment.ts';
import { deviceByName, DEVICES } from './device-catalogue.ts';
import { EXIT, EXIT_CODES_HELP } from './exit-codes.ts';
import { onInterrupt } from './interrupts.ts';
import { addMachineOptions, bootOptions, type MachineOptions } from './machine-options.ts';
import { checkChoices } from './preparation.ts';
import { remoteShell, type ShellMachine } from './remote-shell.ts';
import { checkShares, mountShares, parseShare, shareOptions, type Share } from './share.ts';
import { fromOptions, shellFrom } from './shell-from.ts';
import { wholeNumber } from './whole-number.ts';

const PORTS_LEAST = 4;

interface ShellOptions extends MachineOptions {
  readonly machine: string;
  readonly cpus: number;
  readonly share?: readonly Share[];
  readonly module?: readonly string[];
  readonly gdb?: true;
  readonly from?: string;
  readonly core?: string;
  readonly monitor?: boolean;
}

export function addShell(program: Command): void {
  addMachineOptions(program.command('shell'))
    .option('--machine <machine>', 'q35, q35-native-hotplug, q35-iommu or pc', 'q35')
    .option('--cpus <n>', 'CPUs of the guest', wholeNumber, 1)
    .option('--share <directory[:path]>', 'a directory of this host, read and written from both sides, as /mnt/<its name> or path of the guest; may be given again', collectShare)
    .option('--module <directory>', 'a module to build and load before the devices are plugged; may be given again', (path: string, before: readonly string[] = []) => [...before, path])
    .option('--gdb', 'let gdb debug the guest, and say how it is started')
    .option('--from <folder>', 'the guest of a failed test, as it was then: a folder of rootport-report/failures')
    .option('--core <file>', 'with --from: write a core of that guest, for crash, drgn or gdb, and end')
    .option('--monitor', 'with --from: QEMU\'s monitor, the guest standing still')
    .description('boot a guest, plug devices into it, and open a shell there')
    .argument('[devices...]', `${Object.keys(DEVICES).join(', ')}; options as name:option=value,option=value`)
    .addHelpText('after', [
      '', 'Devices:',
      ...Object.entries(DEVICES).map(([name, { summary, options }]) =>
        `  ${name.padEnd(11)} ${summary}${Object.keys(options).length === 0 ? '' : `\n${' '.repeat(14)}options: ${Object.keys(options).join(', ')}`}`),
      '', 'On a terminal the shell is interactive; else it runs the commands on standard input. Its exit code is',
      'rootport\'s; the machine and its disks in memory end with it.', EXIT_CODES_HELP,
      '', 'A shared directory is the host\'s own (9p): no copy, no cache; modes and owners are the host\'s, and the guest\'s root may',
      'there what you may. It leads nowhere else. A symbolic link is followed by who reads it, in a tree of its own.',
      '', 'With --gdb the line that starts gdb is printed, with the symbols of each --module where the guest has it, and printed anew',
      'whenever one of them is loaded (it lies in /tmp/modules of the guest). gdb stops the guest when it comes.',
      '', 'Examples:', '  rootport shell edu virtio-blk:queues=4,capacity=64M', '  echo "lspci -nn" | rootport shell edu', '  rootport shell --share . --share ~/firmware:/lib/firmware edu',
      '  rootport shell --gdb --module my-driver/my-driver edu', '',
    ].join('\n'))
    .action(async (names: string[], options: ShellOptions, command: Command) => {
      if (options.from !== undefined || options.core !== undefined || options.monitor === true) {
        process.exitCode = await shellFrom(fromOptions(names, options, command), session);
        return;
      }
      const devices = names.map((name) => ({ name, device: deviceByName(name) }));
      process.exitCode = await shell(devices, options);
    });
}

function collectShare(text: string, before: readonly Share[] = []): Share[] {
  const shares = [...before, parseShare(text)];
  checkShares(shares);
  return shares;
}

async function shell(devices: readonly { name: string; device: Device }[], options: ShellOptions): Promise<number> {
  const say = (line: string): void => { process.stderr.write(process.stdin.isRaw ? `\r${line}\r\n` : `${line}\n`); };
  const progress = terminalProgress();
  const boots = bootOptions(options), { share: shares = [] } = options;
  await checkChoices(boots);
  const machine = await boot({
    ...boots, ...shareOptions(shares), machine: { preset: options.machine, cpus: options.cpus, ports: Math.max(PORTS_LEAST, devices.length) }, progress,
  });
  const forget = onInterrupt(() => machine.close());
  try {
    say(`machine: ${machine.description}`);
    await mountShares(machine.guest, shares);
    for (const { directory, mountPoint } of shares) say(`${mountPoint}  is ${directory}`);
    for (const directory of options.module ?? []) await load(machine, directory, say);
    if (options.gdb) await announceGdb(machine, say);
    for (const { name, device } of devices) {
      const fn = await machine.plug(device);
      say(`${fn.bdf}  ${name} in ${fn.port}${await driverNote(fn.driver())}`);
    }
    return await session(machine, say);
  } finally {
    await machine.close();
    forget();
  }
}

async function load(machine: Machine, directory: string, say: (line: string) => void): Promise<void> {
  const module = await machine.buildModule(directory);
  if (module.warnings !== '') say(module.warnings);
  await machine.guest.loadModule(module);
}

async function announceGdb(machine: Machine, say: (line: string) => void): Promise<void> {
  const stub = await GdbStub.open(machine);
  say(await stub.command());
  await stub.onLoad(say);
}

async function driverNote(driver: Promise<string | undefined>): Promise<string> {
  const name = await driver;
  return name === undefined ? ', no driver' : `, driver ${name}`;
}

/** A guest that powered itself off ended the session, and well. */
async function session(machine: ShellMachine, say: (line: string) => void): Promise<number> {
  if (process.stdin.isTTY) say('exit or Ctrl-D ends the machine');
  try {
    return await remoteShell(machine);
  } catch (error) {
    if (!(error instanceof MachineExitError) || error.exitCode !== 0) throw error;
    say('the guest powered off');
    return EXIT.passed;
  }
}
