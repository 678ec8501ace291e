// Honest failure: each suite here must fail, with the exit code, in the test and with the words that name what
// is wrong. Its controls, the same without the fault, must pass, or a failure would say nothing. They run
// in a child Jest on dist/, as a user's would: build first.
import { createHash } from 'node:crypto';
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from '@jest/globals';
import { parseReport, type RunReport } from '../../src/report/run-report.ts';
import { rootport } from '../cli/rootport.ts';
import { readCore } from '../machine/core-reader.ts';
import { machineDirectories, machineProcesses } from '../machine/nothing-left.ts';
import { runSuite, type ChildRun } from './child-jest.ts';

interface Failure {
  /** `failed`: what is under test is wrong. `errored`: the test did not get as far as telling. */
  readonly outcome: 'failed' | 'errored';
  /** All of them in the test's one failure message, as Jest shows it. */
  readonly says: readonly RegExp[];
  readonly saysNot?: readonly RegExp[];
}

/** A row of a witness table: `x` where it disagrees. */
const row = (mark: 'x' | ' ', witness: string, says: string): RegExp =>
  new RegExp(`^ *${mark === 'x' ? 'x +' : ''}${witness.replace(/[()/]/g, '\\$&')} +${says}`, 'm');

/** A row of a ledger: vector, then its counts. */
const ledgerRow = (mark: 'x' | ' ', counts: readonly (number | string)[], why: string | undefined): RegExp =>
  new RegExp(`^ *${mark === 'x' ? 'x +' : ''}${counts.join(' +')} .*${why === undefined ? '\\d' : `<- ${why}`}$`, 'm');

const suites: [string, string, Record<string, Failure>][] = [
  ['a device that drops one interrupt', 'dropped-interrupt', {
    'must fail: the interrupt of a read is dropped': {
      outcome: 'failed',
      says: [
        /toHaveDelivered/, /vector 1 exactly 1 of 0000:01:00\.0 \(virtio-blk in rp1\), since the mark/,
        ledgerRow('x', [1, 1, 0, 0], 'claimed: exactly 1; fired, and never sent'), / … and 1 that did not move$/m,
      ],
    },
  }],
  ['a device that fires the wrong vector', 'wrong-vector', {
    'must fail: queue 0 fires the vector of queue 1': {
      outcome: 'failed',
      says: [
        /toHaveDelivered/,
        ledgerRow('x', [1, 1, 0, 0], 'claimed: exactly 1; fired, and never sent'), ledgerRow('x', [2, 0, 1, 1], 'handled, and never fired'),
      ],
    },
  }],
  ['a vector that nobody claims, lost, astray or doubled', 'ledger', {
    'must fail: a vector has the message of another': {
      outcome: 'failed',
      says: [
        /vector 3 exactly 1 of /, ledgerRow('x', [1, 1, 'as 2', 0, 0], 'fired, and never handled'),
        ledgerRow('x', [2, 0, 'as 1', 1, 1], 'handled, and never fired'), ledgerRow(' ', [3, 1, 1, 1, 1], undefined),
      ],
    },
    'must fail: a vector is fired once and delivered twice': {
      outcome: 'failed',
      says: [/vector 3 exactly 1 of /, ledgerRow('x', [1, 1, 2, 2, 2], 'handled more often than fired'), ledgerRow(' ', [3, 1, 1, 1, 1], undefined)],
    },
    'must fail: a disk drops an interrupt of the queue that is not claimed': {
      outcome: 'failed',
      says: [/vector 2 exactly 1 of /, ledgerRow('x', [1, 1, 0, 0], 'fired, and never sent'), ledgerRow(' ', [2, 1, 1, 1], undefined)],
    },
  }],
  ['a BAR that lies about its size', 'lying-bar', {
    'must fail: a BAR of another size than the data sheet says': {
      outcome: 'failed',
      says: [
        /toHaveBar/, /BAR 2 of 0000:01:00\.0 \(ivshmem in rp\d\)/, row(' ', 'expected', 'mem64 +yes +0x100000 '),
        row(' ', 'guest: config space', 'mem64 +yes +- '),
        row('x', 'guest: kernel\'s resource', 'mem64 +yes +0x200000 .*<- size'),
        row('x', 'VMM: query-pci', 'mem64 +yes +0x200000 .*<- size'),
        row('x', 'VMM: info mtree', '- +- +0x200000 .*<- size'),
      ],
    },
  }],
  ['a driver whose remove() leaves an interrupt behind', 'irq-left-behind', {
    'must fail: a remove() that frees nothing leaves its interrupt': {
      outcome: 'failed',
      says: [
        /toLeaveNothingBehind/, /0000:01:00\.0 \(edu\), unplugged/,
        row(' ', 'VMM: DEVICE_DELETED', 'gone'), row(' ', 'VMM: query-pci', 'gone'),
        row(' ', 'guest: driver\'s remove()', 'gone +\\(leaky\\)'),
        row('x', 'guest: /proc/interrupts', 'left behind .*\\d+: +0 .*MSI.* leaky\\)'),
        row('x', 'guest: /proc/irq/\\d+', 'left behind'),
      ],
    },
    'must fail: the kernel warns of a remove() that frees nothing': {
      outcome: 'failed',
      says: [/toHaveCleanLog/, row('x', 'guest: dmesg', '1 .*WARNING: .*msi_device_data_release'), /the first report:\n.*cut here.*\n.*WARNING: .*msi_device_data_release/],
    },
  }],
  ['a guest that panics while the test\'s assertions hold', 'guest-panic', {
    'must fail: the kernel panics in the background': {
      outcome: 'failed',
      says: [
        /^GuestFault: the guest kernel reported: Kernel panic - not syncing: sysrq triggered crash$/m,
        /sysrq_handle_crash/, /end Kernel panic - not syncing/,
      ],
      saysNot: [/expect\(/],
    },
  }],
  ['a back end that completes no request', 'hanging-requests', {
    'must fail: a disk whose back end hangs is read': {
      outcome: 'errored',
      says: [/^DeadlineError: waited 3 s for "dd if=\/dev\/vda .*" to end in the guest, and it did not happen$/m],
    },
  }],
  ['a back end that does not answer QEMU', 'hanging-connection', {
    'must fail: a disk whose back end hangs is plugged': {
      outcome: 'errored',
      says: [
        /^DeadlineError: waited 6 s for QEMU's answer to device_add of vhost-user-blk-pci \(virtio-blk in rp1\), and it did not happen$/m,
        /hint: QEMU stands still until the device's back end answers it/,
        /log of the devices' back ends:\n +dev\d: vhost-user: a front end connected, and is never answered\n/,
      ],
    },
  }],
];

const reports = mkdtempSync(join(tmpdir(), 'failing-'));
afterAll(() => rmSync(reports, { recursive: true }));

/** Those that keep the guests of their failure, for the tests below. */
const KEEPING = ['hanging-requests', 'guest-panic', 'lying-bar'];
const runs = new Map<string, Promise<ChildRun>>();

function runOnce(name: string): Promise<ChildRun> {
  const run = runs.get(name) ?? runSuite(name, { ROOTPORT_REPORT: join(reports, name), ROOTPORT_KEEP_STATES: KEEPING.includes(name) ? '1' : '0' });
  runs.set(name, run);
  return run;
}

test.each(suites)('%s fails its suite, and nothing else does', async (_, name, failures) => {
  const { pid, exitCode, tests, record, terminal } = await runOnce(name);
  expect(exitCode).toBe(1);

  const wanted = new Map(tests.map(({ title }) => [title, title in failures ? 'failed' : 'passed']));
  expect(new Map(tests.map(({ title, status }) => [title, status]))).toEqual(wanted);
  expect(tests.filter(({ status }) => status === 'failed').map(({ title }) => title).sort()).toEqual(Object.keys(failures).sort());
  expect(tests.some(({ title, status }) => title.startsWith('control: ') && status === 'passed')).toBe(true);

  for (const [title, { outcome, says, saysNot = [] }] of Object.entries(failures)) {
    const messages = tests.find((one) => one.title === title)?.failureMessages ?? [];
    expect(messages).toHaveLength(1); // one fault, told once
    for (const words of says) expect(messages[0]).toMatch(words);
    for (const words of saysNot) expect(messages[0]).not.toMatch(words);
    expect(messages[0]).toContain(`-name rootport--${pid}-`); // the line to start it by hand, of this child's machine
    expect(record.tests.find((one) => one.test === title)?.outcome).toBe(outcome);
    expect(terminal).toContain(`${outcome.padEnd(7)}  suites/${name}.suite.ts > ${title}`);
  }

  expect(machineProcesses(`rootport--${pid}-`)).toEqual([]);
  expect(machineDirectories().filter((directory) => directory.includes(`-${pid}-`))).toEqual([]);
});

describe('the guest of a failure', () => {
  /** The folder of the one failed attempt, and what the report says of it. */
  async function failureOf(name: string): Promise<{ folder: string; report: RunReport; terminal: string }> {
    const { terminal } = await runOnce(name);
    const report = parseReport(readFileSync(join(reports, name, 'report.json'), 'utf8'), 'report.json');
    const [folder = ''] = report.tests.flatMap(({ attempts }) => attempts.flatMap((one) => one.folder ?? []));
    return { folder: join(reports, name, folder), report, terminal };
  }

  /** What is in a folder, and when it was written. */
  const looksOf = (folder: string): string[] => readdirSync(folder).sort().map((name) => {
    const path = join(folder, name), { mode, size, mtimeMs } = statSync(path);
    return `${name} ${(mode & 0o777).toString(8)} ${size} ${mtimeMs} ${createHash('sha256').update(readFileSync(path)).digest('hex')}`;
  });

  test('whose disk hangs is alive again in rootport shell --from, with what hung, and its folder stays as it was', async () => {
    const { folder, report, terminal } = await failureOf('hanging-requests');
    expect(terminal).toMatch(/the guest as it was: rootport shell --from .*failures\/hanging-requests-/);
    expect(report.tests.flatMap(({ attempts }) => attempts.flatMap(({ machines }) => machines.flatMap(({ state }) => state ?? [])))).toHaveLength(1);
    expect(readFileSync(join(folder, 'state.txt'), 'utf8')).toContain(`rootport shell --from ${folder}`);
    const before = looksOf(join(folder, 'state'));
    expect(before.map((line) => line.split(' ').slice(0, 2).join(' '))).toEqual(['console 600', 'memory 600', 'scene.json 600', 'snapshot.json 600', 'state 600']);
    expect(statSync(join(folder, 'state')).mode & 0o777).toBe(0o700);

    const { exitCode, stdout, stderr } = await rootport(['shell', '--from', folder], {
      input: 'ps -o stat,args | grep "[d]d if"; cat /sys/block/vda/size; dmesg | grep "rootport: test"; grep " linux_banner$" /proc/kallsyms; cat /proc/version; exit 7\n',
    });
    const [task, sectors, mark, symbol = '', version = ''] = stdout.split('\n');
    expect([exitCode, task, sectors, mark]).toEqual([7, expect.stringMatching(/^D .*dd if=\/dev\/vda of=\/dev\/null/), '2048', expect.stringContaining('rootport: test 2: must fail: ')]);
    expect(stderr).toContain('the back end of dev0 (virtio-blk in rp1) is not here: its requests will hang');

    // Opened again, for its memory: the kernel's own greeting lies where the kernel said.
    const core = join(reports, 'core');
    expect(await rootport(['shell', '--from', folder, '--core', core])).toMatchObject({ exitCode: 0, stdout: '', stderr: expect.stringMatching(/core of the guest: .*core, \d+ MiB/) });
    const { notes, at } = readCore(core);
    expect(notes.map(({ name, type }) => `${name} ${type}`)).toEqual(expect.arrayContaining(['CORE 1', 'QEMU 0']));
    const physical = Number(BigInt(`0x${symbol.split(' ')[0]}`) - 0xffffffff80000000n);
    expect(at(physical, 14).toString('latin1')).toBe('Linux version ');
    expect(at(physical, version.length).toString('latin1')).toBe(version);
    expect(statSync(core).mode & 0o777).toBe(0o600);
    expect(looksOf(join(folder, 'state'))).toEqual(before);
  });

  test('whose kernel panicked is there for QEMU\'s monitor, and why it is not for a shell is said', async () => {
    const { folder } = await failureOf('guest-panic');
    const { exitCode, stdout, stderr } = await rootport(['shell', '--from', folder], { input: 'info status\ninfo registers\nno-such-command\nquit\ninfo status\n' });
    expect(exitCode).toBe(0);
    expect(stdout).toMatch(/^VM status: paused\n[^]*RIP=ffffffff[^]*unknown command: 'no-such-command'/);
    expect(stdout.match(/VM status/g)).toHaveLength(1);
    expect(stderr).toMatch(/it was kept after: the guest kernel reported: .*\n.*its kernel has panicked, and answers nobody: .*Kernel panic - not syncing: sysrq triggered crash/);
  });

  test('that could not be kept has the reason in its folder, and from the command', async () => {
    const { folder, terminal } = await failureOf('lying-bar');
    const reason = 'The machine\'s state was not kept: nothing can stand in for the back end of dev0 (ivshmem in rp';
    expect(readFileSync(join(folder, 'state.txt'), 'utf8')).toContain(reason);
    expect(readdirSync(folder)).not.toContain('state');
    expect(terminal).not.toContain('shell --from');
    expect(await rootport(['shell', '--from', folder])).toMatchObject({ exitCode: 2, stderr: expect.stringContaining(reason) });
  });

  test.each([
    [['--qemu', '7.2'], 'the machine was kept with QEMU 10'], [['edu', '--cpus', '2'], 'edu, --cpus with --from: the machine is as it was'],
  ])('is refused with %j', async (args, message) => {
    const { folder } = await failureOf('hanging-requests');
    expect(await rootport(['shell', '--from', folder, ...args])).toMatchObject({ exitCode: 2, stderr: expect.stringContaining(message) });
  });
});
