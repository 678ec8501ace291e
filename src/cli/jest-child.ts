// Jest as a child process: it dies with this one, however this one dies, and what it runs dies with it.
import { fileURLToPath } from 'node:url';
import { execa } from 'execa';
import { EnvironmentError, UsageError } from '../errors.ts';
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

/**
 * Run Jest on this terminal: its exit code, and what the suites came to (undefined when it ended before
 * it knew). A signal to this process ends it first.
 */
export async function runJest(
  project: SuiteProject, args: readonly string[], env: Record<string, string>,
): Promise<{ exitCode: number; outcomes: RunResult | undefined }> {
  const [file, argv] = command(project, [`--testResultsProcessor=${PROCESSOR}`, ...args]);
  const child = execa(file, argv, {
    cwd: project.root, env, stdio: ['inherit', 'inherit', 'inherit', 'pipe'], reject: false, forceKillAfterDelay: false,
  });
  const forget = onInterrupt((signal) => end(child, signal));
  const result = await child;
  started(result);
  forget();
  return { exitCode: result.exitCode ?? 1, outcomes: parseOutcomes(String(result.stdio[RESULTS_FD] ?? '')) };
}

/** A terminal's Ctrl-C reached it too; a signal to this process alone did not. */
async function end(child: PromiseLike<unknown> & { kill(signal: NodeJS.Signals): boolean }, signal: NodeJS.Signals): Promise<void> {
  child.kill(signal);
  await within(child, { timeoutMs: END_TIMEOUT_MS, what: 'Jest to end' }).catch(() => child.kill('SIGKILL'));
  await child;
}

function started(result: { code?: string; shortMessage?: string }): void {
  if (result.code !== 'ENOENT') return;
  throw new EnvironmentError(`Jest cannot be started: ${result.shortMessage ?? ''}`, { hint: 'setpriv is in util-linux (Debian: apt-get install util-linux)' });
}
