// What one run of Jest came to, by suite, and the tally over several runs. Failed and errored are told
// apart by what the tests failed with: only errors of the environment are the host's fault (exit code 3).
// Source: @jest/test-result's AggregatedResult.

export type Outcome = 'passed' | 'failed' | 'environment';

/** By test file, absolute; files of which no test was asked for are left out. */
export type RunResult = ReadonlyMap<string, Outcome>;

/** The descriptor of Jest's process that results-processor.ts writes to. */
export const RESULTS_FD = 3;

/** What is used of Jest's results; they carry more. */
export interface JestResults {
  readonly testResults: readonly {
    readonly testFilePath: string;
    /** All its failures as text; for a file that did not load, why. */
    readonly failureMessage?: string | null;
    readonly testExecError?: unknown;
    readonly testResults: readonly { readonly status: string; readonly failureMessages: readonly string[] }[];
  }[];
}

export function outcomesOf({ testResults: files }: JestResults): RunResult {
  const outcomes = new Map<string, Outcome>();
  for (const { testFilePath, failureMessage, testExecError, testResults } of files) {
    const failures = testResults.filter(({ status }) => status === 'failed').flatMap(({ failureMessages }) => failureMessages);
    if (failures.length > 0) outcomes.set(testFilePath, failures.every(isEnvironment) ? 'environment' : 'failed');
    else if (testExecError != null || failureMessage) outcomes.set(testFilePath, 'failed');
    else if (testResults.some(({ status }) => status === 'passed')) outcomes.set(testFilePath, 'passed');
  }
  return outcomes;
}

/** Undefined when Jest handed none over: it ended before it had results. */
export function parseOutcomes(text: string): RunResult | undefined {
  return text === '' ? undefined : new Map(JSON.parse(text) as [string, Outcome][]);
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
  const files = [...new Set(runs.flatMap((one) => [...one.keys()]))].sort();
  const rows = files.map((file) => {
    const outcomes = runs.map((one, index) => ({ run: index + 1, outcome: one.get(file) }));
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
