// The reporter of the preset, beside Jest's own: says at the end which tests failed (a claim that does not
// hold, a fault of the guest) and which errored (everything else), and which are flaky, with the folder that is kept of
// each and the slowest tests; and writes the report (report/run-report.ts, and its page) where the option `report` or
// $ROOTPORT_REPORT says, `rootport-report` unless told. Verdicts alone go as JSON where the option `outputFile` or
// $ROOTPORT_RESULTS says. Tables, logs and repro lines are in the errors' own texts.
import { appendFileSync, mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import type { AggregatedResult, Config, Reporter, TestResult } from '@jest/reporters';
import { renderAnnotations, renderStepSummary } from '../report/github.ts';
import { renderPage } from '../report/page.ts';
import { failureOf, outcomeOf, recordOf, type TestRecordEntry, type TestStatus } from '../report/results.ts';
import { countStatuses, type RunReport } from '../report/run-report.ts';
import { renderForTerminal } from '../report/terminal.ts';
import { assembleReport, nameOf } from './report-assembly.ts';
import { beginReport, chosenDirectory, currentReport, forgetReport, PAGE_FILE, REPORT_FILE } from './report-directory.ts';
import { takeParts } from './report-parts.ts';

export interface RootportReporterOptions {
  readonly outputFile?: string;
  /** The report's directory; false: none. */
  readonly report?: string | false;
}

const SLOWEST = 5;

export default class RootportReporter implements Pick<Reporter, 'onRunComplete'> {
  readonly #rootDir: string;
  readonly #outputFile: string | undefined;
  readonly #directory: string | undefined;
  readonly #shard: string | undefined;

  constructor({ rootDir, shard }: Config.GlobalConfig, { outputFile, report }: RootportReporterOptions = {}) {
    this.#rootDir = rootDir;
    const chosen = process.env['ROOTPORT_RESULTS'] || outputFile;
    this.#outputFile = chosen === undefined ? undefined : resolve(rootDir, chosen);
    this.#shard = shard === undefined ? undefined : `${shard.shardIndex}/${shard.shardCount}`;
    this.#directory = chosenDirectory(rootDir, report);
    // Here: workers are forked before the run is said to start.
    if (this.#directory === undefined) forgetReport();
    else beginReport(this.#directory);
  }

  onRunComplete(_contexts: unknown, results: AggregatedResult): void {
    const parts = this.#directory === undefined ? undefined : currentReport()?.parts;
    const report = assembleReport(results, parts === undefined ? [] : takeParts(parts), { rootDir: this.#rootDir, shard: this.#shard });
    const { failed, errored, flaky } = countStatuses(report.tests);
    const shown = this.#directory === undefined ? undefined : relative(process.cwd(), this.#directory) || '.';
    if (failed + errored + flaky > 0 || report.tests.length > SLOWEST) {
      process.stderr.write(`\n${renderForTerminal(report, { directory: shown, slowest: SLOWEST })}\n`);
    }
    if (this.#directory !== undefined) this.#write(this.#directory, report);
    tellGithub(report);
    if (this.#outputFile === undefined) return;
    const record = recordOf(new Date(results.startTime), results.testResults.flatMap((result) => this.#entries(result)));
    mkdirSync(dirname(this.#outputFile), { recursive: true });
    writeFileSync(this.#outputFile, `${JSON.stringify(record, undefined, 2)}\n`);
  }

  #write(directory: string, report: RunReport): void {
    writeFileSync(join(directory, REPORT_FILE), `${JSON.stringify(report)}\n`);
    const page = join(directory, PAGE_FILE);
    writeFileSync(page, renderPage(report));
    process.stderr.write(`rootport: the report is ${pathToFileURL(page).href}\n`);
  }

  #entries({ testFilePath, testResults, testExecError, failureMessage }: TestResult): TestRecordEntry[] {
    const file = relative(this.#rootDir, testFilePath);
    const entry = (test: string, outcome: TestStatus, durationMs: number, stacks: readonly string[]): TestRecordEntry =>
      ({ file, test, outcome, durationMs, errors: stacks.map(failureOf).map(({ name, summary }) => ({ name, summary })) });
    if (testResults.length === 0 && (testExecError !== undefined || failureMessage)) {
      return [entry('', 'errored', 0, [testExecError?.stack ?? testExecError?.message ?? failureMessage ?? ''])];
    }
    return testResults.map((result) => {
      const { status, failureMessages, duration, invocations = 1, retryReasons = [] } = result;
      const flaky = status === 'passed' && invocations > 1;
      const outcome = flaky ? 'flaky' : status === 'failed' ? outcomeOf(failureMessages) : status === 'passed' ? 'passed' : 'skipped';
      return entry(nameOf(result), outcome, duration ?? 0, flaky ? retryReasons : failureMessages);
    });
  }
}

/** In a workflow of GitHub Actions: the step's summary, and annotations. */
function tellGithub(report: RunReport): void {
  const { GITHUB_ACTIONS: actions, GITHUB_STEP_SUMMARY: summary } = process.env;
  if (summary) appendFileSync(summary, renderStepSummary(report));
  if (actions === 'true') for (const line of renderAnnotations(report)) process.stdout.write(`${line}\n`);
}
