import { describe, expect, test } from '@jest/globals';
import {
  BootError, DeadlineError, EnvironmentError, GuestCommandError, GuestFault, MachineExitError, ProtocolError, QmpError,
  RootportError, SystemCallError, UsageError,
} from '../src/errors.ts';

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

describe('the tree', () => {
  const each: [RootportError, readonly (new (...args: never[]) => Error)[], string][] = [
    [new UsageError('m'), [], 'm'],
    [new EnvironmentError('m'), [], 'm'],
    [new SystemCallError('bind /run/x', 'EADDRINUSE', 'in use'), [EnvironmentError], 'bind /run/x: EADDRINUSE (in use)'],
    [new BootError('m'), [], 'm'],
    [new DeadlineError('y', 999), [], 'waited 999 ms for y, and it did not happen'],
    [new MachineExitError('m', 1, undefined), [], 'm'],
    [new ProtocolError('m', { sent: 'a', received: 'b' }), [], 'm'],
    [new QmpError('stop', 'GenericError', 'no'), [ProtocolError], 'QMP stop: no (GenericError)'],
    [new GuestCommandError('ls', 2, undefined, '', ' no file\n'), [], 'in the guest, "ls" exited with 2:\nno file'],
    [new GuestFault('BUG: x', 'BUG: x'), [], 'the guest kernel reported: BUG: x\nBUG: x'],
  ];

  test.each(each.map(([error, ...rest]) => [error.constructor.name, error, ...rest] as const))('%s has its name, its parents and its summary', (name, error, parents, summary) => {
    for (const parent of [RootportError, Error, ...parents]) expect(error).toBeInstanceOf(parent);
    expect(error.name).toBe(name);
    expect(error.summary).toBe(summary);
    expect(error.message).toBe(summary);
  });

  test('an error of one kind is none of another', () => {
    const kinds = [UsageError, EnvironmentError, BootError, DeadlineError, MachineExitError, ProtocolError, GuestCommandError, GuestFault];
    for (const [error] of each) expect(kinds.filter((kind) => error instanceof kind)).toHaveLength(1);
  });
});

describe('a message', () => {
  test('has summary, hint, repro, QEMU\'s stderr and the console in this order, and says which are empty', () => {
    const error = new BootError('no', { hint: 'try again', context: { commandLine: 'qemu -x', consoleTail: '', stderr: 'a\nb\n' } });
    expect(error.message).toBe('no\n  hint: try again\n  repro: qemu -x\n  QEMU\'s stderr:\n    a\n    b\n  console tail: (empty)');
    expect(error.summary).toBe('no');
  });

  test('keeps its cause, and has none when none was given', () => {
    const cause = new Error('root');
    expect(new BootError('no', { cause }).cause).toBe(cause);
    expect('cause' in new BootError('no')).toBe(false);
  });

  test('on() gives back the error itself, and the first machine stays', () => {
    const error = new BootError('no');
    expect(error.on(context)).toBe(error);
    const message = error.message;
    error.on({ ...context, commandLine: 'another' });
    expect(error.message).toBe(message);
    expect(error.context).toBe(context);
  });

  test.each([[0, '0 ms'], [999, '999 ms'], [1000, '1 s'], [1549, '1.5 s'], [60_000, '60 s']])('a deadline of %d ms reads as %s', (ms, text) => {
    expect(new DeadlineError('y', ms).message).toContain(`waited ${text} for y`);
  });

  test('a guest command killed by a signal says which, and falls back on stdout where stderr is empty', () => {
    expect(new GuestCommandError('x', undefined, 'KILL', 'out\n', '').message).toBe('in the guest, "x" was killed by KILL:\nout');
  });
});
