// A report as KTAP: a test a file, its tests as subtests; failures are diagnostics. Errored ones are `not ok` too, and
// their diagnostics say so; a flaky one is `ok`, for KTAP has no word for it, and its diagnostics say so.
// Source: Linux, Documentation/dev-tools/ktap.rst.
import { oneLine, plainText } from './plain-text.ts';
import type { ReportedTest, RunReport } from './run-report.ts';

export function renderKtap({ tests }: Pick<RunReport, 'tests'>): string {
  const files = [...new Set(tests.map(({ file }) => file))];
  return [
    'KTAP version 1', `1..${files.length}`,
    ...files.flatMap((file, index) => {
      const mine = tests.filter((test) => test.file === file);
      return [
        '  KTAP version 1', `  # Subtest: ${name(file)}`, `  1..${mine.length}`,
        ...mine.flatMap((test, at) => subtest(test, at + 1).map((line) => `  ${line}`)),
        `${mine.every(({ status }) => isOk(status)) ? 'ok' : 'not ok'} ${index + 1} ${name(file)}${mine.every(({ status }) => status === 'skipped') ? ' # SKIP' : ''}`,
      ];
    }),
    '',
  ].join('\n');
}

function subtest({ file, name: own, status, attempts, durationMs }: ReportedTest, number: number): string[] {
  const failures = attempts.flatMap(({ failures: some }) => some);
  const said = [
    ...(status === 'flaky' || status === 'errored' ? [status] : []),
    ...(status === 'passed' ? [] : failures.flatMap(({ text }) => plainText(text).split('\n'))),
    ...(attempts.length === 0 ? [] : [`duration_ms: ${Math.round(durationMs)}`]),
  ];
  return [...said.map((line) => `# ${line}`.trimEnd()), `${isOk(status) ? 'ok' : 'not ok'} ${number} ${name(own || file)}${status === 'skipped' ? ' # SKIP' : ''}`];
}

function isOk(status: ReportedTest['status']): boolean {
  return status === 'passed' || status === 'flaky' || status === 'skipped';
}

/** A `#` in a description begins a directive. */
function name(text: string): string {
  return oneLine(text).replaceAll('#', '%');
}
