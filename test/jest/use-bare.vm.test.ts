// useBare, from outside: what the report has of a test on a bare machine.
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { parseReport, type Attempt, type ReportedEvent } from '../../src/report/run-report.ts';
import { runJest } from './child-jest.ts';

let directory: string;
let attempts: readonly (Attempt | undefined)[];
beforeAll(async () => {
  directory = mkdtempSync(join(tmpdir(), 'use-bare-'));
  await runJest('bare-events', { ROOTPORT_REPORT: directory });
  attempts = parseReport(readFileSync(join(directory, 'report.json'), 'utf8'), 'report.json').tests.map((one) => one.attempts[0]);
}, 120_000);
afterAll(() => rmSync(directory, { recursive: true }));

const texts = (attempt: Attempt | undefined, lane: ReportedEvent['lane']): string[] => (attempt?.events ?? []).filter((one) => one.lane === lane).map(({ text }) => text);

test('its steps and claims, and what the monitor was told meanwhile, are events on one clock', () => {
  const [first] = attempts;
  expect(first?.machines).toEqual([expect.objectContaining({ description: expect.stringMatching(/^q35, QEMU .*, no operating system$/), pciTree: expect.stringContaining('rp1') })]);
  expect(texts(first, 'test')).toEqual([
    'plug edu', expect.stringMatching(/^expect toHaveBar \{"bar":0,/), 'request the removal of edu', 'eject edu', 'expect toLeaveNothingBehind',
  ]);
  expect(texts(first, 'qmp').join('\n')).toMatch(/device_add[^]*device_del[^]*DEVICE_DELETED/);
  const plugged = first?.events.find(({ text }) => text === 'plug edu'), added = first?.events.find(({ text }) => text.includes('device_add'));
  expect(added?.atMs).toBeGreaterThanOrEqual(plugged?.atMs ?? NaN);
  expect(added?.atMs).toBeLessThanOrEqual((plugged?.atMs ?? NaN) + (plugged?.durationMs ?? NaN));
});

test('a test has its own events only, and one that failed its claim\'s end and a folder', () => {
  const [, second] = attempts;
  expect(second?.outcome).toBe('failed');
  expect(texts(second, 'test')).toEqual(['plug edu', expect.stringMatching(/^expect toHaveBar/)]);
  expect(second?.events.find(({ text }) => text.startsWith('expect'))?.detail).toContain('0x100000');
  expect(second?.witnesses).toHaveLength(1);
  const folder = join(directory, second?.folder ?? '');
  expect(readFileSync(join(folder, 'machine.txt'), 'utf8')).toMatch(/no operating system\n.*qemu-system-x86_64/);
  expect(readFileSync(join(folder, 'qmp.log'), 'utf8')).toContain('device_add');
  expect(existsSync(join(folder, 'repro.sh'))).toBe(false);
});
