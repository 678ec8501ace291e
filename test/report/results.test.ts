import { describe, expect, test } from '@jest/globals';
import { BootError, DeadlineError, GuestFault } from '../../src/errors.ts';
import { failureOf, outcomeOf, recordOf } from '../../src/report/results.ts';

function stackOf(work: () => void): string {
  try {
    work();
  } catch (error) {
    return (error as Error).stack ?? '';
  }
  throw new Error('it passed');
}

describe('what a test failed with', () => {
  test('is a failure when it is an assertion of Jest, coloured or not', () => {
    expect(failureOf(stackOf(() => expect(1).toBe(2)))).toMatchObject({ name: 'AssertionError', outcome: 'failed' });
    expect(failureOf('Error: \x1b[2mexpect(\x1b[22mreceived).toBe()')).toMatchObject({ outcome: 'failed', summary: 'expect(received).toBe()' });
    expect(failureOf('Error: expect(fn).toHaveBar()\n\nBAR 0 of x\n  table\n    at f')).toMatchObject({ summary: 'expect(fn).toHaveBar(): BAR 0 of x' });
    expect(failureOf('Error: expect(fn).toBe()\n    at f')).toMatchObject({ summary: 'expect(fn).toBe()' });
  });

  test('is a failure when it is an assertion of Node', () => {
    expect(failureOf('AssertionError [ERR_ASSERTION]: 1 !== 2\n    at x')).toEqual({ name: 'AssertionError', outcome: 'failed', summary: '1 !== 2' });
  });

  test('is a failure when the guest\'s kernel faulted', () => {
    expect(failureOf(new GuestFault('BUG: x', 'BUG: x').stack ?? '')).toMatchObject({ name: 'GuestFault', outcome: 'failed', summary: 'the guest kernel reported: BUG: x' });
  });

  test.each([
    [new BootError('no'), 'BootError'], [new DeadlineError('it', 100), 'DeadlineError'], [new TypeError('x'), 'TypeError'], [new Error('x'), 'Error'],
  ])('is an error when it is anything else: %s', (error, name) => {
    expect(failureOf(error.stack ?? '')).toMatchObject({ name, outcome: 'errored' });
  });

  test('is an error when the test took too long', () => {
    expect(outcomeOf(['Error: thrown: "Exceeded timeout of 5000 ms for a test."'])).toBe('errored');
  });

  test('is a failure when one of several is', () => {
    expect(outcomeOf([new BootError('no').stack ?? '', stackOf(() => expect(1).toBe(2))])).toBe('failed');
  });
});

test('the record counts outcomes', () => {
  const entry = { file: 'a.suite.ts', durationMs: 1, errors: [] };
  const record = recordOf(new Date(0), [
    { ...entry, test: 'one', outcome: 'passed' },
    { ...entry, test: 'two', outcome: 'failed', errors: [{ name: 'GuestFault', summary: 'oops' }] },
    { ...entry, test: '', outcome: 'errored', errors: [{ name: 'SyntaxError', summary: 'x' }] },
  ]);
  expect(record.counts).toEqual({ passed: 1, failed: 1, errored: 1, flaky: 0, skipped: 0 });
});
