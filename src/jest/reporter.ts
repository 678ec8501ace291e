// The reporter of the preset, beside Jest's own: says at the end which tests failed (a claim that does not
// hold, a fault of the guest) and which errored (everything else), and writes that as JSON where the option
// `outputFile` or $ROOTPORT_RESULTS says. Tables, logs and repro lines are in the errors' own texts.
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, relative, resolve } from 'node:path';
import type { AggregatedResult, Config, Reporter, TestResult } from '@jest/reporters';
import { failureOf, outcomeOf, recordOf, renderRecord, type TestOutcome, type TestRecordEntry } from '../report/results.ts';

export interface RootportReporterOptions {
  readonly outputFile?: string;
}

export default class RootportReporter implements Pick<Reporter, 'onRunComplete'> {
  readonly #rootDir: string;
  readonly #outputFile: string | undefined;

  constructor({ rootDir }: Config.GlobalConfig, { outputFile }: RootportReporterOptions = {}) {
    this.#rootDir = rootDir;
    const chosen = process.env['ROOTPORT_RESULTS'] || outputFile;
    this.#outputFile = chosen === undefined ? undefined : resolve(rootDir, chosen);
  }

  onRunComplete(_contexts: unknown, { testResults, startTime }: AggregatedResult): void {
    const record = recordOf(new Date(startTime), testResults.flatMap((result) => this.#entries(result)));
    if (record.counts.failed + record.counts.errored > 0) process.stderr.write(`\n${renderRecord(record)}\n`);
    if (this.#outputFile === undefined) return;
    mkdirSync(dirname(this.#outputFile), { recursive: true });
    writeFileSync(this.#outputFile, `${JSON.stringify(record, undefined, 2)}\n`);
  }

  #entries({ testFilePath, testResults, testExecError, failureMessage }: TestResult): TestRecordEntry[] {
    const file = relative(this.#rootDir, testFilePath);
    const entry = (test: string, outcome: TestOutcome, durationMs: number, stacks: readonly string[]): TestRecordEntry =>
      ({ file, test, outcome, durationMs, errors: stacks.map(failureOf).map(({ name, summary }) => ({ name, summary })) });
    if (testResults.length === 0 && (testExecError !== undefined || failureMessage)) {
      return [entry('', 'errored', 0, [testExecError?.stack ?? testExecError?.message ?? failureMessage ?? ''])];
    }
    return testResults.map(({ ancestorTitles, title, status, duration, failureMessages }) => entry(
      [...ancestorTitles, title].join(' > '),
      status === 'failed' ? outcomeOf(failureMessages) : status === 'passed' ? 'passed' : 'skipped',
      duration ?? 0, failureMessages,
    ));
  }
}
