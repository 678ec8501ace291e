// Jest as a child process: it dies with this one, however this one dies, and what it runs dies with it.
import { finished } from 'node:stream/promises';
import { fileURLToPath } from 'node:url';
import { execa } from 'execa';
import { EnvironmentError, UsageError } from '../errors.ts';
import { START_VARIABLE } from '../jest/start-signal.ts';
import { PARENT_DEATH_PREFIX } from '../qemu/leash.ts';
import { within } from '../wait.ts';
import { onInterrupt } from './interrupts.ts';
import { parseOutcomes, RESULTS_FD, type RunResult } from './run-results.ts';
import type { SuiteProject } from './suite-project.ts';

const NODE_FLAGS = ['--experimental-vm-modules', '--disable-warning=ExperimentalWarning'];
const PROCESSOR = fileURLToPath(new URL('results-processor.js', import.meta.url));
const END_TIMEOUT_MS = 3000;

function command({ jest, configArgs }: SuiteProject, args: readonly string[]): [file: string, args: string[]] {
  const [file, ...rest] = [...PARENT_DEATH_PREFIX, process.execPath, ...NODE_FLAGS, jest, ...configArgs, ...args];
  return [file, rest];
}

/** The test files that Jest finds in the project, absolute. */
export async function listSuites(project: SuiteProject): Promise<string[]> {
  const [file, args] = command(project, ['--listTests', '--json']);
  const result = await execa(file, args, { cwd: project.root, stdin: 'ignore', reject: false });
  started(result);
  if (result.exitCode !== 0) {
    throw new UsageError(`Jest cannot list the suites of ${project.root}:\n${result.stderr.trim()}`, { hint: 'is its configuration right? npx jest --showConfig' });
  }
  return (JSON.parse(result.stdout) as string[]).sort();
}

/** What a Jest came to. */
export interface JestRun {
  readonly exitCode: number;
  /** What the suites came to; undefined when it ended before it knew. */
  readonly outcomes: RunResult | undefined;
}

/** Run Jest on this terminal. A signal to this process ends it first. */
export async function runJest(project: SuiteProject, args: readonly string[], env: Record<string, string>): Promise<JestRun> {
  const child = start(project, args, env, 'inherit');
  const forget = onInterrupt((signal) => end(child, signal));
  const result = await resultOf(child);
  forget();
  return result;
}

/** A Jest that has loaded itself, or is about to: what remains of its start when it is told to run is its suites'. */
export interface WaitingJest {
  /** What it prints goes to `say`. Called once. */
  run(tell: (...said: Said) => void): Promise<JestRun>;
  /** End it, and all that it started, wherever it stands. */
  end(): Promise<void>;
}

export function startWaitingJest(project: SuiteProject, args: readonly string[], env: Record<string, string>): WaitingJest {
  const child = start(project, args, { ...env, [START_VARIABLE]: '1' }, 'pipe');
  const result = resultOf(child);
  result.catch(() => undefined);
  child.stdin?.on('error', () => {}); // it ended before it was told
  const before: Said[] = [];
  let say = (...said: Said): void => { before.push(said); };
  const heard = (['stdout', 'stderr'] as const).map((name) => {
    const stream = child[name];
    stream?.setEncoding('utf8').on('data', (text: string) => say(name, text));
    return stream === null ? Promise.resolve() : finished(stream).catch(() => undefined);
  });
  return {
    async run(tell) {
      for (const said of before.splice(0)) tell(...said);
      say = tell;
      child.stdin?.end('\n');
      await Promise.all(heard);
      return result;
    },
    end: () => end(child, 'SIGTERM'),
  };
}

type Said = [stream: 'stdout' | 'stderr', text: string];
type Child = ReturnType<typeof start>;

function start(project: SuiteProject, args: readonly string[], env: Record<string, string>, stdio: 'inherit' | 'pipe') {
  const [file, argv] = command(project, [`--testResultsProcessor=${PROCESSOR}`, ...args]);
  return execa(file, argv, { cwd: project.root, env, stdio: [stdio, stdio, stdio, 'pipe'], reject: false, forceKillAfterDelay: false, buffer: { stdout: false, stderr: false } });
}

async function resultOf(child: Child): Promise<JestRun> {
  const result = await child;
  started(result);
  return { exitCode: result.exitCode ?? 1, outcomes: parseOutcomes(String(result.stdio[RESULTS_FD] ?? '')) };
}

/** A terminal's Ctrl-C reached it too; a signal to this process alone did not. */
async function end(child: Child, signal: NodeJS.Signals): Promise<void> {
  child.kill(signal);
  await within(child, { timeoutMs: END_TIMEOUT_MS, what: 'Jest to end' }).catch(() => child.kill('SIGKILL'));
  await child;
}

function started(result: { code?: string; shortMessage?: string }): void {
  if (result.code !== 'ENOENT') return;
  throw new EnvironmentError(`Jest cannot be started: ${result.shortMessage ?? ''}`, { hint: 'setpriv is in util-linux (Debian: apt-get install util-linux)' });
}
