// `rootport run`: the driver suites, against a real guest. Says first which machine it would boot and why;
// what the cache lacks is fetched then, visibly, before any test's clock runs.
import { type Command, InvalidArgumentError, Option } from 'commander';
import { ProtocolError, UsageError } from '../errors.ts';
import { reportEnv, RETRIES_MAX, STATES_MAX, STATES_VARIABLE } from '../jest/report-directory.ts';
import { cacheRoot } from '../packages/index.ts';
import type { Shard } from '../report/shard.ts';
import { EXIT, EXIT_CODES_HELP } from './exit-codes.ts';
import { onInterrupt } from './interrupts.ts';
import { listSuites, runJest } from './jest-child.ts';
import { addMachineOptions, bootOptions, machineEnv, type MachineOptions } from './machine-options.ts';
import { machineLine, prepare } from './preparation.ts';
import { isGood, tally, worst, type RunResult } from './run-results.ts';
import { findProject, type SuiteProject } from './suite-project.ts';
import { selectSuites, suiteName } from './suite-selection.ts';
import { shardOption } from './shard.ts';
import { wholeNumber, wholeNumberOf } from './whole-number.ts';

interface RunOptions extends MachineOptions {
  readonly repeat: number;
  readonly testNamePattern?: string;
  readonly workers?: string;
  readonly retries?: number;
  readonly keep?: string;
  readonly keepStates?: number;
  readonly shard?: Shard;
}

export function addRun(program: Command): void {
  addMachineOptions(program.command('run'))
    .description('run driver suites against a real guest')
    .argument('[suites...]', 'names (a folder under suites/) or paths; all of them by default')
    .option('--repeat <n>', 'run n times, to the end whatever fails, and tally', wholeNumber, 1)
    .option('-t, --test-name-pattern <pattern>', 'only tests whose name matches')
    .option('--workers <n>', 'test files at a time, a number or a percentage of the CPUs', workers)
    .option('--retries <n>', 'try a test that failed again; one that then passes is flaky, which fails no run (default: 0)', wholeNumberOf(0, RETRIES_MAX))
    .addOption(new Option('--keep <when>', 'which attempts get a folder in the report').choices(['failures', 'always', 'never']))
    .option('--keep-states <n>', 'of how many failures the guest is kept, for `rootport shell --from`: some 100 MiB each (default: 1)', wholeNumberOf(0, STATES_MAX))
    .option('--shard <i/n>', 'only the i-th of n parts of the suites, the same part wherever it is run; `rootport report merge` joins their reports', shardOption)
    .addHelpText('after', [
      '', 'In a project whose Jest configuration has preset \'rootport\', its suites are run; else this package\'s own.',
      EXIT_CODES_HELP, '', 'Examples:', '  rootport run', '  rootport run msix hotplug --repeat 10 --kernel 6.12', '  rootport run suites/my-driver -t unplug', '',
    ].join('\n'))
    .action(async (names: string[], options: RunOptions) => {
      process.exitCode = await run(names, options);
    });
}

function workers(text: string): string {
  if (!/^[1-9]\d*%?$/.test(text)) throw new InvalidArgumentError('It is neither a number from 1 nor a percentage.');
  return text;
}

async function run(names: readonly string[], options: RunOptions): Promise<number> {
  checkPattern(options.testNamePattern);
  const project = await findProject(process.cwd());
  const files = selectSuites(names, await listSuites(project), { root: project.root, cwd: process.cwd() });
  const { parts, wasReady } = await prepare(bootOptions(options));
  say(machineLine(parts));
  if (wasReady) say(`cache: ${cacheRoot()} has everything, nothing was downloaded`);
  return repeat(project, files, options);
}

/** @throws UsageError for what is no regular expression */
export function checkPattern(pattern: string | undefined): void {
  try {
    new RegExp(pattern ?? '');
  } catch (cause) {
    throw new UsageError(`-t: ${(cause as Error).message}`, { cause });
  }
}

async function repeat(project: SuiteProject, files: readonly string[], options: RunOptions): Promise<number> {
  const runs: RunResult[] = [];
  const sayTally = (): void => {
    if (options.repeat > 1 && runs.length > 0) say(`${runs.length} runs:\n${tally(runs, (file) => suiteName(file, project.root))}`);
  };
  const forget = onInterrupt(sayTally);
  for (let index = 1; index <= options.repeat; index += 1) {
    const beganAt = performance.now();
    const { exitCode, outcomes } = await runJest(project, jestArgs(files, options), { ...machineEnv(options), ...reportEnv(boundedStates(options, runs), options.repeat > 1 ? index : undefined), ROOTPORT_MACHINE_SAID: '1' });
    if (outcomes === undefined) throw new ProtocolError(`Jest exited with ${exitCode} before it had results`);
    if (outcomes.size === 0 && options.shard !== undefined && options.testNamePattern === undefined) {
      say(`shard ${options.shard} of ${files.length} suites has none`);
      continue;
    }
    if (outcomes.size === 0) {
      throw new UsageError('no test was run', { hint: options.testNamePattern === undefined ? 'all of them are skipped' : `no name matches ${options.testNamePattern}` });
    }
    const result = exitCode !== 0 && isGood(worst(outcomes.values())) ? allFailed(outcomes) : outcomes;
    runs.push(result);
    if (options.repeat > 1) say(`run ${index} of ${options.repeat}: ${worst(result.values())}, ${Math.round((performance.now() - beganAt) / 1000)} s`);
  }
  forget();
  sayTally();
  return exitCodeOfRuns(runs);
}

/** The runs of a --repeat fail alike: the first that does keeps guests, unless it was said how many each may. */
function boundedStates(options: RunOptions, before: readonly RunResult[]): RunOptions {
  const isSaid = options.keepStates !== undefined || Boolean(process.env[STATES_VARIABLE]);
  return isSaid || !before.some((one) => worst(one.values()) !== 'passed') ? options : { ...options, keepStates: 0 };
}

function jestArgs(files: readonly string[], { testNamePattern, workers: atOnce, shard }: RunOptions): string[] {
  return [
    ...(testNamePattern === undefined ? [] : [`--testNamePattern=${testNamePattern}`]),
    ...(atOnce === undefined ? [] : [`--maxWorkers=${atOnce}`]),
    ...(shard === undefined ? [] : [`--shard=${shard}`, '--passWithNoTests']),
    '--runTestsByPath', ...files,
  ];
}

/** Jest can fail without a failed test (a coverage threshold, a tear-down): no suite is to be called passed. */
function allFailed(outcomes: RunResult): RunResult {
  return new Map([...outcomes.keys()].map((file) => [file, 'failed']));
}

function exitCodeOfRuns(runs: readonly RunResult[]): number {
  switch (worst(runs.flatMap((one) => [...one.values()]))) {
    case 'passed':
    case 'flaky': return EXIT.passed;
    case 'failed':
    case 'errored': return EXIT.failed;
    case 'environment':
      process.stderr.write('error: every failure above is the host\'s: it lacks something\n  hint: rootport doctor tells what\n');
      return EXIT.environment;
  }
}

function say(text: string): void {
  process.stdout.write(`${text}\n`);
}
