// A report as JUnit XML, as GitLab, Jenkins and the like read it: a testsuite a file, `failure` for what failed, `error`
// for what errored; a flaky test passed, with `flakyFailure` (Maven Surefire's) for each attempt that did not.
// Sources: XML 1.0, 2.2 and 2.4; Surefire's surefire-test-report.xsd.
import { failedAttempt } from './terminal.ts';
import { oneLine, plainText } from './plain-text.ts';
import { countStatuses, type Attempt, type ReportedTest, type RunReport } from './run-report.ts';

export function renderJunit(report: RunReport): string {
  const files = [...new Set(report.tests.map(({ file }) => file))];
  return [
    '<?xml version="1.0" encoding="UTF-8"?>',
    element('testsuites', { name: 'rootport', ...totals(report.tests), time: seconds(report.durationMs) },
      files.map((file) => suite(file, report.tests.filter((test) => test.file === file))).join('')),
    '',
  ].join('\n');
}

function suite(file: string, tests: readonly ReportedTest[]): string {
  const began = tests.flatMap(({ attempts }) => attempts.map(({ startedAt }) => startedAt)).sort()[0];
  return element('testsuite', {
    name: file, ...totals(tests), time: seconds(tests.reduce((sum, { durationMs }) => sum + durationMs, 0)),
    ...(began === undefined ? {} : { timestamp: began.replace(/\.\d+Z$/, '') }),
  }, tests.map(testcase).join(''));
}

function totals(tests: readonly ReportedTest[]): Record<string, string> {
  const counts = countStatuses(tests);
  return { tests: `${tests.length}`, failures: `${counts.failed}`, errors: `${counts.errored}`, skipped: `${counts.skipped}` };
}

function testcase(test: ReportedTest): string {
  const { file, name, status, durationMs, attempts } = test;
  const attempt = failedAttempt(test);
  const console = attempt?.events.filter(({ lane }) => lane === 'console').map(({ text }) => text).join('\n') ?? '';
  const kept = attempts.flatMap(({ folder }) => (folder === undefined ? [] : [`kept: ${folder}`]));
  return element('testcase', { classname: file.replace(/\.suite\.m?[jt]s$/, '').replaceAll('/', '.'), name: name || file, file, time: seconds(durationMs) }, [
    status === 'skipped' ? element('skipped', {}) : '',
    status === 'failed' && attempt !== undefined ? failures('failure', attempt) : '',
    status === 'errored' && attempt !== undefined ? failures('error', attempt) : '',
    status === 'flaky' ? attempts.filter(({ outcome }) => outcome !== 'passed').map((one) => failures('flakyFailure', one)).join('') : '',
    console === '' ? '' : element('system-out', {}, escaped(console)),
    kept.length === 0 ? '' : element('system-err', {}, escaped(kept.join('\n'))),
  ].join(''));
}

/** One element an attempt, as readers expect; all of its failures in it. */
function failures(kind: 'failure' | 'error' | 'flakyFailure', { failures: some }: Attempt): string {
  const [first] = some;
  return element(kind, { message: first?.summary ?? '', type: first?.name ?? 'Error' }, escaped(some.map(({ text }) => text).join('\n\n')));
}

function seconds(ms: number): string {
  return (ms / 1000).toFixed(3);
}

/** `content` is markup: texts in it are escaped before. */
function element(name: string, attributes: Readonly<Record<string, string>>, content = ''): string {
  const words = Object.entries(attributes).map(([key, value]) => ` ${key}="${escaped(oneLine(value))}"`).join('');
  return content === '' ? `<${name}${words}/>\n` : `<${name}${words}>${content}</${name}>\n`;
}

const ENTITIES: Readonly<Record<string, string>> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', '\'': '&apos;' };

function escaped(text: string): string {
  return plainText(text).replace(/[&<>"']/g, (one) => ENTITIES[one] ?? one);
}
