// Memory errors that the kernel finds by checks that a word on its command line switches on. KASAN, KCSAN, KMSAN, UBSAN,
// lockdep and the hard lockup's detector need a kernel that is built with them, which none of Debian's is, or a
// performance counter, which TCG has not: test/guest has those reports as the kernel's sources print them.
import { describe, expect, test } from '@jest/globals';
import { q35 } from 'rootport';
import { expectKernelReport, useMachine } from 'rootport/jest';
import { goWrongIn, lineOf, toldBy, warm } from './crash-module.ts';

describe('SLUB', () => {
  const vm = useMachine({ machine: q35({ ports: 1 }), append: ['slub_debug=FZ,kmalloc-64'], warm });

  test('a byte written behind a block is found when that is freed', async () => {
    const report = await expectKernelReport(/^BUG kmalloc-64 \(.*\): Right Redzone overwritten/, () => goWrongIn(vm, 'overrun'));
    expect(await toldBy(vm, report)).toEqual({ kind: 'slab', guilty: 'crash_overrun', module: 'crash', at: `crash.c:${lineOf('overrun')}` });
    expect(report).toMatchObject({ fatal: true, useAfterFree: false });
  });
});

describe('KFENCE', () => {
  const vm = useMachine({ kernel: '6.12', machine: q35({ ports: 1 }), append: ['kfence.sample_interval=1'], warm });

  test('a read of a freed block', async () => {
    const report = await expectKernelReport(/^BUG: KFENCE: use-after-free read in crash_freed/, () => goWrongIn(vm, 'freed'));
    expect(await toldBy(vm, report)).toEqual({ kind: 'kfence', guilty: 'crash_freed', module: 'crash', at: `crash.c:${lineOf('freed')}` });
    expect(report).toMatchObject({ fatal: true, useAfterFree: true });
  });
});
