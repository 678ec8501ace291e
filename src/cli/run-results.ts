// What one run of Jest came to, by suite, and the tally over several runs. Failed and errored are told apart
// as the reporter does it; and of the errored those where only the host lacked something (exit code 3).
// Source: @jest/test-result's AggregatedResult.
import { failureOf } from '../report/results.ts';

/** From good to bad. `flaky`: what failed passed when it was tried again. `environment`: every failure is an EnvironmentError. */
const OUTCOMES = ['passed', 'flaky', 'environment', 'errored', 'failed'] as const;
export type Outcome = (typeof OUTCOMES)[number];

/** By test file, absolute; files of which no test was asked for are left out. */
export type RunResult = ReadonlyMap<string, Outcome>;

/** The descriptor of Jest's process that results-processor.ts writes to. */
export const RESULTS_FD = 3;

/** What is used of Jest's results; they carry more. */
export interface JestResults {
  readonly testResults: readonly {
    readonly testFilePath: string;
    readonly failureMessage?: string | null;
    /** Why the file could not be run, or what failed outside of its tests. */
    readonly testExecError?: { readonly message?: string; readonly stack?: string | null };
    readonly testResults: readonly {
      readonly status: string;
      readonly failureMessages: readonly string[];
      /** How often it was tried. */
      readonly invocations?: number;
    }[];
  }[];
}

export function outcomesOf({ testResults: files }: JestResults): RunResult {
  const outcomes = new Map<string, Outcome>();
  for (const { testFilePath, failureMessage, testExecError, testResults } of files) {
    const failed = testResults.filter(({ status }) => status === 'failed');
    const stacks = failed.flatMap(({ failureMessages }) => failureMessages);
    if (failed.length > 0) outcomes.set(testFilePath, outcomeOfFailures(stacks));
    else if (testExecError != null || failureMessage) outcomes.set(testFilePath, outcomeOfFailures([testExecError?.stack ?? testExecError?.message ?? failureMessage ?? '']));
    else if (testResults.some(({ status, invocations = 1 }) => status === 'passed' && invocations > 1)) outcomes.set(testFilePath, 'flaky');
    else if (testResults.some(({ status }) => status === 'passed')) outcomes.set(testFilePath, 'passed');
  }
  return outcomes;
}

function outcomeOfFailures(stacks: readonly string[]): Outcome {
  return stacks.length === 0 ? 'errored' : worst(stacks.map((stack) => {
    const { name, outcome } = failureOf(stack);
    return name === 'EnvironmentError' || name === 'SystemCallError' ? 'environment' : outcome;
  }));
}

/** Undefined when Jest handed none over: it ended before it had results. */
export function parseOutcomes(text: string): RunResult | undefined {
  return text === '' ? undefined : new Map(JSON.parse(text) as [string, Outcome][]);
}

/** Whether it fails no run. */
export function isGood(outcome: Outcome): boolean {
  return outcome === 'passed' || outcome === 'flaky';
}

/** One failed suite is a failed run, whatever the host lacks besides. */
export function worst(outcomes: Iterable<Outcome>): Outcome {
  return [...outcomes].reduce((one, other) => (OUTCOMES.indexOf(other) > OUTCOMES.indexOf(one) ? other : one), 'passed');
}

/** A line a suite: `virtio-blk  9/10  failed in run 4`. A run in which it was flaky is not among those that it passed. */
export function tally(runs: readonly RunResult[], nameOf: (file: string) => string): string {
  const files = [...new Set(runs.flatMap((one) => [...one.keys()]))].sort();
  const rows = files.map((file) => {
    const outcomes = runs.map((one, index) => ({ run: index + 1, outcome: one.get(file) }));
    const ran = outcomes.filter(({ outcome }) => outcome !== undefined);
    const notes = (['failed', 'errored', 'environment', 'flaky'] as const).map((bad) => ({ bad, at: ran.filter(({ outcome }) => outcome === bad).map(({ run }) => run) }))
      .filter(({ at }) => at.length > 0)
      .map(({ bad, at }) => `${bad === 'environment' ? 'the host lacked something' : bad} in run ${at.join(', ')}`);
    const passed = ran.filter(({ outcome }) => outcome === 'passed').length;
    return [nameOf(file), `${passed}/${runs.length}`, notes.join('; ')] as const;
  });
  const width = Math.max(0, ...rows.map(([name]) => name.length));
  return rows.map(([name, score, note]) => `  ${name.padEnd(width)}  ${score}  ${note}`.trimEnd()).join('\n');
}
