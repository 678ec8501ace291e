// The driver in NAME/, in a real guest, against QEMU's educational device.
import { fileURLToPath } from 'node:url';
import { expect, test } from '@jest/globals';
import { edu, type PciFunction } from 'rootport';
import { useMachine } from 'rootport/jest';

// Once a boot: the module is built for the guest's kernel and loaded.
const vm = useMachine({
  warm: async (guest, machine) => {
    await guest.loadModule(await machine.buildModule(fileURLToPath(new URL('NAME', import.meta.url))));
  },
});

/** The device in the guest, once its driver is up: the driver's attribute is there last. */
async function plugged(device = edu()): Promise<PciFunction> {
  const fn = await vm.plug(device);
  await vm.guest.until(`[ -e ${fn.sysfs}/factorial ]`, 'the driver to be up', 10_000);
  return fn;
}

test('the driver takes the device that is plugged, over one MSI vector', async () => {
  const fn = await plugged();
  expect(await fn.driver()).toBe('IDENT');
  expect(await fn.messageIrqs()).toHaveLength(1);
  await expect(fn).toHaveBar({ bar: 0, sizeBytes: 2 ** 20, type: 'mem32' });
  await expect(vm).toHaveCleanLog();
});

test.each([[5, 120], [12, 479001600]])('the device computes %i! = %i, and interrupts once', async (number, factorial) => {
  const fn = await plugged();
  const [irq] = await fn.messageIrqs();
  const handled = async (): Promise<number> => Number((await vm.guest.run(`awk '$1 == "${irq}:" { print $2 }' /proc/interrupts`)).stdout);
  const before = await handled();
  await vm.guest.run(`echo ${number} >${fn.sysfs}/factorial`);
  expect((await vm.guest.run(`cat ${fn.sysfs}/factorial`)).stdout).toBe(`${factorial}\n`);
  expect(await handled() - before).toBe(1);
});

test('unplugged, it leaves nothing behind', async () => {
  const device = edu();
  await plugged(device);
  await expect(vm.unplug(device)).resolves.toLeaveNothingBehind();
  await expect(vm).toHaveCleanLog();
});
