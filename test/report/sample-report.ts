// Reports for the tests of what is made of them.
import type { Attempt, ReportedTest, RunReport } from '../../src/report/run-report.ts';

export function attempt(over: Partial<Attempt> = {}): Attempt {
  return {
    outcome: 'passed', startedAt: '2026-11-21T20:00:00.000Z', durationMs: 1500, failures: [], machines: [], events: [], eventsDropped: 0,
    witnesses: [], tables: [], ...over,
  };
}

export function failedAttempt(text: string, over: Partial<Attempt> = {}): Attempt {
  return attempt({ outcome: 'failed', failures: [{ name: 'AssertionError', summary: text.split('\n')[0] ?? '', text }], ...over });
}

export function testOf(name: string, over: Partial<ReportedTest> = {}): ReportedTest {
  return { file: 'suites/a/a.suite.ts', name, status: 'passed', durationMs: 1500, attempts: [attempt()], ...over };
}

export function report(tests: readonly ReportedTest[], over: Partial<RunReport> = {}): RunReport {
  return {
    format: 'rootport-report', version: 1, startedAt: '2026-11-21T20:00:00.000Z', durationMs: 60_000,
    environment: { rootport: '0.1.0', node: 'v20.20.2', host: 'Linux 6.1 x64, 2 CPUs, 4096 MiB', machines: ['q35, QEMU 10.0.2, Linux Debian 6.1, tcg: no KVM'] },
    tests, ...over,
  };
}
