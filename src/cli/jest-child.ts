// Jest as a child process: it dies with this one, however this one dies, and what it runs dies with it.
import { execa, type ResultPromise } from 'execa';
import { EnvironmentError, UsageError } from '../errors.ts';
import { PARENT_DEATH_PREFIX } from '../qemu/leash.ts';
import { within } from '../wait.ts';
import { onInterrupt } from './interrupts.ts';
import type { SuiteProject } from './suite-project.ts';

const NODE_FLAGS = ['--experimental-vm-modules', '--disable-warning=ExperimentalWarning'];
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

/** Run Jest on this terminal; its exit code. A signal to this process ends it first. */
export async function runJest(project: SuiteProject, args: readonly string[], env: Record<string, string>): Promise<number> {
  const [file, argv] = command(project, args);
  const child = execa(file, argv, { cwd: project.root, stdio: 'inherit', env, reject: false, forceKillAfterDelay: false });
  const forget = onInterrupt((signal) => end(child, signal));
  const result = await child;
  started(result);
  forget();
  return result.exitCode ?? 1;
}

/** A terminal's Ctrl-C reached it too; a signal to this process alone did not. */
async function end(child: ResultPromise, signal: NodeJS.Signals): Promise<void> {
  child.kill(signal);
  await within(child, { timeoutMs: END_TIMEOUT_MS, what: 'Jest to end' }).catch(() => child.kill('SIGKILL'));
  await child;
}

function started(result: { code?: string; shortMessage?: string }): void {
  if (result.code !== 'ENOENT') return;
  throw new EnvironmentError(`Jest cannot be started: ${result.shortMessage ?? ''}`, { hint: 'setpriv is in util-linux (Debian: apt-get install util-linux)' });
}
