// useMachine and the preset, from outside: whole runs of Jest, and what they leave.
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from '@jest/globals';
import pRetry from 'p-retry';
import { parseReport, type RunReport } from '../../src/report/run-report.ts';
import { runJest, startJest, type ChildRun } from './child-jest.ts';

describe('a file of tests on one machine', () => {
  let run: ChildRun;
  beforeAll(async () => {
    run = await runJest('lifetimes');
  }, 240_000);
  const failed = (): string[] => [...run.failures].filter(([, failures]) => failures.length > 0).map(([title]) => title);

  test('fails only in the tests under which the machine broke; the others find a machine that works', () => {
    expect(failed()).toEqual(['the guest panics, and the test itself passes', 'QEMU is killed']);
    expect(run.exitCode).toBe(1);
  });

  test('a panic fails the test under which it happened, though its assertions passed', () => {
    const [text = ''] = run.failures.get('the guest panics, and the test itself passes') ?? [];
    expect(text).toMatch(/^GuestFault: the guest kernel reported: Kernel panic - not syncing: sysrq triggered crash/);
    expect(text).toMatch(/\n {2}repro: .*qemu-system-x86_64/);
  });

  test('a panic is a failure, and a QEMU that died an error', () => {
    expect(run.record.counts).toMatchObject({ failed: 1, errored: 1 });
    expect(run.record.tests.filter(({ outcome }) => outcome !== 'passed').map(({ outcome, errors }) => [outcome, errors[0]?.name])).toEqual([
      ['failed', 'GuestFault'], ['errored', 'MachineExitError'],
    ]);
    expect(run.text).toMatch(/rootport: \d+ passed, 1 failed, 1 errored\n {2}failed .* the guest panics/);
  });

  test('an error is told once: not by the test and again by the clean-up', () => {
    expect(run.failures.get('QEMU is killed')).toHaveLength(1);
  });
});

test('fresh: \'test\' restores a machine for every test from one boot', async () => {
  const run = await runJest('fresh-each');
  expect([...run.failures.values()]).toEqual([[], []]);
  expect(run.exitCode).toBe(0);
}, 180_000);

describe('fresh: \'never\', and a retry', () => {
  let run: ChildRun;
  let report: RunReport;
  beforeAll(async () => {
    const directory = mkdtempSync(join(tmpdir(), 'fresh-never-'));
    try {
      run = await runJest('fresh-never', { ROOTPORT_RETRIES: '1', ROOTPORT_REPORT: directory });
      report = parseReport(readFileSync(join(directory, 'report.json'), 'utf8'), 'report.json');
    } finally {
      rmSync(directory, { recursive: true });
    }
  }, 180_000);

  test('one machine is booted for the file, and one more when it broke', () => {
    expect([...run.failures.values()]).toEqual([[], [], [], []]);
    expect(run.exitCode).toBe(0);
  });

  test('a test that failed and then passed is flaky, with both attempts, and counted as nothing else', () => {
    const [, , killed] = report.tests;
    expect(report.tests.map(({ status }) => status)).toEqual(['passed', 'passed', 'flaky', 'passed']);
    expect(killed?.attempts.map(({ outcome }) => outcome)).toEqual(['errored', 'passed']);
    expect(killed?.attempts[0]?.failures[0]?.summary).toContain('QEMU was killed by SIGKILL');
    expect(run.record.counts).toEqual({ passed: 3, failed: 0, errored: 0, flaky: 1, skipped: 0 });
    expect(run.record.tests.find(({ outcome }) => outcome === 'flaky')).toMatchObject({ test: 'QEMU is killed the first time', errors: [{ name: 'MachineExitError' }] });
    expect(run.text).toMatch(/flaky .*QEMU is killed the first time/);
  });
});

test('fresh: \'test\' with devices from the start boots for every test, and says why', async () => {
  const run = await runJest('fresh-devices');
  expect(run.exitCode).toBe(0);
  expect(run.record.counts).toMatchObject({ passed: 2 });
  expect(run.text).toContain('every test boots a machine of its own, for there can be no snapshot: of the devices that it boots with (edu), whose state may not be saved');
}, 180_000);

test('a warm that fails is the one error of every test, and no machine is had for another try', async () => {
  const { record, text } = await runJest('warm-fails');
  expect(record.tests.map(({ outcome, errors }) => [outcome, errors])).toEqual(Array.from({ length: 3 }, () => ['errored', [{ name: 'Error', summary: 'no such file' }]]));
  expect(text.match(/^warm \d+\.$/gm)).toEqual(['warm 1.']);
  expect(text).not.toContain('there can be no snapshot');
}, 180_000);

test('a machine that is used before it is booted is a UsageError that says where to use it', async () => {
  const { record, text } = await runJest('too-early');
  expect(record.counts).toMatchObject({ passed: 0, errored: 1 });
  expect(text).toContain('UsageError: vm.plug was used where no machine is running');
  expect(text).toContain('use it inside tests, or in hooks that are defined after useMachine was called');
}, 120_000);

test('within two seconds of a SIGKILL to Jest no worker, QEMU, directory or snapshot is left', async () => {
  const jest = startJest('endless');
  let text = '';
  const { qemu, directory } = await new Promise<{ qemu: number; directory: string }>((resolve, reject) => {
    jest.stderr?.on('data', (chunk: Buffer) => {
      text += chunk.toString();
      const match = /QEMU (\d+) in (\S+)\./.exec(text);
      if (match !== null) resolve({ qemu: Number(match[1]), directory: match[2] ?? '' });
    });
    jest.on('exit', () => reject(new Error(text)));
  });
  const worker = parentOf(qemu);
  expect(worker).not.toBe(jest.pid);
  expect(parentOf(worker)).toBe(jest.pid);
  const snapshots = (): string[] => readdirSync(tmpdir()).filter((name) => name.startsWith(`rootport-snapshot--${worker}-`));
  expect(snapshots()).toHaveLength(1);
  const killedAt = Date.now();
  jest.kill('SIGKILL');
  await pRetry(() => {
    for (const pid of [qemu, worker]) if (alive(pid)) throw new Error(`${pid} still runs`);
    if (existsSync(directory)) throw new Error(`${directory} is still there`);
    if (snapshots().length > 0) throw new Error('the snapshot is still there');
  }, { retries: 200, minTimeout: 20, factor: 1 });
  expect(Date.now() - killedAt).toBeLessThan(2000);
}, 120_000);

function parentOf(pid: number): number {
  return Number(/^PPid:\s*(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]);
}

function alive(pid: number): boolean {
  try {
    return !/^State:\s*Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
  } catch {
    return false;
  }
}
