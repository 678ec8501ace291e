// Real crashes, by a module that goes wrong on request (crash/) and by sysrq: what the harness makes of each is its
// kind, the guilty function, and the line of the module's source. A test that wants a report says so; any
// other report fails the test under which it comes. Fatal ones cost the machine, so each has one of its own.
import { describe, expect, test } from '@jest/globals';
import { edu, parseKtap, q35, type KernelReport } from 'rootport';
import { expectKernelReport, expectKtap, useMachine } from 'rootport/jest';
import { goWrongIn, lineOf, MODULE, toldBy, warm } from './crash-module.ts';

const vm = useMachine({ machine: q35({ cpus: 2 }), warm });
const goWrong = (kind: string) => () => goWrongIn(vm, kind);
const told = (report: KernelReport): Promise<unknown> => toldBy(vm, report);

describe('a report that the kernel survives', () => {
  test('is told by its kind and where it stands, one after the other', async () => {
    for (const [name, title, kind, guilty] of [
      ['warn', /^crash: 3 vectors leaked/, 'warning', 'crash_warn'],
      ['refcount', /^refcount_t: addition on 0; use-after-free/, 'refcount', 'crash_refcount'],
      ['atomic', /^BUG: scheduling while atomic/, 'atomic-sleep', 'crash_atomic'],
      ['free_irq', /^Trying to free already-free IRQ 9/, 'warning', 'crash_free_irq'],
    ] as const) {
      const report = await expectKernelReport(title, goWrong(name));
      expect(await told(report)).toEqual({ kind, guilty, module: 'crash', at: `crash.c:${lineOf(name)}` });
      expect(report).toMatchObject({ fatal: false, comm: expect.any(String), cpu: expect.any(Number), pid: expect.any(Number) });
    }
  });

  test('two CPUs that warn at once are two reports, each with its CPU and its task', async () => {
    const two = expectKernelReport(/crash: both, two/);
    const one = await expectKernelReport(/crash: both, one/, goWrong('both'));
    const reports = [one, await two.report()];
    for (const report of reports) {
      expect(await told(report)).toEqual({ kind: 'warning', guilty: 'crash_both_warn', module: 'crash', at: `crash.c:${lineOf('both')}` });
    }
    expect(reports.map(({ cpu }) => cpu).sort()).toEqual([0, 1]);
    expect(new Set(reports.map(({ pid }) => pid)).size).toBe(2);
  });

  test('a CPU that RCU waits for, and that comes back', async () => {
    await vm.guest.run('echo 3 >/sys/module/rcupdate/parameters/rcu_cpu_stall_timeout');
    const report = await expectKernelReport(/^rcu: INFO: rcu_preempt (?:self-)?detected stalls? on CPU/, goWrong('stall'));
    expect(await told(report)).toEqual({ kind: 'rcu-stall', guilty: 'crash_staller', module: 'crash', at: expect.stringMatching(/^crash\.c:\d+$/) });
    expect(report.fatal).toBe(false);
    expect((await vm.guest.run('echo still here')).stdout).toBe('still here\n');
  });

  test('a line that stays up, and that no handler wants', async () => {
    const fn = await vm.plug(edu());
    const report = await expectKernelReport(/^irq \d+: nobody cared/, goWrong('nobody'), { timeoutMs: 30_000 });
    expect(await told(report)).toEqual({ kind: 'irq-nobody-cared', guilty: 'crash_ignores', module: 'crash', at: expect.stringMatching(/^crash\.c:\d+$/) });
    expect((await vm.guest.run(`cat ${fn.sysfs}/irq`)).stdout.trim()).toBe(/\d+/.exec(report.title)?.[0]);
  });

  test('a vector that goes while its handler is there', async () => {
    await vm.plug(edu());
    const report = await expectKernelReport(/^remove_proc_entry: removing non-empty directory 'irq\/\d+', leaking at least 'crash'/, goWrong('irq_leak'));
    expect(await told(report)).toEqual({ kind: 'irq-leak', guilty: 'crash_irq_leak', module: 'crash', at: `crash.c:${lineOf('irq_leak')}` });
  });
});

describe('a report that ends the machine', () => {
  test.each([
    ['null', /^BUG: kernel NULL pointer dereference/, 'oops', 'crash_null'],
    ['gpf', /^general protection fault, (?:maybe for address|probably for non-canonical address) 0x/, 'oops', 'crash_gpf'],
    ['panic', /^Kernel panic - not syncing: crash: on purpose/, 'panic', 'crash_panic'],
    ['bug', /^kernel BUG at .*crash\.c/, 'bug', 'crash_bug'],
    ['list', /^list_del corruption/, 'list-corruption', 'crash_list'],
    ['double_free', /^kernel BUG at mm\/slub\.c/, 'bug', 'crash_double_free'],
  ] as const)('%s', async (name, title, kind, guilty) => {
    const report = await expectKernelReport(title, goWrong(name));
    expect(report.fatal).toBe(true);
    expect(await told(report)).toEqual({ kind, guilty, module: 'crash', at: `crash.c:${lineOf(name)}` });
  });

  test('a thread that never wakes up', async () => {
    await vm.guest.run('echo 1 >/proc/sys/kernel/hung_task_timeout_secs');
    const report = await expectKernelReport(/task crash-sleeper:\d+ blocked for more than/, goWrong('hung'));
    expect(await told(report)).toEqual({ kind: 'hung-task', guilty: 'crash_sleeper', module: 'crash', at: `crash.c:${lineOf('hung')}` });
    expect(report.comm).toBe('crash-sleeper');
  });

  test('a thread that never lets go of its CPU', async () => {
    await vm.guest.run('echo 2 >/proc/sys/kernel/watchdog_thresh');
    const report = await expectKernelReport(/soft lockup - CPU#\d stuck/, goWrong('soft'), { timeoutMs: 60_000 });
    expect(await told(report)).toEqual({ kind: 'soft-lockup', guilty: 'crash_spinner', module: 'crash', at: expect.stringMatching(/^crash\.c:\d+$/) });
    expect(report.comm).toBe('crash-spinner');
  });

  test('sysrq: the guilty function is the kernel\'s, which has no line in Debian\'s kernels', async () => {
    const report = await expectKernelReport(/sysrq triggered crash/, () => vm.guest.run('echo c >/proc/sysrq-trigger'));
    expect(await told(report)).toEqual({ kind: 'panic', guilty: 'sysrq_handle_crash', module: undefined, at: 'the kernel has no debug information' });
  });

  test('after which there is a machine again, without any report', async () => {
    expect(vm.kernelLog.reports).toEqual([]);
    await expect(vm).toHaveCleanLog({ since: 'boot' });
  });
});

describe('the KTAP of a module', () => {
  const reload = async (ktap: number): Promise<string> => {
    await vm.guest.run('rmmod crash; dmesg -c >/dev/null');
    await vm.guest.loadModule(await vm.buildModule(MODULE), `ktap=${ktap}`);
    return vm.guest.dmesg();
  };

  test('is its subtests', async () => {
    const { tests, counts } = expectKtap(await reload(1));
    expect(tests.map(({ name, outcome, subtests }) => [name, outcome, subtests.map((one) => [one.name, one.outcome])])).toEqual([
      ['arithmetic', 'passed', [['adds', 'passed'], ['multiplies', 'skipped']]], ['loads', 'passed', []],
    ]);
    expect(counts).toEqual({ passed: 2, failed: 0, skipped: 1, 'expected-failure': 0 });
  });

  test('with a failure is an error that names the subtest and what it said', async () => {
    const log = await reload(2);
    expect(() => expectKtap(log)).toThrow('KTAP: 2 passed, 1 failed, 0 skipped\nnot ok arithmetic > multiplies\n  expected 4, got 5');
  });

  test('that is short of its plan is no pass', async () => {
    const log = await reload(3);
    expect(parseKtap(log).ok).toBe(false);
    expect(() => expectKtap(log)).toThrow('the plan of "arithmetic" says 3, and there are 2 results');
  });
});
