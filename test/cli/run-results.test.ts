import { describe, expect, test } from '@jest/globals';
import { outcomesOf, parseOutcomes, tally, worst, type Outcome } from '../../src/cli/run-results.ts';

const failed = (...failureMessages: string[]) => ({ status: 'failed', failureMessages });
const again = { status: 'passed', failureMessages: [], invocations: 2 };
const other = (status: string) => ({ status, failureMessages: [] });
const outcome = (testResults: { status: string; failureMessages: string[] }[], more: object = {}): Outcome | undefined =>
  outcomesOf({ testResults: [{ testFilePath: '/p/a', testResults, ...more }] }).get('/p/a');

const ENVIRONMENT = 'EnvironmentError: setpriv cannot be started\n    at x';

describe('the outcome of a suite', () => {
  test.each([
    ['all tests passed', [other('passed'), other('passed')], 'passed'],
    ['a test passed when it was tried again', [again, other('passed')], 'flaky'],
    ['a test is flaky and another failed', [again, failed('Error: expect(received).toBe(expected)')], 'failed'],
    ['some passed and the rest were skipped', [other('passed'), other('pending')], 'passed'],
    ['a claim does not hold', [other('passed'), failed('Error: expect(received).toBe(expected)')], 'failed'],
    ['the guest\'s kernel faulted', [failed('GuestFault: the guest kernel reported: panic')], 'failed'],
    ['one test did not get as far as telling', [other('passed'), failed('DeadlineError: waited 5 s')], 'errored'],
    ['a test failed and says nothing', [failed()], 'errored'],
    ['every failure is the environment\'s', [other('passed'), failed(ENVIRONMENT), failed('SystemCallError: bind: EMFILE')], 'environment'],
    ['one failure is not the environment\'s', [failed(ENVIRONMENT), failed('GuestFault: panic')], 'failed'],
    ['one test failed of both', [failed(ENVIRONMENT, 'Error: x')], 'errored'],
    ['an error only quotes an EnvironmentError', [failed('Error: expected\nEnvironmentError: x')], 'errored'],
    ['all were skipped: none was asked for', [other('pending'), other('todo')], undefined],
  ] as const)('%s', (_condition, tests, expected) => {
    expect(outcome(tests.map((one) => ({ ...one, failureMessages: [...one.failureMessages] })))).toBe(expected);
  });

  test.each([
    ['a file that does not load errored', { message: 'Cannot find module ./x' }, 'errored'],
    ['one whose import finds that the host lacks something is the environment\'s', { message: '', stack: ENVIRONMENT }, 'environment'],
  ])('%s', (_condition, testExecError, expected) => {
    expect(outcome([], { testExecError, failureMessage: 'Test suite failed to run' })).toBe(expected);
  });

  test('a tear-down that failed after tests that passed is not passed', () => {
    expect(outcome([other('passed')].map((one) => ({ ...one, failureMessages: [] })), { testExecError: { message: 'Error: no' } })).toBe('errored');
  });
});

test('outcomes come through the pipe as they were, and an empty pipe is none', () => {
  const outcomes = new Map<string, Outcome>([['/p/a', 'passed'], ['/p/b', 'environment']]);
  expect(parseOutcomes(JSON.stringify([...outcomes]))).toEqual(outcomes);
  expect(parseOutcomes('')).toBeUndefined();
});

test.each([
  [['passed', 'passed'], 'passed'], [['flaky', 'passed'], 'flaky'], [['flaky', 'environment'], 'environment'], [['passed', 'environment'], 'environment'], [['environment', 'errored'], 'errored'],
  [['environment', 'failed', 'errored', 'passed'], 'failed'], [[], 'passed'],
] as [Outcome[], Outcome][])('the worst of %j is %s', (outcomes, expected) => {
  expect(worst(outcomes)).toBe(expected);
});

test('the tally counts the runs that a suite passed, and says which it did not', () => {
  const runs = (['passed', 'failed', 'passed', 'environment', 'failed'] as const)
    .map((one, index) => new Map<string, Outcome>([['/p/virtio-blk', one], ['/p/edu', 'passed'], ['/p/net', index === 1 ? 'flaky' : 'passed']]));
  expect(tally(runs, (file) => file.slice(3))).toBe([
    '  edu         5/5',
    '  net         4/5  flaky in run 2',
    '  virtio-blk  2/5  failed in run 2, 5; the host lacked something in run 4',
  ].join('\n'));
});
