import { describe, expect, test } from '@jest/globals';
import { BootError, DeadlineError, GuestFault } from '../src/errors.ts';

const context = { commandLine: 'qemu -x', consoleTail: 'last words', stderr: '' };

describe('what Jest and Node print of an error, its stack', () => {
  test('begins with the class, the message and the hint', () => {
    expect(new BootError('no', { hint: 'try again' }).stack).toMatch(/^BootError: no\n {2}hint: try again\n {4}at /);
  });

  test('takes on the machine that is added later, once, before its frames', () => {
    const error = new DeadlineError('an answer', 1500).on(context).on({ ...context, commandLine: 'another' });
    expect(error.stack).toMatch(/^DeadlineError: waited 1\.5 s for an answer, and it did not happen\n {2}repro: qemu -x\n/);
    expect(error.stack).toMatch(/console tail:\n {4}last words\n {4}at /);
    expect(error.stack).not.toContain('another');
  });

  test('keeps a report of several lines whole', () => {
    const error = new GuestFault('BUG: x', 'BUG: x\n Call Trace:\n  f+0x1');
    expect(error.stack).toMatch(/^GuestFault: the guest kernel reported: BUG: x\nBUG: x\n Call Trace:\n {2}f\+0x1\n {4}at /);
  });
});
