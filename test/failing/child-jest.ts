// Runs one suite of test/failing/suites in a Jest of its own and reads what it says of it. It judges nothing.
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { execa } from 'execa';
import { withDir } from 'tmp-promise';
import type { RunRecord } from '../../src/report/results.ts';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));

/** What is used of Jest's --json. */
interface JestJson {
  readonly testResults: readonly { readonly assertionResults: readonly JestTest[] }[];
}
interface JestTest {
  readonly title: string;
  readonly status: string;
  readonly failureMessages: readonly string[];
}

export interface ChildRun {
  readonly pid: number;
  readonly exitCode: number | undefined;
  readonly tests: readonly JestTest[];
  /** What the preset's own reporter recorded: failed and errored kept apart. */
  readonly record: RunRecord;
  /** What a user sees. */
  readonly terminal: string;
}

/** `name`: that of a file in suites/, without `.suite.ts`. No guest is kept unless `env` says so. Rejects when the child writes no results. */
export function runSuite(name: string, env: Readonly<Record<string, string>> = {}): Promise<ChildRun> {
  return withDir(async ({ path }) => {
    const results = join(path, 'jest.json'), record = join(path, 'rootport.json');
    const child = execa(process.execPath, [
      '--experimental-vm-modules', '--disable-warning=ExperimentalWarning', 'node_modules/jest/bin/jest.js',
      '-c', 'test/failing/jest.config.js', '--runInBand', '--json', `--outputFile=${results}`, `suites/${name}.suite.ts`,
    ], {
      cwd: ROOT, reject: false, all: true, timeout: 240_000,
      env: { FORCE_COLOR: '0', ROOTPORT_RESULTS: record, ROOTPORT_KEEP_STATES: '0', ...env, NODE_OPTIONS: '' },
    });
    const { exitCode, all } = await child;
    const { testResults } = JSON.parse(await readFile(results, 'utf8')) as JestJson;
    return {
      pid: child.pid ?? -1,
      exitCode,
      tests: testResults.flatMap(({ assertionResults }) => assertionResults),
      record: JSON.parse(await readFile(record, 'utf8')) as RunRecord,
      terminal: all,
    };
  }, { unsafeCleanup: true, prefix: 'failing-suite' });
}
