// `rootport dev`: a module rebuilt at every save. Without a suite it is loaded into a guest that nothing has touched, its
// devices plugged; with one the suite runs against it. What is printed is that round's alone.
import { existsSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import type { Command } from 'commander';
import { UsageError } from '../errors.ts';
import { terminalProgress } from '../packages/index.ts';
import { DevLoop, type Round, type Rounds } from './dev-loop.ts';
import { DevSuite } from './dev-suite.ts';
import { deviceByName, DEVICES } from './device-catalogue.ts';
import { EXIT, EXIT_CODES_HELP } from './exit-codes.ts';
import { onInterrupt } from './interrupts.ts';
import { listSuites } from './jest-child.ts';
import { addMachineOptions, bootOptions, machineEnv, type MachineOptions } from './machine-options.ts';
import { checkChoices, machineLine, prepare } from './preparation.ts';
import { checkPattern } from './run.ts';
import { SourceWatch } from './source-watch.ts';
import { findProject } from './suite-project.ts';
import { selectSuites } from './suite-selection.ts';

const PORTS_LEAST = 4;

interface DevCommandOptions extends MachineOptions {
  readonly machine?: string;
  readonly run?: string;
  readonly once?: true;
  readonly gdb?: true;
  readonly testNamePattern?: string;
}

export function addDev(program: Command): void {
  addMachineOptions(program.command('dev'))
    .option('--machine <machine>', 'q35, q35-native-hotplug, q35-iommu or pc (default: q35); not with a suite')
    .option('--run <command>', 'in the guest, once the module is loaded; not with a suite')
    .option('-t, --test-name-pattern <pattern>', 'only the suite\'s tests whose name matches')
    .option('--gdb', 'let gdb debug each round\'s guest, and say how it is started; not with a suite, nor --once')
    .option('--once', 'one round, and its exit code')
    .description('rebuild a module at every save, and load it into a fresh guest, or run its suite')
    .argument('<module>', 'its directory, with a Kbuild or a Makefile')
    .argument('[suite or devices...]', `a suite's file, or a directory of suites; or devices: ${Object.keys(DEVICES).join(', ')}; options as name:option=value,option=value`)
    .addHelpText('after', [
      '', 'With devices, or nothing: every round has a guest of its own, restored from a snapshot with the devices plugged; the',
      'module is loaded there, and what is printed is the compiler\'s words and the kernel\'s log since.',
      'With a suite: every round runs it, with guests of its own. What is printed is Jest\'s words, and under the name of',
      'each test that passed what its guest\'s kernel said; the report is in rootport-report/, as after rootport run. A save of',
      'the module\'s sources or of what lies beside the suite starts a round; one during a round ends that, and starts anew.',
      'The module is built for the kernel of --kernel: name the one that the suite takes, if it takes another.',
      'With --gdb: every round loads the module, prints the line that starts gdb with the module\'s symbols where that guest has',
      'them, and waits. At gdb\'s first continue the devices are plugged and --run is run: a breakpoint in probe() stops there.',
      'The guest lives until the next save.',
      'Ctrl-C ends it.', EXIT_CODES_HELP,
      '', 'Examples:', '  rootport dev my-driver/my-driver my-driver/my-driver.suite.ts', '  rootport dev my-driver/my-driver edu --run \'cat /proc/interrupts\'',
      '  rootport dev my-driver/my-driver edu --gdb', '',
    ].join('\n'))
    .action(async (module: string, words: string[], options: DevCommandOptions) => { process.exitCode = await dev(module, words, options); });
}

async function dev(module: string, words: readonly string[], options: DevCommandOptions): Promise<number> {
  const directory = resolve(module);
  if (!existsSync(directory)) throw new UsageError(`there is no directory ${directory}`);
  checkPattern(options.testNamePattern);
  const { suites, devices } = sorted(words, options);
  const boots = bootOptions(options);
  await checkChoices(boots);
  const { rounds, folders, verb } = suites.length > 0 ? await suiteRounds(directory, suites, options) : await loadRounds(directory, devices, options);
  const forget = onInterrupt(() => rounds.close());
  const sources = new SourceWatch(directory, folders);
  try {
    for (let changed = ''; ;) {
      const beganAt = performance.now();
      const cancel = new AbortController();
      const next = sources.next();
      void next.then(() => cancel.abort());
      if (changed !== '') process.stdout.write(`${changed} changed\n`);
      const round = await rounds.round(cancel.signal);
      if (round !== undefined) process.stdout.write(roundText(round, verb, performance.now() - beganAt));
      if (options.once === true && round !== undefined) return round.passed ? EXIT.passed : EXIT.failed;
      changed = await next;
    }
  } finally {
    sources.close();
    await rounds.close();
    forget();
  }
}

/** A word that names a device is one; a file of that name is written ./name. */
function sorted(words: readonly string[], { run, machine, gdb, once, testNamePattern }: DevCommandOptions): { suites: string[]; devices: string[] } {
  const isDevice = (word: string): boolean => Object.hasOwn(DEVICES, word.split(':')[0] ?? '');
  const suites = words.filter((word) => !isDevice(word) && (existsSync(word) || /\.[cm]?[jt]s$|\//.test(word)));
  const devices = words.filter((word) => !suites.includes(word));
  devices.forEach(deviceByName); // a name that is none is told before anything is booted
  const missing = suites.find((word) => !existsSync(word));
  if (missing !== undefined) throw new UsageError(`there is no suite ${missing}`);
  if (suites.length > 0 && devices.length > 0) throw new UsageError('a suite plugs its own devices', { hint: `leave out ${devices.join(' ')}` });
  const strange = Object.entries({ run, machine, gdb }).find(([, value]) => value !== undefined);
  if (suites.length > 0 && strange !== undefined) throw new UsageError(`--${strange[0]} is not for a suite`, { hint: 'leave out the suite; rootport shell has --gdb too' });
  if (gdb && once) throw new UsageError('--gdb and --once: a round with gdb has no end of its own');
  if (suites.length === 0 && testNamePattern !== undefined) throw new UsageError('-t chooses tests of a suite, and none is given');
  return { suites, devices };
}

interface Loop {
  readonly rounds: Rounds;
  /** Of suites. */
  readonly folders: readonly string[];
  /** What a round did that passed. */
  readonly verb: string;
}

async function loadRounds(directory: string, names: readonly string[], options: DevCommandOptions): Promise<Loop> {
  const rounds = await DevLoop.open({
    directory, devices: () => names.map(deviceByName), run: options.run,
    gdb: options.gdb && {
      line: (command) => { process.stdout.write(`${command}\n`); },
      said: (text) => { process.stdout.write(text); },
    },
    boot: { ...bootOptions(options), machine: { preset: options.machine ?? 'q35', ports: Math.max(PORTS_LEAST, names.length) }, progress: terminalProgress() },
  });
  return { rounds, folders: [], verb: 'loaded' };
}

async function suiteRounds(directory: string, suites: readonly string[], options: DevCommandOptions): Promise<Loop> {
  const project = await findProject(dirname(resolve(suites[0] ?? '')));
  const files = selectSuites(suites, await listSuites(project), { root: project.root, cwd: process.cwd() });
  const { parts } = await prepare(bootOptions(options));
  process.stdout.write(`${machineLine(parts)}\n`);
  const rounds = new DevSuite({
    directory, kernel: parts.kernel, project, files, testNamePattern: options.testNamePattern, env: machineEnv(options),
    say: (stream, text) => { process[stream].write(text); },
  });
  return { rounds, folders: [...new Set(files.map((file) => dirname(file)))], verb: 'passed' };
}

function roundText({ passed, text }: Round, verb: string, elapsedMs: number): string {
  return `${text}${text === '' || text.endsWith('\n') ? '' : '\n'}--- ${passed ? verb : 'failed'}, ${(elapsedMs / 1000).toFixed(1)} s\n`;
}
