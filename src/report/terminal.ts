// What a run came to, for a terminal: counts, what did not pass and where more of it is, the slowest tests. Plain text.
import { countStatuses, countsText, titleOf, type Attempt, type ReportedTest, type RunReport } from './run-report.ts';
import { surplusText } from './event-bound.ts';
import { missingShards } from './merge.ts';

export interface TerminalOptions {
  /** Where the report is: the folders of failures are named below it. */
  readonly directory?: string | undefined;
  /** Say the slowest tests too. */
  readonly slowest?: number;
  /** Quote this many lines of the console's end of each failure. Default 0: errors quote it themselves. */
  readonly consoleLines?: number;
}

export function renderForTerminal(report: RunReport, { directory, slowest = 0, consoleLines = 0 }: TerminalOptions = {}): string {
  const counts = countStatuses(report.tests);
  const lines = [`rootport: ${countsText(counts)}`];
  for (const test of report.tests) {
    if (test.status === 'passed' || test.status === 'skipped') continue;
    lines.push(`  ${test.status.padEnd(7)}  ${titleOf(test)}`, ...detailsOf(test, directory, consoleLines).map((line) => `           ${line}`));
  }
  const missing = missingShards(report);
  if (missing.length > 0) lines.push(`  missing: ${missing.length === 1 ? 'shard' : 'shards'} ${missing.join(', ')}`);
  const surplus = surplusText(report);
  if (surplus !== undefined) lines.push(`  ${surplus}`);
  const slow = [...report.tests].sort((one, other) => other.durationMs - one.durationMs).slice(0, slowest);
  if (slow.length > 0 && report.tests.length > slowest) {
    lines.push(`the slowest ${slow.length} of ${report.tests.length}:`, ...slow.map((test) => `  ${secondsText(test.durationMs).padStart(8)}  ${titleOf(test)}`));
  }
  return lines.join('\n');
}

export function secondsText(ms: number): string {
  return ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`;
}

/** The attempt that a test failed in; of a flaky one the first that did. */
export function failedAttempt({ attempts }: ReportedTest): Attempt | undefined {
  const last = attempts.at(-1);
  return last !== undefined && last.outcome !== 'passed' ? last : attempts.find(({ outcome }) => outcome !== 'passed');
}

function detailsOf(test: ReportedTest, directory: string | undefined, consoleLines: number): string[] {
  const attempt = failedAttempt(test);
  if (attempt === undefined) return [];
  const [first] = attempt.failures;
  const failed = test.attempts.filter(({ outcome }) => outcome !== 'passed').length;
  const inReport = (path: string): string => (directory === undefined ? path : `${directory}/${path}`);
  const console = consoleLines === 0 ? [] : attempt.events.filter(({ lane }) => lane === 'console').slice(-consoleLines);
  return [
    ...(first === undefined ? [] : [`${first.name === 'AssertionError' ? '' : `${first.name}: `}${first.summary}`]),
    ...(test.attempts.length > 1 ? [`${failed} of ${test.attempts.length} attempts failed`] : []),
    ...(console.length === 0 ? [] : ['console tail:', ...console.map(({ text }) => `  ${text}`)]),
    ...(attempt.folder === undefined ? [] : [`kept: ${inReport(attempt.folder)}`]),
    ...attempt.machines.flatMap(({ state }) => (state === undefined ? [] : [`the guest as it was: rootport shell --from ${inReport(state)}`])),
  ];
}
