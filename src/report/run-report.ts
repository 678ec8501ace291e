// The report of a run, as it is written (rootport-report/report.json) and read: what ran, on what, what came of each
// test and what happened meanwhile. Stable: fields are added, and `version` counts up when one changes its meaning.
// Times are milliseconds; points of time are ISO 8601, those of events milliseconds from their attempt's begin.
import { UsageError } from '../errors.ts';
import type { RecordedEvent } from '../recorder.ts';
import type { TestOutcome, TestStatus } from './results.ts';

export const REPORT_FORMAT = 'rootport-report';
export const REPORT_VERSION = 1;

export const STATUSES = ['failed', 'errored', 'flaky', 'passed', 'skipped'] as const satisfies readonly TestStatus[];

export interface RunReport {
  readonly format: typeof REPORT_FORMAT;
  readonly version: typeof REPORT_VERSION;
  readonly startedAt: string;
  readonly durationMs: number;
  readonly environment: RunEnvironment;
  /** What was joined into this one: `1/4`. Absent for a run that was not cut into shards. */
  readonly shards?: readonly string[];
  /** In the order of their files' names, then as they ran. A test is known by its file and name. */
  readonly tests: readonly ReportedTest[];
}

export interface RunEnvironment {
  /** Versions. */
  readonly rootport: string;
  readonly node: string;
  /** `Linux 6.1.0 x64, 2 CPUs, 3924 MiB`. */
  readonly host: string;
  /** Each kind of machine that tests ran on, one line: type, QEMU, kernel, accelerator and why that one. */
  readonly machines: readonly string[];
}

export interface ReportedTest {
  /** From the project's root. */
  readonly file: string;
  /** Describe blocks and title, joined by ' > '; empty for a file that could not be run. */
  readonly name: string;
  readonly status: TestStatus;
  /** Of all attempts. */
  readonly durationMs: number;
  /** In order; of a skipped test none. */
  readonly attempts: readonly Attempt[];
}

export interface Attempt {
  readonly outcome: Exclude<TestOutcome, 'skipped'>;
  readonly startedAt: string;
  readonly durationMs: number;
  readonly failures: readonly Failure[];
  /** Those that the test ran on; an event's `machine` is the index. */
  readonly machines: readonly ReportedMachine[];
  readonly events: readonly ReportedEvent[];
  /** Events that were recorded and are not in `events`. */
  readonly eventsDropped: number;
  /** Of the claims that did not hold. */
  readonly witnesses: readonly WitnessTable[];
  readonly tables: readonly ReportedTable[];
  /** Where more of it is kept, from the report's directory. */
  readonly folder?: string;
}

export interface Failure {
  /** The error's class. */
  readonly name: string;
  readonly summary: string;
  /** As Jest prints it, without colours. */
  readonly text: string;
}

export interface ReportedMachine {
  readonly description: string;
  /** The command line of its QEMU. */
  readonly repro: string;
  /** What QEMU has on its buses, as text; absent when it did not answer. */
  readonly pciTree?: string;
  /** The folder that `rootport shell --from` takes, from the report's: the guest is kept as it was. */
  readonly state?: string;
}

/** `atMs` from the attempt's begin: what a machine did before it is negative. */
export interface ReportedEvent extends RecordedEvent {
  /** Absent: 0. */
  readonly machine?: number;
}

/** What each witness says of one claim (witness-table.ts). */
export interface WitnessTable {
  readonly headline: string;
  readonly columns: readonly string[];
  readonly expected: Readonly<Record<string, string | undefined>>;
  readonly rows: readonly WitnessRow[];
}

export interface WitnessRow {
  readonly witness: string;
  readonly says: Readonly<Record<string, string | undefined>>;
  readonly missing?: string;
  readonly note?: string;
  /** Columns in which it disagrees. */
  readonly wrong: readonly string[];
}

/** A ledger, or any other table that a test's machine has to show. */
export interface ReportedTable {
  readonly title: string;
  readonly columns: readonly string[];
  readonly rows: readonly (readonly string[])[];
}

export type StatusCounts = Readonly<Record<TestStatus, number>>;

export function countStatuses(tests: readonly Pick<ReportedTest, 'status'>[]): StatusCounts {
  const counts: Record<TestStatus, number> = { passed: 0, failed: 0, errored: 0, flaky: 0, skipped: 0 };
  for (const { status } of tests) counts[status] += 1;
  return counts;
}

/** `3 passed, 1 failed`: what there is none of is left out, but for `passed`. */
export function countsText(counts: StatusCounts): string {
  return (['passed', 'failed', 'errored', 'flaky', 'skipped'] as const)
    .filter((status) => status === 'passed' || counts[status] > 0).map((status) => `${counts[status]} ${status}`).join(', ');
}

/** Of what came of a test's attempts, in order. */
export function statusOf(outcomes: readonly Attempt['outcome'][]): TestStatus {
  const last = outcomes.at(-1);
  if (last === undefined) return 'skipped';
  return last === 'passed' && outcomes.some((one) => one !== 'passed') ? 'flaky' : last;
}

/** The file and name of a test, as one text for people. */
export function titleOf({ file, name }: Pick<ReportedTest, 'file' | 'name'>): string {
  return name === '' ? file : `${file} > ${name}`;
}

/**
 * A report as it was written.
 * @throws UsageError when it is none, or of a version that is not known here
 */
export function parseReport(text: string, from: string): RunReport {
  let value: Partial<RunReport> | null;
  try {
    value = JSON.parse(text) as Partial<RunReport> | null;
  } catch (cause) {
    throw new UsageError(`${from} is not a report: ${(cause as Error).message}`, { cause });
  }
  if (value?.format !== REPORT_FORMAT || !Array.isArray(value.tests)) throw new UsageError(`${from} is not a report of rootport`);
  if (value.version !== REPORT_VERSION) {
    throw new UsageError(`${from} is of version ${String(value.version)} of the report's format, and this rootport knows ${REPORT_VERSION}`, {
      hint: 'take the rootport that wrote it',
    });
  }
  return value as RunReport;
}
