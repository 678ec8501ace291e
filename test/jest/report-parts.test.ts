// What workers hand the reporter: in a directory of their run's own, bounded, whatever else runs at the same place.
import { appendFileSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { noEvidence } from '../../src/jest/evidence.ts';
import { beginReport, currentReport, forgetReport, type ReportPaths } from '../../src/jest/report-directory.ts';
import { takeParts, writePart, type FinishedAttempt } from '../../src/jest/report-parts.ts';
import { Recorder } from '../../src/recorder.ts';
import { eventCharsOf } from '../../src/report/event-bound.ts';

let directory: string;
beforeEach(() => { directory = mkdtempSync(join(tmpdir(), 'report-parts-')); });
afterEach(() => {
  forgetReport();
  rmSync(directory, { recursive: true });
});

function begun(): ReportPaths {
  beginReport(directory);
  return currentReport() as ReportPaths;
}

function finished(name: string, { errors = [], events = 0 }: { errors?: readonly unknown[]; events?: number } = {}): FinishedAttempt {
  const recorder = new Recorder();
  const startedAtMs = performance.now();
  for (let at = 0; at < events; at += 1) recorder.note('test', `step ${at}`);
  const machine = { description: 'a machine', repro: 'qemu', recorder, recording: () => recorder.since(), files: () => ({}) };
  return { file: '/p/a.suite.ts', name, attempt: 1, errors, startedAtMs, evidence: { ...noEvidence(), machines: [machine] } };
}

describe('parts', () => {
  test('come as they were written, and are gone then', () => {
    const paths = begun();
    writePart(paths, finished('one', { events: 3 }));
    writePart(paths, finished('two', { errors: [new Error('no')] }));
    appendFileSync(join(paths.parts, readdirSync(paths.parts)[0] ?? ''), '{"file":"cut sho'); // a worker that was killed
    const parts = takeParts(paths.parts);
    expect(parts.map(({ name, result }) => [name, result.outcome, result.events.length])).toEqual([['one', 'passed', 3], ['two', 'errored', 0]]);
    expect(existsSync(paths.parts)).toBe(false);
    expect(takeParts(paths.parts)).toEqual([]);
  });

  test('of lines longer than what is read at once are whole', () => {
    const paths = begun();
    for (const name of ['one', 'two', 'three']) writePart(paths, finished(`${name} ${'ä'.repeat(2 ** 20)}`, { events: 2000 }));
    expect(takeParts(paths.parts).map(({ name, result }) => [name.length, result.events.length])).toEqual([[2 ** 20 + 4, 2000], [2 ** 20 + 4, 2000], [2 ** 20 + 6, 2000]]);
  });

  test('beyond the bound lose their events, the oldest passed first', () => {
    const paths = begun();
    writePart(paths, finished('failed', { errors: [new Error('no')], events: 100 }));
    for (let at = 0; at < 9; at += 1) writePart(paths, finished(`passed ${at}`, { events: 100 }));
    const one = eventCharsOf(takeParts(paths.parts)[0]?.result ?? { events: [] });
    writePart(paths, finished('failed', { errors: [new Error('no')], events: 100 }));
    for (let at = 0; at < 9; at += 1) writePart(paths, finished(`passed ${at}`, { events: 100 }));
    const left = takeParts(paths.parts, 3.5 * one);
    expect(left.filter(({ result }) => result.events.length > 0).map(({ name }) => name)).toEqual(['failed', 'passed 7', 'passed 8']);
    expect(left.map(({ result }) => result.events.length + result.eventsDropped)).toEqual(Array.from({ length: 10 }, () => 100));
  });

  test('have a failure\'s text cut; its folder has more', () => {
    const paths = begun();
    writePart(paths, finished('long', { errors: [new Error('x'.repeat(2 ** 17))] }));
    const [part] = takeParts(paths.parts);
    expect(part?.result.failures[0]?.text.length).toBeLessThan(2 ** 16 + 100);
    expect(readFileSync(join(directory, part?.result.folder ?? '', 'failure.txt'), 'utf8').length).toBeGreaterThan(2 ** 17);
  });
});

describe('a report that begins', () => {
  const leftovers = (): void => {
    mkdirSync(join(directory, 'failures/old'), { recursive: true });
    writeFileSync(join(directory, 'report.json'), '{}');
  };

  test('removes what earlier runs left, the parts of one that was killed too', () => {
    leftovers();
    mkdirSync(join(directory, `.parts-${process.pid}-1`)); // its id was given again
    mkdirSync(join(directory, '.parts-999999999-5'));
    const { parts } = begun();
    expect(readdirSync(directory).sort()).toEqual(['.gitignore', parts.slice(directory.length + 1)]);
  });

  test('leaves the parts and folders of a run that goes on at the same place', () => {
    leftovers();
    const startTime = readFileSync(`/proc/${process.ppid}/stat`, 'utf8').replace(/^.*\) /s, '').split(' ')[19];
    const other = `.parts-${process.ppid}-${startTime}`;
    mkdirSync(join(directory, other));
    const { parts } = begun();
    writePart({ directory, parts: join(directory, other) }, finished('of the other'));
    writePart({ directory, parts }, finished('mine'));
    expect(takeParts(parts).map(({ name }) => name)).toEqual(['mine']);
    expect(readdirSync(directory).sort()).toEqual(['.gitignore', other, 'failures']);
    expect(takeParts(join(directory, other)).map(({ name }) => name)).toEqual(['of the other']);
  });

  test('below another without one is not that one\'s', () => {
    begun();
    forgetReport();
    expect(currentReport()).toBeUndefined();
  });
});
