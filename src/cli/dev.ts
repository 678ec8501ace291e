// `rootport dev`: a module rebuilt at every save, and loaded into a guest that nothing has touched, its devices plugged;
// the kernel's log of that round alone is printed. Not here: suites (rootport run), gdb.
import { existsSync } from 'node:fs';
import { resolve } from 'node:path';
import type { Command } from 'commander';
import { UsageError } from '../errors.ts';
import { terminalProgress } from '../packages/index.ts';
import { DevLoop, type Round } from './dev-loop.ts';
import { deviceByName, DEVICES } from './device-catalogue.ts';
import { EXIT, EXIT_CODES_HELP } from './exit-codes.ts';
import { onInterrupt } from './interrupts.ts';
import { addMachineOptions, bootOptions, type MachineOptions } from './machine-options.ts';
import { checkChoices } from './preparation.ts';
import { SourceWatch } from './source-watch.ts';

const PORTS_LEAST = 4;

interface DevCommandOptions extends MachineOptions {
  readonly machine: string;
  readonly run?: string;
  readonly once?: true;
}

export function addDev(program: Command): void {
  addMachineOptions(program.command('dev'))
    .option('--machine <machine>', 'q35, q35-native-hotplug, q35-iommu or pc', 'q35')
    .option('--run <command>', 'in the guest, once the module is loaded')
    .option('--once', 'one round, and its exit code')
    .description('rebuild a module at every save, and load it into a fresh guest')
    .argument('<module>', 'its directory, with a Kbuild or a Makefile')
    .argument('[devices...]', `${Object.keys(DEVICES).join(', ')}; options as name:option=value,option=value`)
    .addHelpText('after', [
      '', 'Every round has a guest of its own, restored from a snapshot with the devices plugged; what is printed is that', 'round\'s. Ctrl-C ends it.', EXIT_CODES_HELP,
      '', 'Example:', '  rootport dev my-driver/my-driver edu --run \'cat /proc/interrupts\'', '',
    ].join('\n'))
    .action(async (module: string, names: string[], options: DevCommandOptions) => { process.exitCode = await dev(module, names, options); });
}

async function dev(module: string, names: readonly string[], options: DevCommandOptions): Promise<number> {
  const directory = resolve(module);
  if (!existsSync(directory)) throw new UsageError(`there is no directory ${directory}`);
  const devices = (): ReturnType<typeof deviceByName>[] => names.map(deviceByName);
  devices(); // a name that is none is told before anything is booted
  const boots = bootOptions(options);
  await checkChoices(boots);
  const loop = await DevLoop.open({
    directory, devices, run: options.run,
    boot: { ...boots, machine: { preset: options.machine, ports: Math.max(PORTS_LEAST, names.length) }, progress: terminalProgress() },
  });
  const forget = onInterrupt(() => loop.close());
  const sources = new SourceWatch(directory);
  try {
    for (let changed = ''; ; changed = await sources.next()) {
      const beganAt = performance.now();
      const round = await loop.round();
      process.stdout.write(`${changed === '' ? '' : `${changed} changed\n`}${roundText(round, performance.now() - beganAt)}`);
      if (options.once === true) return round.passed ? EXIT.passed : EXIT.failed;
    }
  } finally {
    sources.close();
    await loop.close();
    forget();
  }
}

function roundText({ passed, text }: Round, elapsedMs: number): string {
  return `${text}${text === '' || text.endsWith('\n') ? '' : '\n'}--- ${passed ? 'loaded' : 'failed'}, ${(elapsedMs / 1000).toFixed(1)} s\n`;
}
