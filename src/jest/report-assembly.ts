// A run's report out of two halves: what Jest says of each test (its verdict) and what the workers wrote of each attempt
// (report-parts.ts). A test of which no part came (a hook before it failed, a worker died, another environment) has what
// Jest says.
import { readFileSync } from 'node:fs';
import { arch, availableParallelism, release, totalmem, type } from 'node:os';
import { relative } from 'node:path';
import type { AggregatedResult, TestResult } from '@jest/reporters';
import { packageFile } from '../packages/index.ts';
import { failureOf, outcomeOf, withoutColours } from '../report/results.ts';
import { REPORT_FORMAT, REPORT_VERSION, statusOf, type Attempt, type ReportedTest, type RunReport } from '../report/run-report.ts';
import type { Part } from './report-parts.ts';

type AssertionResult = TestResult['testResults'][number];

export interface AssemblyOptions {
  readonly rootDir: string;
  /** `2/4`; undefined: the run is whole. */
  readonly shard: string | undefined;
}

export function assembleReport(
  { testResults, startTime }: Pick<AggregatedResult, 'testResults' | 'startTime'>, parts: readonly Part[], { rootDir, shard }: AssemblyOptions,
): RunReport {
  const told = new Map<string, Part[]>();
  for (const part of parts) {
    const key = keyOf(part.file, part.name);
    told.set(key, [...told.get(key) ?? [], part]);
  }
  const tests = testResults.flatMap((result) => testsOf(result, rootDir, told));
  const machines = new Set(tests.flatMap(({ attempts }) => attempts.flatMap((one) => one.machines.map(({ description }) => description.replace(/; restored from a snapshot$/, '')))));
  return {
    format: REPORT_FORMAT, version: REPORT_VERSION,
    startedAt: new Date(startTime).toISOString(),
    durationMs: Date.now() - startTime,
    environment: {
      rootport: (JSON.parse(readFileSync(packageFile('package.json'), 'utf8')) as { version: string }).version,
      node: process.version,
      host: `${type()} ${release()} ${arch()}, ${availableParallelism()} CPUs, ${Math.round(totalmem() / 2 ** 20)} MiB`,
      machines: [...machines].sort(),
    },
    ...(shard === undefined ? {} : { shards: [shard] }),
    tests: tests.sort((one, other) => (one.file < other.file ? -1 : one.file > other.file ? 1 : 0)),
  };
}

function keyOf(file: string, name: string): string {
  return `${file}\n${name}`;
}

function testsOf({ testFilePath, testResults, testExecError, failureMessage, perfStats }: TestResult, rootDir: string, told: ReadonlyMap<string, Part[]>): ReportedTest[] {
  const file = relative(rootDir, testFilePath);
  if (testResults.length === 0 && (testExecError != null || failureMessage)) {
    const text = withoutColours(testExecError?.stack ?? testExecError?.message ?? failureMessage ?? '');
    return [{ file, name: '', status: 'errored', durationMs: 0, attempts: [attemptOf([text], perfStats.start, 0)] }];
  }
  return testResults.map((result) => testOf(result, file, perfStats.start, told.get(keyOf(testFilePath, nameOf(result))) ?? []));
}

/** As current-test.ts has it. */
export function nameOf({ ancestorTitles, title }: Pick<AssertionResult, 'ancestorTitles' | 'title'>): string {
  return [...ancestorTitles, title].join(' > ');
}

function testOf(result: AssertionResult, file: string, fileStartedAt: number, parts: Part[]): ReportedTest {
  const { status, failureMessages, duration, startAt, invocations = 1 } = result;
  if (status !== 'passed' && status !== 'failed') return { file, name: nameOf(result), status: 'skipped', durationMs: 0, attempts: [] };
  // Tests may share a name: each takes its own from the front.
  const attempts = parts.splice(0, Math.max(1, invocations)).map(({ result: one }) => one);
  if (attempts.length === 0) attempts.push(attemptOf(failureMessages.map(withoutColours), startAt ?? fileStartedAt, duration ?? 0));
  const last = attempts.at(-1);
  // Jest has the last word: a hook can fail a test after its part was written.
  if (status === 'failed' && last?.outcome === 'passed') attempts.push({ ...attemptOf(failureMessages.map(withoutColours), startAt ?? fileStartedAt, 0) });
  return {
    file, name: nameOf(result), attempts, durationMs: attempts.reduce((sum, { durationMs }) => sum + durationMs, 0),
    status: statusOf(attempts.map(({ outcome }) => outcome)),
  };
}

function attemptOf(stacks: readonly string[], startedAtMs: number, durationMs: number): Attempt {
  return {
    outcome: stacks.length === 0 ? 'passed' : outcomeOf(stacks), startedAt: new Date(startedAtMs).toISOString(), durationMs,
    failures: stacks.map((text) => {
      const { name, summary } = failureOf(text);
      return { name, summary, text };
    }),
    machines: [], events: [], eventsDropped: 0, witnesses: [], tables: [],
  };
}
