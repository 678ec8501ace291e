// `rootport report`: what a run wrote, as a page and in the formats of others; and `rootport report merge`, which joins
// the reports of shards.
import { existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import type { Command } from 'commander';
import { UsageError } from '../errors.ts';
import { DEFAULT_REPORT, PAGE_FILE, REPORT_FILE } from '../jest/report-directory.ts';
import { renderJunit } from '../report/junit.ts';
import { renderKtap } from '../report/ktap-text.ts';
import { mergeReports, missingShards } from '../report/merge.ts';
import { renderPage } from '../report/page.ts';
import { parseReport, type Attempt, type RunReport } from '../report/run-report.ts';
import { renderForTerminal } from '../report/terminal.ts';
import { EXIT } from './exit-codes.ts';

interface ReportOptions {
  readonly html?: string;
  readonly junit?: string;
  readonly ktap?: string;
  readonly json?: string;
}

interface MergeOptions {
  readonly output: string;
}

export function addReport(program: Command): void {
  const report = program.command('report')
    .description('show what a run wrote: a page, JUnit XML, KTAP, JSON')
    .argument('[directory]', 'the report\'s directory, or its report.json', DEFAULT_REPORT)
    .option('--html <file>', 'where the page goes (default: index.html in the directory)')
    .option('--junit <file>', 'write JUnit XML')
    .option('--ktap <file>', 'write KTAP')
    .option('--json <file>', 'write the report as JSON')
    .addHelpText('after', [
      '', 'Each run of rootport writes rootport-report/ (ROOTPORT_REPORT=<directory> or =off). - is standard output.', '',
      'Examples:', '  rootport report', '  rootport report --junit junit.xml', '  rootport report merge shard-1 shard-2 -o all', '',
    ].join('\n'))
    .action((directory: string, options: ReportOptions) => show(directory, options));
  report.command('merge')
    .description('join the reports of shards, or of several runs, into one')
    .argument('<directories...>', 'reports\' directories, or their report.json')
    .requiredOption('-o, --output <directory>', 'where the joined report goes')
    .addHelpText('after', '\nA test that is in several is one, with their attempts. Exits with 1 when a shard is missing.\n')
    .action((directories: string[], options: MergeOptions) => {
      process.exitCode = merge(directories, options);
    });
}

function show(directory: string, { html, junit, ktap, json }: ReportOptions): void {
  const { report, folder } = read(directory);
  const outputs = [html, junit, ktap, json];
  const toStdout = outputs.includes('-');
  if (!toStdout) process.stdout.write(`${renderForTerminal(report, { directory: relative(process.cwd(), folder) || '.', slowest: 5, consoleLines: 8 })}\n`);
  if (junit !== undefined) write(junit, renderJunit(report));
  if (ktap !== undefined) write(ktap, renderKtap(report));
  if (json !== undefined) write(json, `${JSON.stringify(report, undefined, 2)}\n`);
  if (html === undefined && toStdout) return;
  const page = html ?? join(folder, PAGE_FILE);
  write(page, renderPage(report));
  if (!toStdout) process.stdout.write(`the page is ${pathToFileURL(resolve(page)).href}\n`);
}

/** Folders of failures stay where they are: the joined report names them from its own place. */
function merge(directories: readonly string[], { output }: MergeOptions): number {
  const report = mergeReports(directories.map((one) => {
    const { report: part, folder } = read(one);
    return movedTo(resolve(output), folder, part);
  }));
  mkdirSync(output, { recursive: true });
  writeFileSync(join(output, REPORT_FILE), `${JSON.stringify(report)}\n`);
  show(output, {});
  return missingShards(report).length === 0 ? EXIT.passed : EXIT.failed;
}

function movedTo(output: string, folder: string, report: RunReport): RunReport {
  const moved = (attempt: Attempt): Attempt =>
    (attempt.folder === undefined ? attempt : { ...attempt, folder: relative(output, join(folder, attempt.folder)) });
  return { ...report, tests: report.tests.map((test) => ({ ...test, attempts: test.attempts.map(moved) })) };
}

function read(place: string): { report: RunReport; folder: string } {
  const file = existsSync(place) && statSync(place).isDirectory() ? join(place, REPORT_FILE) : place;
  if (!existsSync(file)) {
    throw new UsageError(`there is no report at ${file}`, { hint: 'rootport run writes one to rootport-report/, and so does Jest with the preset' });
  }
  return { report: parseReport(readFileSync(file, 'utf8'), file), folder: dirname(resolve(file)) };
}

function write(file: string, text: string): void {
  if (file === '-') return void process.stdout.write(text);
  mkdirSync(dirname(resolve(file)), { recursive: true });
  writeFileSync(file, text);
}
