// Reports recorded from a real guest (test/fixtures/README.md), and what must not be taken for one.
import { readFileSync, readdirSync } from 'node:fs';
import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { faultOf } from '../../src/guest/kernel-fault.ts';
import { KernelLog } from '../../src/guest/kernel-log.ts';
import type { KernelReport } from '../../src/guest/kernel-log.ts';

const fixtures = new URL('../fixtures/kernel-log/', import.meta.url);
const recorded = (name: string): string => readFileSync(new URL(`${name}.txt`, fixtures), 'utf8');

function reportsOf(text: string): KernelReport[] {
  const log = new KernelLog();
  log.push(text);
  log.flush();
  return [...log.reports];
}

describe('reports of a real kernel', () => {
  const cases: [name: string, kind: string, fatal: boolean, title: string, last: RegExp][] = [
    ['panic', 'panic', true, 'Kernel panic - not syncing: rootport fixture: on purpose', /Kernel Offset: disabled/],
    ['sysrqc', 'panic', true, 'Kernel panic - not syncing: sysrq triggered crash', /Kernel Offset: disabled/],
    ['null', 'oops', true, 'BUG: kernel NULL pointer dereference, address: 0000000000000000', /---\[ end trace 0000000000000000 \]---$/],
    ['page', 'oops', true, 'BUG: unable to handle page fault for address: ffffc90000deaf00', /---\[ end trace/],
    ['gpf', 'oops', true, 'general protection fault, maybe for address 0x0: 0000 [#1] PREEMPT SMP NOPTI', /---\[ end trace/],
    ['bug', 'bug', true, 'kernel BUG at /build/faults.c:22!', /---\[ end trace/],
    ['doublefree', 'bug', true, 'kernel BUG at mm/slub.c:419!', /---\[ end trace/],
    ['warn', 'warning', false, 'WARNING: CPU: 0 PID: 85 at /build/faults.c:24 f_init.isra.0+0xdf/0xf96 [faults]', /---\[ end trace/],
    ['warnmsg', 'warning', false, 'fixture: 3 vectors leaked', /---\[ end trace/],
    ['freeirq', 'warning', false, 'Trying to free already-free IRQ 9', /---\[ end trace/],
    ['sysfs', 'warning', false, "sysfs: cannot create duplicate filename '/kernel/dup'", /<\/TASK>/],
    ['irqleak', 'irq-leak', false, "remove_proc_entry: removing non-empty directory 'irq/26', leaking at least 'fixture'", /---\[ end trace/],
    ['nobody', 'irq-nobody-cared', false, 'irq 22: nobody cared (try booting with the "irqpoll" option)', /Disabling IRQ #22$/],
    ['6.12-null', 'oops', true, 'BUG: kernel NULL pointer dereference, address: 0000000000000000', /---\[ end trace/],
    ['6.12-gpf', 'oops', true, 'Oops: general protection fault, maybe for address 0x0: 0000 [#1] PREEMPT SMP NOPTI', /---\[ end trace/],
    ['6.12-bug', 'bug', true, 'kernel BUG at /build/faults.c:47!', /---\[ end trace/],
    ['6.12-warnmsg', 'warning', false, 'fixture: 3 vectors leaked', /---\[ end trace/],
    ['6.12-irqleak', 'irq-leak', false, "remove_proc_entry: removing non-empty directory 'irq/26', leaking at least 'fixture'", /---\[ end trace/],
    ['slub-overrun', 'slab', true, 'BUG kmalloc-64 (Tainted: G           OE     ): Right Redzone overwritten', /<\/TASK>/],
    ['slub-doublefree', 'slab', true, 'BUG kmalloc-64 (Tainted: G           OE     ): Object already free', /<\/TASK>/],
  ];

  test.each(cases)('%s is one report of kind %s, fatal: %s', (name, kind, fatal, title, last) => {
    const reports = reportsOf(recorded(name));
    expect(reports.map((report) => [report.kind, report.title])).toEqual([[kind, title]]);
    expect(reports[0]).toMatchObject({ fatal, ended: true, complete: kind !== 'panic' });
    expect(reports[0]?.lines.at(-1)).toMatch(last);
    expect(reports[0]?.lines.join('\n')).toContain('Call Trace:');
    expect(reports[0]?.lines.join('')).not.toContain('\r');
  });

  test('scheduling while atomic is a fault that the kernel survives, and the warning after it is another report', () => {
    expect(reportsOf(recorded('atomic')).map(({ kind, fatal, title }) => [kind, fatal, title])).toEqual([
      ['atomic-sleep', false, 'BUG: scheduling while atomic: busybox/85/0x00000002'],
      ['warning', false, expect.stringMatching(/returned with preemption imbalance/)],
    ]);
  });

  test('an oops that ends in a panic is two reports, the oops first', () => {
    const reports = reportsOf(recorded('null-panic'));
    expect(reports.map(({ kind, title }) => [kind, title])).toEqual([
      ['oops', 'BUG: kernel NULL pointer dereference, address: 0000000000000000'],
      ['panic', 'Kernel panic - not syncing: Fatal exception'],
    ]);
  });

  test('each hung task is a report of its own', () => {
    const reports = reportsOf(recorded('hung'));
    expect(reports.length).toBe(recorded('hung').match(/INFO: task hungthread/g)?.length);
    expect(reports[0]).toMatchObject({ kind: 'hung-task', fatal: true, title: 'INFO: task hungthread:86 blocked for more than 3 seconds.', complete: true });
  });

  test('a spinning thread gives soft lockups, an RCU stall that is not fatal, and the tasks it starves', () => {
    const text = recorded('soft');
    const reports = reportsOf(text);
    const count = (kind: string): number => reports.filter((report) => report.kind === kind).length;
    expect(count('soft-lockup')).toBe(text.match(/soft lockup/g)?.length);
    expect(count('rcu-stall')).toBe(text.match(/rcu: INFO/g)?.length);
    expect(count('hung-task')).toBe(text.match(/INFO: task/g)?.length);
    expect(reports.every(({ complete }) => complete)).toBe(true);
    expect(reports.find(({ kind }) => kind === 'rcu-stall')?.fatal).toBe(false);
  });

  test('a whole boot without a fault, told at the highest level, has no report', () => {
    const text = recorded('clean-boot');
    expect(text).toContain('panic=-1');
    expect(reportsOf(text)).toEqual([]);
  });

  test('every recording says the same however it is cut into pieces', () => {
    for (const file of readdirSync(fixtures).filter((name) => name.endsWith('.txt') && name !== 'clean-boot.txt')) {
      const text = readFileSync(new URL(file, fixtures), 'utf8');
      const log = new KernelLog();
      for (let at = 0; at < text.length; at += 7) log.push(text.slice(at, at + 7));
      log.flush();
      const plain = (reports: readonly KernelReport[]): unknown => reports.map(({ kind, title, lines }) => ({ kind, title, lines: [...lines] }));
      expect(plain(log.reports)).toEqual(plain(reportsOf(text)));
    }
  });
});

describe('reports that no kernel at hand could make', () => {
  // Written after mm/kasan/report.c, lib/ubsan.c, locking/lockdep.c, arch/arm64/mm/fault.c and 6.18's panic.c, not recorded.
  test.each([
    ['BUG: KASAN: slab-use-after-free in rootport_remove+0x12/0x40 [probe]', 'kasan', true],
    ['BUG: KFENCE: out-of-bounds read in foo+0x1/0x2', 'kfence', true],
    ['UBSAN: array-index-out-of-bounds in drivers/x.c:12:3', 'ubsan', false],
    ['WARNING: possible circular locking dependency detected', 'lockdep', false],
    ['WARNING: suspicious RCU usage', 'lockdep', false],
    ['WARNING: drivers/pci/msi/msi.c:123 at pci_free+0x1/0x2, CPU#1: rmmod/99', 'warning', false],
    ['BUG: sleeping function called from invalid context at mm/slab.h:1', 'atomic-sleep', false],
    ['BUG: Bad page state in process insmod  pfn:01234', 'bug', true],
    ['divide error: 0000 [#1] PREEMPT SMP', 'oops', true],
    ['Unable to handle kernel NULL pointer dereference at virtual address 0000000000000008', 'oops', true],
    ['Internal error: Oops: 0000000096000004 [#1] SMP', 'oops', true],
    ['INFO: rcu_sched detected stalls on CPUs/tasks:', 'rcu-stall', false],
    ['watchdog: Watchdog detected hard LOCKUP on cpu 0', 'hard-lockup', true],
  ])('%s', (line, kind, fatal) => {
    expect(reportsOf(`[    1.000000] ${line}\n`)).toMatchObject([{ kind, fatal, title: line }]);
  });

  test('a KASAN report ends at its rule', () => {
    const log = new KernelLog();
    log.push(`[ 1.000000] ${'='.repeat(66)}\n[ 1.000001] BUG: KASAN: slab-out-of-bounds in f\n[ 1.000002] Read of size 4\n[ 1.000003] ${'='.repeat(66)}\n[ 1.000004] next\n`);
    expect(log.reports).toHaveLength(1);
    expect(log.reports[0]?.lines).toHaveLength(3);
    expect(log.open).toBeUndefined();
  });
});

describe('as it comes', () => {
  const lines = recorded('irqleak').split('\n').filter((line) => !line.includes('faults: '));

  test('a report is announced at the line that names it, before it ends', () => {
    const log = new KernelLog();
    const told: string[] = [];
    log.onStart(({ kind, ended }) => told.push(`start ${kind} ${String(ended)}`));
    log.onReport(({ kind, complete }) => told.push(`end ${kind} ${String(complete)}`));
    log.line(lines[0] ?? '');
    expect(told).toEqual([]);
    log.line(lines[1] ?? '');
    expect(told).toEqual(['start irq-leak false']);
    expect(log.open?.lines).toHaveLength(2);
    for (const line of lines.slice(2)) log.line(line);
    expect(told).toEqual(['start irq-leak false', 'end irq-leak true']);
  });

  test('flush ends a report whose end never comes, with what there is', () => {
    const log = new KernelLog();
    const ended: KernelReport[] = [];
    log.onReport((report) => ended.push(report));
    log.push('[    1.000000] Kernel panic - not syncing: half\r\n[    1.000001] CPU: 0 PI');
    expect(ended).toEqual([]);
    log.flush();
    expect(ended).toHaveLength(1);
    expect(ended[0]).toMatchObject({ ended: true, complete: false });
    expect(ended[0]?.lines).toEqual(['[    1.000000] Kernel panic - not syncing: half', '[    1.000001] CPU: 0 PI']);
    log.flush();
    expect(ended).toHaveLength(1);
  });

  test('a console that ends right after "cut here" still gives a warning', () => {
    const log = new KernelLog();
    log.push('[    1.000000] ------------[ cut here ]------------\n');
    expect(log.reports).toEqual([]);
    log.flush();
    expect(log.reports).toMatchObject([{ kind: 'warning', complete: false }]);
  });

  test('a panic inside an unfinished report ends that and begins its own', () => {
    const log = new KernelLog();
    log.push('[ 1.000000] INFO: task dd:1 blocked for more than 120 seconds.\n[ 1.000001] Call Trace:\n[ 1.000002] Kernel panic - not syncing: hung_task: blocked tasks\n');
    expect(log.reports.map(({ kind, ended }) => [kind, ended])).toEqual([['hung-task', true], ['panic', false]]);
  });

  test('listeners hear nothing after they are taken off', () => {
    const log = new KernelLog();
    let heard = 0;
    log.onStart(() => (heard += 1))();
    log.onReport(() => (heard += 1))();
    log.push('[ 1.000000] Kernel panic - not syncing: x\n');
    log.flush();
    expect(heard).toBe(0);
    expect(log.reports).toHaveLength(1);
  });

  test('the fault quotes title, guilty function and lines', () => {
    const [report] = reportsOf(recorded('null'));
    if (report === undefined) throw new Error('no report');
    const fault = faultOf(report);
    expect(fault.message).toContain('the guest kernel reported: BUG: kernel NULL pointer dereference');
    expect(fault.report).toMatch(/^guilty: f_init\.isra\.0\+0x\w+\/0x\w+ \[\w+\]\n/);
    expect(fault.report).toContain('RIP: 0010:f_init');
  });
});

describe('what is no report', () => {
  test.each([
    'Kernel command line: console=ttyS0 panic=-1 oops=panic',
    '---[ end Kernel panic - not syncing: Fatal exception ]---',
    'sysrq: HELP : loglevel(0-9) ... crash(c)',
    'traps: dd[12] general protection fault ip:47fbe9 sp:7ffca686f808 error:0 in busybox',
    'dd[12]: segfault at 0 ip 0000000000401136 sp 00007ffd error 6',
    'Spectre V2 : WARNING: Unprivileged eBPF is enabled with eIBRS on',
    'WARNING: The mand mount option has been deprecated',
    'ACPI BIOS Error (bug): Could not resolve symbol',
    'pci 0000:00:01.0: [Firmware Bug]: reg 0x10: invalid BAR',
    'rcu: Hierarchical RCU implementation.',
    'rcu: \tRCU CPU stall warnings',
    'echo "BUG: not mine"',
  ])('%s', (message) => {
    expect(reportsOf(`[    1.000000] ${message}\r\n${message}\r\n`)).toEqual([]);
  });

  test('user space that prints a report once the kernel has printed times', () => {
    expect(reportsOf('[    0.000000] Linux version 6.1\nKernel panic - not syncing: fake\nBUG: fake\nWARNING: CPU: 0 PID: 1 at x:1\n')).toEqual([]);
  });

  test('a kernel that prints no times is still heard, with a level before the line', () => {
    expect(reportsOf('Kernel panic - not syncing: a\n')).toMatchObject([{ kind: 'panic' }]);
    expect(reportsOf('<4>WARNING: CPU: 0 PID: 1 at x.c:1 f+0x1/0x2\n')).toMatchObject([{ kind: 'warning' }]);
  });

  test('a report that starts behind a prompt, with the caller of CONFIG_PRINTK_CALLER, is heard', () => {
    expect(reportsOf('~ # [   12.345678][  T123] Kernel panic - not syncing: a\n')).toMatchObject([{ title: 'Kernel panic - not syncing: a' }]);
  });
});

test('any text is taken without an error, in bounded space', () => {
  const pieces = fc.constantFrom(
    '[    1.000000] ', '------------[ cut here ]------------', 'BUG: ', 'WARNING: ', 'Kernel panic - not syncing', ' [#1]', ': 0000', '\n', '\r', '</TASK>', '---[ end trace', 'INFO: task ', '='.repeat(30),
  );
  fc.assert(fc.property(fc.array(fc.oneof(pieces, fc.string(), fc.string({ unit: 'binary' })), { maxLength: 25 }), (texts) => {
    const log = new KernelLog();
    for (const text of texts) log.push(text);
    log.flush();
    expect(log.open).toBeUndefined();
    expect(log.reports.every(({ ended, title }) => ended && title !== '')).toBe(true);
  }));
});

test('what is kept is bounded: reports, lines of a report, characters of a line', () => {
  const log = new KernelLog();
  log.push(`[ 1.000000] Kernel panic - not syncing: ${'x'.repeat(10_000)}\n`);
  for (let i = 0; i < 3000; i++) log.push('[ 1.000000] line\n');
  expect(log.reports[0]?.lines).toHaveLength(400);
  expect(log.reports[0]?.lines[0]).toHaveLength(4096);
  expect(log.open).toBeUndefined();
  for (let i = 0; i < 1000; i++) log.push(`[ 1.000000] Kernel panic - not syncing: ${i}\n`);
  expect(log.reports).toHaveLength(200);
  expect(log.reportsDropped).toBe(801);
});

test.each([': ', '[ 1.000000] ', ': 0000 [#', 'WARNING: CPU#', 'INFO: task for more than ', 'rcu: INFO: rcu detected '])('a megabyte of %j without a line end, then with them, takes no time', (piece) => {
  const log = new KernelLog();
  const startedMs = performance.now();
  log.push(`[ 1.000000] ${piece.repeat(2 ** 20 / piece.length)}`);
  log.push('\n');
  for (let i = 0; i < 50; i++) log.push(`[ 1.000000] ${piece.repeat(400)}\n`);
  log.flush();
  expect(performance.now() - startedMs).toBeLessThan(500);
});
