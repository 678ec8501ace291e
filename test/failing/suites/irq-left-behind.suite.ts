// Must fail: a driver whose remove() leaves its MSI vector and handler behind. The kernel warns of it, once a
// boot: each test has a machine of its own. What such a vector does to a kernel afterwards is not defined:
// 6.1 bears it, 6.12 faults on it at the next look at /proc/interrupts. So this suite names its kernel.
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from '@jest/globals';
import { edu, type UnplugReport } from 'rootport';
import { useMachine } from 'rootport/jest';

const module = join(dirname(fileURLToPath(import.meta.url)), '../modules/leaky');
const vm = useMachine({
  kernel: '6.1',
  fresh: 'test',
  afterBoot: async (machine) => { await machine.guest.loadModule(await machine.buildModule(module)); },
});

async function plugAndUnplug(leak: 'Y' | 'N'): Promise<UnplugReport> {
  await vm.guest.run(`echo ${leak} >/sys/module/leaky/parameters/leak`);
  const fn = await vm.plug(edu());
  await vm.guest.until(`[ -e /sys/bus/pci/drivers/leaky/${fn.bdf} ]`, 'leaky to bind', 5000);
  return vm.unplug(fn);
}

test('control: a remove() that frees its interrupt leaves nothing behind', async () => {
  const report = await plugAndUnplug('N');
  expect(report.driver).toBe('leaky');
  expect(report).toLeaveNothingBehind();
  await expect(vm).toHaveCleanLog();
});

test('must fail: a remove() that frees nothing leaves its interrupt', async () => {
  expect(await plugAndUnplug('Y')).toLeaveNothingBehind();
});

test('must fail: the kernel warns of a remove() that frees nothing', async () => {
  await plugAndUnplug('Y');
  await expect(vm).toHaveCleanLog();
});
