// Kernel reports and the tests under which they come, from outside: a run of Jest whose tests must fail as they say.
import { beforeAll, expect, test } from '@jest/globals';
import { runJest, type ChildRun } from './child-jest.ts';

let run: ChildRun;
beforeAll(async () => {
  run = await runJest('kernel-reports');
}, 400_000);
const failureOf = (title: string): readonly string[] => {
  const failures = run.failures.get(title);
  if (failures === undefined) throw new Error(`no test ${title} in ${run.text}`);
  return failures;
};

test('exactly those tests fail that have a report nobody wanted, or wait for one that does not come', () => {
  const failed = [...run.failures].filter(([, failures]) => failures.length > 0).map(([title]) => title);
  expect(failed).toEqual([...run.failures.keys()].filter((title) => / fails\b/.test(title)));
  expect(run.failures.size).toBe(11);
});

test('an unwanted warning is a GuestFault that quotes it, once', () => {
  const failures = failureOf('a warning that nobody wants fails the test though its assertions passed');
  expect(failures).toHaveLength(1);
  expect(failures[0]).toMatch(/^GuestFault: the guest kernel reported: WARNING: CPU: 0 PID: 77 at drivers\/mine\.c:5 unwanted_probe/);
  expect(failures[0]).toContain('guilty: unwanted_probe+0x1/0x20');
  expect(failures[0]).toContain('hint: a report that the test is about is wanted by expectKernelReport');
});

test('of a wanted and an unwanted one the unwanted is told', () => {
  expect(failureOf('a wanted warning does not allow another, which fails the test')).toEqual([expect.stringMatching(/reported: WARNING: .*stray_probe/)]);
});

test('what did not come is named with what came instead', () => {
  expect(failureOf('a wanted report that never comes fails the test at its end')[0]).toContain('no report that matches /never_here/ came in the test; none came at all');
  expect(failureOf('a wanted report that does not come in time fails the wait and names what came')[0])
    .toMatch(/no report that matches \/never_here\/ came in 500 ms; what came instead:\n {2}warning: WARNING: .*instead_probe/);
  expect(failureOf('a report of another kind than the wanted fails')[0]).toMatch(/no report of kind oops that matches \/kind_probe\/ came in 500 ms; what came instead:\n {2}warning: /);
});

test('an action\'s own error is not swallowed, and another panic than the wanted is told', () => {
  expect(failureOf('an action that goes wrong by itself fails with its own error')[0]).toMatch(/^GuestCommandError: /);
  expect(failureOf('a machine follows a wanted panic, and a panic that is not the wanted one fails')[0]).toMatch(/^GuestFault: .*sysrq triggered crash/);
});
