// Must fail: a test whose own assertions hold, while the guest panics under it.
import { expect, test } from '@jest/globals';
import { useMachine } from 'rootport/jest';

const vm = useMachine();

/** Ask the kernel by SysRq, in the background, and see only that it heard. */
async function sysrq(key: string, answer: string): Promise<void> {
  const heard = vm.console.waitForLine(answer, { timeoutMs: 10_000 });
  await vm.guest.start(`echo 1 >/proc/sys/kernel/panic_on_oops; echo ${key} >/proc/sysrq-trigger`);
  expect((await heard).text).toContain(answer);
}

test('control: the kernel shows its help and lives on', () => sysrq('h', 'sysrq: HELP'));

test('must fail: the kernel panics in the background', () => sysrq('c', 'sysrq: Trigger a crash'));

test('control: the next test has a machine that works', async () => {
  expect((await vm.guest.run('uname -s')).stdout.trim()).toBe('Linux');
  await expect(vm).toHaveCleanLog({ since: 'boot' });
});
