// What reports say, by recordings of real guests and by texts written after the kernel's sources
// (test/fixtures/README.md), and reports whose lines stand among each other's.
import { readFileSync } from 'node:fs';
import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { formatFrame, frameOf, isInfrastructure } from '../../src/guest/kernel-frames.ts';
import { KernelLog, type KernelReport } from '../../src/guest/kernel-log.ts';

const recorded = (name: string): string => readFileSync(new URL(`../fixtures/kernel-log/${name}.txt`, import.meta.url), 'utf8');
const written = (name: string): string => readFileSync(new URL(`../fixtures/kernel-written/${name}.txt`, import.meta.url), 'utf8');

function reportsOf(text: string): KernelReport[] {
  const log = new KernelLog();
  log.push(text);
  log.flush();
  return [...log.reports];
}
const guiltOf = ({ kind, guilty, module, cpu, pid, comm }: KernelReport): unknown[] =>
  [kind, guilty === undefined ? undefined : formatFrame(guilty), module, cpu, pid, comm];

describe('the guilty function, its module, the CPU and the task', () => {
  test.each([
    ['null', ['oops', 'f_init.isra.0+0x47/0xf96 [faults]', 'faults', 0, 85, 'busybox']],
    ['warn', ['warning', 'f_init.isra.0+0xdf/0xf96 [faults]', 'faults', 0, 85, 'busybox']],
    ['atomic', ['atomic-sleep', 'f_init.isra.0+0x332/0xf96 [faults]', 'faults', 0, 85, 'busybox']],
    ['doublefree', ['bug', 'f_init.isra.0+0x2c8/0xf96 [faults]', 'faults', 0, 85, 'busybox']],
    ['freeirq', ['warning', 'f_init.isra.0+0x289/0xf4a [faults]', 'faults', 0, 85, 'busybox']],
    ['hung', ['hung-task', 'sleeper+0x1b/0x30 [faults]', 'faults', undefined, 86, 'hungthread']],
    ['irqleak', ['irq-leak', 'm_init+0xa/0x1000 [faults]', 'faults', 0, 85, 'busybox']],
    ['nobody', ['irq-nobody-cared', 'none [faults]', 'faults', 0, 0, 'swapper/0']],
    ['panic', ['panic', 'f_init.isra.0+0x34/0xf96 [faults]', 'faults', 0, 85, 'busybox']],
    ['sysrqc', ['panic', 'sysrq_handle_crash+0x16/0x20', undefined, 0, 1, 'init']],
    ['slub-overrun', ['slab', 'f_init.isra.0+0x310/0xf4a [faults]', 'faults', 0, 85, 'busybox']],
    ['sysfs', ['warning', 'f_init.isra.0+0x18d/0xf96 [faults]', 'faults', 0, 85, 'busybox']],
    ['6.12-gpf', ['oops', 'f_init.isra.0+0x27d/0x520 [faults]', 'faults', 0, 139, 'busybox']],
    ['6.12-irqleak', ['irq-leak', 'm_init+0xe/0xff0 [faults]', 'faults', 0, 139, 'busybox']],
  ])('of the recording %s: %j', (name, guilt) => {
    const [report] = reportsOf(recorded(name));
    expect(report === undefined ? undefined : guiltOf(report)).toEqual(guilt);
    expect(report?.entangled).toBe(false);
  });

  test('of a soft lockup and of an RCU stall is the spinning thread, on its CPU', () => {
    const spinning = reportsOf(recorded('soft')).filter(({ kind }) => kind === 'soft-lockup' || kind === 'rcu-stall');
    expect(spinning.length).toBeGreaterThan(2);
    for (const report of spinning) expect(guiltOf(report).slice(1)).toEqual(['spinner+0x10/0x35 [faults]', 'faults', 1, 92, 'spinthread']);
  });

  test.each([
    ['kasan', ['kasan', 'mydrv_read+0x5a/0x90 [mydrv]', 'mydrv', 1, 214, 'insmod'], true],
    ['kasan-memcpy', ['kasan', 'mydrv_fill+0x33/0x60 [mydrv]', 'mydrv', 1, 214, 'insmod'], false],
    ['kfence', ['kfence', 'mydrv_read+0x5a/0x90 [mydrv]', 'mydrv', 1, 214, 'insmod'], true],
    ['kmsan', ['kmsan', 'mydrv_check+0x41/0x70 [mydrv]', 'mydrv', 1, 214, 'insmod'], false],
    ['kcsan', ['kcsan', 'mydrv_count [mydrv]', 'mydrv', 1, 214, 'insmod'], false],
    ['ubsan', ['ubsan', 'mydrv_index+0x2e/0x40 [mydrv]', 'mydrv', 1, 214, 'insmod'], false],
    ['lockdep-circular', ['lockdep', 'mydrv_ba+0x1d/0x40 [mydrv]', 'mydrv', 1, 214, 'insmod'], false],
    ['hard-lockup', ['hard-lockup', 'mydrv_twice+0x24/0x40 [mydrv]', 'mydrv', 1, 214, 'insmod'], false],
    ['sleeping', ['atomic-sleep', 'mydrv_atomic+0x18/0x30 [mydrv]', 'mydrv', 1, 214, 'insmod'], false],
    ['rcu-remote', ['rcu-stall', 'mydrv_spin+0x10/0x35 [mydrv]', 'mydrv', 1, 214, 'insmod'], false],
  ])('of %s, as the kernel\'s sources print it: %j; freed memory: %s', (name, guilt, useAfterFree) => {
    const reports = reportsOf(written(name));
    expect(reports.map(guiltOf)).toEqual([guilt]);
    expect(reports[0]).toMatchObject({ useAfterFree, ended: true, complete: true });
  });

  test('stacks of who allocated and who freed are not the report\'s own', () => {
    const [report] = reportsOf(written('kasan'));
    expect(report?.frames.map((frame) => frame.function)).not.toContain('mydrv_free');
    expect(report?.frames.map((frame) => frame.function)).toContain('mydrv_init');
  });

  test('another caller\'s message is not part of a report, and the CPU that it asked for is', () => {
    const [report] = reportsOf(written('rcu-remote'));
    expect(report?.lines.some((line) => line.includes('link up'))).toBe(false);
    expect(report?.lines.some((line) => line.includes('NMI backtrace for cpu 1'))).toBe(true);
  });

  test('the place of a WARN and of a BUG, in the kernel\'s words', () => {
    expect(reportsOf(recorded('warnmsg'))[0]?.source).toEqual({ file: '/build/faults.c', line: 25 });
    expect(reportsOf(recorded('6.12-bug'))[0]?.source).toEqual({ file: '/build/faults.c', line: 47 });
    expect(reportsOf(written('ubsan'))[0]?.source).toEqual({ file: '/build/mydrv.c', line: 41 });
    expect(reportsOf(recorded('null'))[0]?.source).toBeUndefined();
  });

  test('a reference count and a list have kinds of their own, however the kernel words them', () => {
    const cut = '[ 1.000000] ------------[ cut here ]------------\n';
    const [refcount] = reportsOf(`${cut}[ 1.000001] refcount_t: underflow; use-after-free.\n[ 1.000002] WARNING: CPU: 1 PID: 9 at lib/refcount.c:28 refcount_warn_saturate+0xba/0x110\n` +
      '[ 1.000003] Call Trace:\n[ 1.000004]  <TASK>\n[ 1.000005]  put_it+0x5/0x10 [mydrv]\n[ 1.000006]  </TASK>\n[ 1.000007] ---[ end trace 0000000000000000 ]---\n');
    expect(refcount).toMatchObject({ kind: 'refcount', fatal: false, complete: true, useAfterFree: true, guilty: { function: 'put_it', module: 'mydrv' } });
    const lists = reportsOf(`[ 1.000000] list_del corruption, ffff8880->next is LIST_POISON1 (dead000000000100)\n${cut}[ 1.000001] kernel BUG at lib/list_debug.c:56!\n` +
      '[ 1.000002] invalid opcode: 0000 [#1] PREEMPT SMP NOPTI\n[ 1.000003] RIP: 0010:__list_del_entry_valid.cold+0x1d/0x47\n[ 1.000004] Call Trace:\n[ 1.000005]  drop_it+0x5/0x10 [mydrv]\n[ 1.000006] ---[ end trace 0 ]---\n');
    expect(lists).toMatchObject([{ kind: 'list-corruption', fatal: true, complete: true, useAfterFree: true, title: expect.stringMatching(/^list_del corruption/), guilty: { function: 'drop_it' } }]);
  });
});

describe('frames', () => {
  test('are read with module, build id and what the unwinder thinks of them, and printed as they came', () => {
    expect(frameOf(' ? foo.part.0+0x1a/0x2b [my_mod 0123456789abcdef]')).toEqual({
      symbol: 'foo.part.0', function: 'foo', offset: 0x1a, size: 0x2b, module: 'my_mod', reliable: false, returned: true,
    });
    expect(frameOf(' 0xffffffffc0206000')).toBeUndefined();
    expect(formatFrame(frameOf('f_init.isra.0+0x47/0xf96 [faults]') as never)).toBe('f_init.isra.0+0x47/0xf96 [faults]');
  });

  test('of a module are never infrastructure, whatever they are called', () => {
    expect(isInfrastructure(frameOf('kfree+0x1/0x2') as never)).toBe(true);
    expect(isInfrastructure(frameOf('kfree+0x1/0x2 [mydrv]') as never)).toBe(false);
  });
});

/** The report's own lines of a recording: from its first to where it ended. */
function linesOf(name: string): string[] {
  const [report] = reportsOf(recorded(name));
  const lines = [...report?.lines ?? []];
  return lines;
}
const NAMES = ['null', 'warn', 'warnmsg', 'page', 'bug', 'atomic', 'freeirq', 'irqleak', 'hung', 'slub-overrun', '6.12-null', '6.12-warnmsg', '6.12-irqleak', 'nobody'] as const;
const withCaller = (lines: readonly string[], caller: string): string[] => lines.map((line) => line.replace(/^(\[ *[\d.]+\]) /, `$1[${caller.padStart(6)}] `));
/** Both in their order, drawn by `takes`: true is the first's. */
function merged(first: readonly string[], second: readonly string[], takes: readonly boolean[]): string[] {
  const out: string[] = [];
  let a = 0, b = 0;
  for (const take of takes) {
    const line = take ? first[a++] : second[b++];
    if (line !== undefined) out.push(line);
  }
  return [...out, ...first.slice(a), ...second.slice(b)];
}
const plain = (report: KernelReport): unknown => ({ kind: report.kind, title: report.title, lines: [...report.lines], guilt: guiltOf(report), complete: report.complete });
const sorted = (reports: readonly KernelReport[]): unknown[] => reports.map(plain).sort((a, b) => (JSON.stringify(a) < JSON.stringify(b) ? -1 : 1));

describe('two reports at once', () => {
  test('by any interleaving of lines are the same two reports where the kernel names the caller', () => {
    fc.assert(fc.property(fc.constantFrom(...NAMES), fc.constantFrom(...NAMES), fc.array(fc.boolean(), { maxLength: 140 }), (one, other, takes) => {
      const first = withCaller(linesOf(one), 'T85'), second = withCaller(linesOf(other), 'C1');
      const apart = [...reportsOf(first.join('\n')), ...reportsOf(second.join('\n'))];
      expect(sorted(reportsOf(merged(first, second, takes).join('\n')))).toEqual(sorted(apart));
    }), { numRuns: 100 });
  });

  test('one whole inside another, at any line, are two whole reports without any word of whose the lines are', () => {
    const inner = linesOf('warnmsg').map((line) => line.replace('CPU: 0 PID: 85', 'CPU: 1 PID: 7'));
    const innerAlone = reportsOf(inner.join('\n'));
    for (const name of ['null', 'warn', 'irqleak', '6.12-null', 'hung', 'freeirq'] as const) {
      const outer = linesOf(name);
      const heads = outer.findIndex((line) => /WARNING: |BUG: |INFO: /.test(line)) + 1;
      for (let at = heads; at < outer.length; at++) {
        const reports = reportsOf([...outer.slice(0, at), ...inner, ...outer.slice(at)].join('\n'));
        expect([at, ...sorted(reports)]).toEqual([at, ...sorted([...reportsOf(outer.join('\n')), ...innerAlone])]);
        expect(reports.every(({ entangled }) => entangled)).toBe(true);
      }
    }
  });

  test('line by line of two CPUs, without any word of whose they are, keep kind, title, task and guilty function', () => {
    // Frames of two traces at once differ by nothing, so lines may be swapped: `entangled` says so.
    const first = linesOf('warn'), second = linesOf('irqleak').map((line) => line.replace('CPU: 0 PID: 85', 'CPU: 1 PID: 91'));
    const gist = (reports: readonly KernelReport[]): unknown[] => reports.map(({ kind, title, cpu, pid, source, guilty }) =>
      JSON.stringify({ kind, title, cpu, pid, source, guilty: kind === 'warning' ? guilty : undefined })).sort();
    const apart = gist([...reportsOf(first.join('\n')), ...reportsOf(second.join('\n'))]);
    fc.assert(fc.property(fc.array(fc.boolean(), { minLength: 60, maxLength: 90 }), (takes) => {
      const head = [...first.slice(0, 2), ...second.slice(0, 3)];
      const lines = [...head, ...merged(first.slice(2), second.slice(3), takes)];
      const reports = reportsOf(lines.join('\n'));
      expect(gist(reports)).toEqual(apart);
      expect(reports.every(({ entangled }) => entangled)).toBe(true);
      expect(reports.flatMap(({ lines: own }) => own).sort()).toEqual([...first, ...second].sort());
    }), { numRuns: 100 });
  });

  test('as two CPUs of a real guest printed them are two whole ones', () => {
    const reports = reportsOf(recorded('both-warn'));
    expect(reports.map(({ title, cpu, pid, comm, guilty, entangled, complete }) => [title, cpu, pid, comm, guilty?.function, entangled, complete])).toEqual([
      ['crash: both, one', 0, 108, 'crash-one', 'crash_both_warn', true, true],
      ['crash: both, two', 1, 109, 'crash-two', 'crash_both_warn', true, true],
    ]);
    expect(reports.map(({ lines }) => lines.length)).toEqual([25, 25]);
  });

  test('as two CPUs printed them whose "cut here" both came first, each has its own message and place', () => {
    const reports = reportsOf(recorded('both-warn-heads'));
    expect(reports.map(({ title, cpu, pid, comm, guilty, entangled }) => [title, cpu, pid, comm, guilty?.function, entangled])).toEqual([
      ['crash: both, two', 1, 112, 'crash-two', 'crash_both_warn', true],
      ['crash: both, one', 0, 111, 'crash-one', 'crash_both_warn', true],
    ]);
  });

  test('a report that was overtaken and is never ended closes when the kernel\'s clock has gone on', () => {
    const log = new KernelLog();
    log.push('[ 1.000000] BUG: scheduling while atomic: a/1/0x2\n[ 1.000001] Call Trace:\n');
    for (const line of linesOf('warn')) log.line(line.replace(/^\[ *[\d.]+\]/, '[ 1.000002]'));
    expect(log.reports.map(({ ended }) => ended)).toEqual([false, true]);
    log.push('[ 9.000000] WARNING: CPU: 0 PID: 1 at x.c:1 f+0x1/0x2\n[ 9.000001] y: hello\n');
    expect(log.reports.map(({ ended }) => ended)).toEqual([true, true, false]);
  });
});

test('details are read from any lines without an error, in time that grows with them', () => {
  const pieces = ['BUG: KCSAN: data-race in ', 'Call Trace:\n', ' f+0x1/0x2 [m]\n', 'RIP: 0010:', 'CPU: 1 PID: 2 Comm: ', 'handlers:\n', '[<0>] f', 'WARNING: ', ' at ', 'x'.repeat(60), ' ', '\n', ' by task ', 'on cpu 1:', '6b6b6b6b', 'INFO: task ', ' blocked', 'UBSAN: '];
  fc.assert(fc.property(fc.array(fc.constantFrom(...pieces), { maxLength: 60 }), (texts) => {
    for (const report of reportsOf(`[ 1.000000] BUG: ${texts.join('').replaceAll('\n', '\n[ 1.000000] ')}\n`)) expect(guiltOf(report)).toHaveLength(6);
  }), { numRuns: 100 });
  // What a line may cost does not grow with the square of its length: a name that never ends would show it.
  const lineOf = (piece: string): string => `[ 1.000000] BUG: KCSAN: ${piece.repeat(4000 / piece.length)}\n`;
  const from = performance.now();
  for (const report of reportsOf(pieces.map(lineOf).join('').repeat(10))) guiltOf(report);
  expect(performance.now() - from).toBeLessThan(2000);
});
