// A report for GitHub Actions: the step's summary (Markdown), and an annotation for each test that did not pass.
// Source: GitHub docs, "Workflow commands for GitHub Actions".
import { oneLine, plainText } from './plain-text.ts';
import { failedAttempt, secondsText } from './terminal.ts';
import { countsText, countStatuses, titleOf, type ReportedTest, type RunReport } from './run-report.ts';
import { missingShards } from './merge.ts';

/** GitHub takes 1 MiB a step. */
const SUMMARY_CHARS_MAX = 900_000;
/** GitHub shows ten errors and ten warnings of a step. */
const ANNOTATIONS_MAX = 10;
const TEXT_LINES_MAX = 60;

export function renderStepSummary(report: RunReport): string {
  const { tests, environment, durationMs } = report;
  const missing = missingShards(report);
  const bad = tests.filter(({ status }) => status === 'failed' || status === 'errored' || status === 'flaky');
  const parts = [
    `### rootport: ${countsText(countStatuses(tests))}`,
    `${secondsText(durationMs)} · ${environment.machines.map((one) => inCode(one)).join(', ') || 'no machine'}`,
    ...(missing.length === 0 ? [] : [`**Not all of the run: ${missing.join(', ')} missing.**`]),
    ...bad.map((test) => section(test)),
  ];
  let text = '';
  for (const [index, part] of parts.entries()) {
    if (text.length + part.length > SUMMARY_CHARS_MAX) return `${text}\n\n${parts.length - index} more are in the report.\n`;
    text += `${part}\n\n`;
  }
  return text;
}

function section(test: ReportedTest): string {
  const attempt = failedAttempt(test);
  const lines = plainText(attempt?.failures.map(({ text }) => text).join('\n\n') ?? '').split('\n');
  const cut = lines.length > TEXT_LINES_MAX ? [...lines.slice(0, TEXT_LINES_MAX), `... ${lines.length - TEXT_LINES_MAX} lines more ...`] : lines;
  return `<details><summary>${test.status}: ${escaped(oneLine(titleOf(test)))}</summary>\n\n<pre>${escaped(cut.join('\n'))}</pre>\n</details>`;
}

/** One line a command, for the step's output. Flaky ones are warnings. */
export function renderAnnotations({ tests }: Pick<RunReport, 'tests'>): string[] {
  const of = (kind: 'error' | 'warning', some: readonly ReportedTest[]): string[] => some.slice(0, ANNOTATIONS_MAX).map((test) => {
    const attempt = failedAttempt(test);
    const [first] = attempt?.failures ?? [];
    const line = new RegExp(`${test.file.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')}:(\\d+):\\d+`).exec(first?.text ?? '')?.[1];
    const place = [`file=${property(test.file)}`, ...(line === undefined ? [] : [`line=${line}`]), `title=${property(oneLine(test.name || test.file))}`].join(',');
    return `::${kind} ${place}::${data(`${first === undefined ? '' : `${first.name}: ${oneLine(first.summary)}`}${attempt?.folder === undefined ? '' : `\nkept: ${attempt.folder}`}`)}`;
  });
  return [
    ...of('error', tests.filter(({ status }) => status === 'failed' || status === 'errored')),
    ...of('warning', tests.filter(({ status }) => status === 'flaky')),
  ];
}

function data(text: string): string {
  return text.replaceAll('%', '%25').replaceAll('\r', '%0D').replaceAll('\n', '%0A');
}

function property(text: string): string {
  return data(text).replaceAll(':', '%3A').replaceAll(',', '%2C');
}

function escaped(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
}

function inCode(text: string): string {
  return `<code>${escaped(oneLine(text))}</code>`;
}
