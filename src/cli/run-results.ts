// What one run of Jest came to, by suite, out of its --json file; and the tally over several runs.
// Failed and errored are told apart by what the tests failed with: only errors of the environment are the
// host's fault (exit code 3).
// Source: Jest docs, CLI option --json; @jest/test-result's FormattedTestResults.
import { readFile } from 'node:fs/promises';

export type Outcome = 'passed' | 'failed' | 'environment';

export interface RunResult {
  /** By test file, absolute; files of which no test was asked for are left out. */
  readonly suites: ReadonlyMap<string, Outcome>;
}

interface JestResults {
  readonly testResults: readonly {
    readonly name: string;
    readonly message: string;
    readonly status: string;
    readonly assertionResults: readonly { readonly status: string; readonly failureMessages: readonly string[] | null }[];
  }[];
}

/** Undefined when Jest wrote none: it ended before it had results. */
export async function readResults(path: string): Promise<RunResult | undefined> {
  const text = await readFile(path, 'utf8').catch(() => undefined);
  if (text === undefined) return undefined;
  const suites = new Map<string, Outcome>();
  for (const { name, message, status, assertionResults } of (JSON.parse(text) as JestResults).testResults) {
    const failures = assertionResults.filter((one) => one.status === 'failed').flatMap(({ failureMessages }) => failureMessages ?? []);
    if (failures.length > 0) suites.set(name, failures.every(isEnvironment) ? 'environment' : 'failed');
    else if (status === 'failed') suites.set(name, isEnvironment(message.trim()) ? 'environment' : 'failed'); // it did not load
    else if (assertionResults.some((one) => one.status === 'passed')) suites.set(name, 'passed');
  }
  return { suites };
}

/** A stack's first word is the error's name (src/errors.ts); SystemCallError is an EnvironmentError. */
function isEnvironment(stack: string): boolean {
  return /^(EnvironmentError|SystemCallError): /.test(stack);
}

/** The worst of them: one failed suite is a failed run, whatever the host lacks besides. */
export function worst(outcomes: Iterable<Outcome>): Outcome {
  const all = new Set(outcomes);
  return all.has('failed') ? 'failed' : all.has('environment') ? 'environment' : 'passed';
}

/** A line a suite: `virtio-blk  9/10  failed in run 4`. */
export function tally(runs: readonly RunResult[], nameOf: (file: string) => string): string {
  const files = [...new Set(runs.flatMap(({ suites }) => [...suites.keys()]))].sort();
  const rows = files.map((file) => {
    const outcomes = runs.map(({ suites }, index) => ({ run: index + 1, outcome: suites.get(file) }));
    const ran = outcomes.filter(({ outcome }) => outcome !== undefined);
    const notes = (['failed', 'environment'] as const).map((bad) => ({ bad, at: ran.filter(({ outcome }) => outcome === bad).map(({ run }) => run) }))
      .filter(({ at }) => at.length > 0)
      .map(({ bad, at }) => `${bad === 'failed' ? 'failed' : 'the host lacked something'} in run ${at.join(', ')}`);
    const passed = ran.filter(({ outcome }) => outcome === 'passed').length;
    return [nameOf(file), `${passed}/${runs.length}`, notes.join('; ')] as const;
  });
  const width = Math.max(0, ...rows.map(([name]) => name.length));
  return rows.map(([name, score, note]) => `  ${name.padEnd(width)}  ${score}  ${note}`.trimEnd()).join('\n');
}
