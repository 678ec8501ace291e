// The command line as a user has it: the compiled dist/cli/main.js in a process of its own. `npm test` builds
// dist/ first; by hand, `npm run build` does.
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { execa, type ResultPromise } from 'execa';
import { within } from '../../src/wait.ts';

export const MAIN = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));
export const PACKAGE = fileURLToPath(new URL('../..', import.meta.url));

export interface CliOptions {
  readonly cwd?: string;
  readonly env?: Record<string, string>;
  readonly input?: string;
}

/** Start it; its result when it ended, whatever its exit code. */
export function start(args: readonly string[], { cwd = PACKAGE, env = {}, input = '' }: CliOptions = {}) {
  return execa(process.execPath, [MAIN, ...args], { cwd, env: { ROOTPORT_DEBUG: '', NO_COLOR: '1', ...env }, input, reject: false, timeout: 300_000 });
}

export async function rootport(args: readonly string[], options: CliOptions = {}): Promise<{ exitCode: number | undefined; stdout: string; stderr: string }> {
  const { exitCode, stdout, stderr } = await start(args, options);
  return { exitCode, stdout, stderr };
}

/** Its exit code as soon as it is gone, whoever still holds its output; null when a signal killed it. */
export function exitOf(child: ResultPromise): Promise<number | null> {
  const exited = new Promise<number | null>((resolve) => { child.once('exit', resolve); });
  return within(exited, { timeoutMs: 10_000, what: 'rootport to exit' });
}

/** An empty directory of the test's own; the test removes it. */
export function temporary(name: string): string {
  return mkdtempSync(join(tmpdir(), `cli-test-${name}-`));
}
