import { describe, expect, test } from '@jest/globals';
import { mergeReports, missingShards } from '../../src/report/merge.ts';
import { countsText, countStatuses, parseReport, statusOf } from '../../src/report/run-report.ts';
import { parseShard } from '../../src/report/shard.ts';
import { renderForTerminal } from '../../src/report/terminal.ts';
import { attempt, failedAttempt, report, testOf } from './sample-report.ts';

describe('merging reports', () => {
  test('joins shards: all tests by file, the time from the first begin to the last end, each machine once', () => {
    const merged = mergeReports([
      report([testOf('two', { file: 'b.suite.ts' })], { shards: ['2/3'], startedAt: '2026-11-21T20:01:00.000Z' }),
      report([testOf('one', { file: 'a.suite.ts' })], { shards: ['1/3'] }),
    ]);
    expect(merged.tests.map(({ name }) => name)).toEqual(['one', 'two']);
    expect(merged).toMatchObject({ startedAt: '2026-11-21T20:00:00.000Z', durationMs: 120_000, shards: ['1/3', '2/3'] });
    expect(merged.environment.machines).toHaveLength(1);
    expect(missingShards(merged)).toEqual(['3/3']);
    expect(renderForTerminal(merged)).toContain('missing: shard 3/3');
  });

  test('makes one test of several of the same file and name, flaky when a later attempt passed', () => {
    const failed = report([testOf('one', { status: 'failed', attempts: [failedAttempt('expect(1).toBe(2)')] })]);
    const passed = report([testOf('one', { attempts: [attempt({ startedAt: '2026-11-21T21:00:00.000Z' })] }), testOf('one', { file: 'other.suite.ts' })]);
    const { tests } = mergeReports([passed, failed]);
    expect(tests.map(({ file, status, attempts, durationMs }) => [file, status, attempts.length, durationMs])).toEqual([
      ['other.suite.ts', 'passed', 1, 1500], ['suites/a/a.suite.ts', 'flaky', 2, 3000],
    ]);
  });

  test('is refused for nothing, and for shards of runs that were cut differently', () => {
    expect(() => mergeReports([])).toThrow('no report to merge');
    expect(() => mergeReports([report([], { shards: ['1/2'] }), report([], { shards: ['2/3'] })])).toThrow('cut differently');
  });

  test('knows a shard by its name', () => {
    expect(parseShard('2/4')).toEqual({ index: 2, count: 4 });
    expect(['1/1', '2/4', '0/4', '5/4', '1', '01/4', '1/0', '-1/2', 'a/b', ''].filter(parseShard)).toEqual(['1/1', '2/4']);
  });
});

describe('a report', () => {
  test('of another format or version is refused, and one that was written is read', () => {
    const written = report([testOf('one')]);
    expect(parseReport(JSON.stringify(written), 'x')).toEqual(written);
    expect(() => parseReport('{', 'x.json')).toThrow('x.json is not a report');
    expect(() => parseReport('null', 'x.json')).toThrow('x.json is not a report of rootport');
    expect(() => parseReport(JSON.stringify({ ...written, version: 2 }), 'x.json')).toThrow('version 2');
  });

  test('counts a test that failed and then passed as flaky, and as nothing else', () => {
    expect(statusOf([])).toBe('skipped');
    expect(statusOf(['failed', 'passed'])).toBe('flaky');
    expect(statusOf(['passed', 'failed'])).toBe('failed');
    expect(statusOf(['failed', 'errored'])).toBe('errored');
    expect(countsText(countStatuses([testOf('a'), testOf('b', { status: 'flaky' })]))).toBe('1 passed, 1 flaky');
  });
});

test('the terminal is told what did not pass, where it is kept and how the console ended, and the slowest tests', () => {
  const events = ['one', 'two', 'three'].map((text, index) => ({ atMs: index, lane: 'console' as const, text }));
  const tests = [
    testOf('passes'),
    testOf('fails', { status: 'failed', durationMs: 9000, attempts: [failedAttempt('BAR 0 is another', { folder: 'failures/a', events })] }),
    testOf('shakes', { status: 'flaky', durationMs: 900, attempts: [failedAttempt('once'), attempt()] }),
    testOf('', { file: 'b.suite.ts', status: 'errored', durationMs: 0, attempts: [attempt({ outcome: 'errored', failures: [{ name: 'SyntaxError', summary: 'x', text: 'x' }] })] }),
  ];
  expect(renderForTerminal(report(tests), { directory: 'rootport-report', slowest: 2, consoleLines: 2 })).toBe([
    'rootport: 1 passed, 1 failed, 1 errored, 1 flaky',
    '  failed   suites/a/a.suite.ts > fails', '           BAR 0 is another', '           console tail:', '             two', '             three',
    '           kept: rootport-report/failures/a',
    '  flaky    suites/a/a.suite.ts > shakes', '           once', '           1 of 2 attempts failed',
    '  errored  b.suite.ts', '           SyntaxError: x',
    'the slowest 2 of 4:', '     9.0 s  suites/a/a.suite.ts > fails', '     1.5 s  suites/a/a.suite.ts > passes',
  ].join('\n'));
});
