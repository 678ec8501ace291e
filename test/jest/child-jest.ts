// A Jest of its own for suites that must fail, or be killed: started as a user starts it, `npx jest`, without
// any flag of Node's.
import { spawn, type ChildProcess } from 'node:child_process';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const JEST = createRequire(import.meta.url).resolve('jest/bin/jest');
const FIXTURES = fileURLToPath(new URL('fixtures/', import.meta.url));

export interface ChildRun {
  readonly exitCode: number | null;
  /** What a person sees, without colours. */
  readonly text: string;
  /** Failure texts by test title; an empty list for one that passed. */
  readonly failures: ReadonlyMap<string, readonly string[]>;
  /** What the reporter of the preset wrote. */
  readonly record: { readonly counts: Readonly<Record<string, number>>; readonly tests: readonly { test: string; outcome: string; errors: readonly { name: string; summary: string }[] }[] };
}

export function startJest(suite: string, args: readonly string[] = [], env: Record<string, string> = {}): ChildProcess {
  return spawn(process.execPath, [JEST, '-c', join(FIXTURES, 'jest.config.js'), ...args, `${suite}.suite`], {
    cwd: FIXTURES, stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, ROOTPORT_KEEP_STATES: '0', ...env, FORCE_COLOR: '0', CI: '1' },
  });
}

export async function runJest(suite: string, env: Record<string, string> = {}): Promise<ChildRun> {
  const directory = await mkdtemp(join(tmpdir(), 'child-jest-'));
  try {
    const json = join(directory, 'jest.json'), record = join(directory, 'nested/record.json');
    const child = startJest(suite, ['--json', `--outputFile=${json}`], { ...env, ROOTPORT_RESULTS: record });
    let text = '';
    child.stderr?.on('data', (chunk: Buffer) => { text += chunk.toString(); });
    child.stdout?.resume();
    const exitCode = await new Promise<number | null>((resolve) => { child.on('close', resolve); });
    const { testResults } = JSON.parse(await readFile(json, 'utf8')) as
      { testResults: { assertionResults: { fullName: string; failureMessages: string[] }[] }[] };
    return {
      exitCode, text,
      failures: new Map(testResults.flatMap(({ assertionResults }) => assertionResults).map((one) => [one.fullName, one.failureMessages])),
      record: JSON.parse(await readFile(record, 'utf8')) as ChildRun['record'],
    };
  } finally {
    await rm(directory, { recursive: true });
  }
}
