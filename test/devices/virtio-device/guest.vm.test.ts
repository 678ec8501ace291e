// A QEMU that cannot carry any virtio device says so, with a hint, and its machine goes on; one that can, and does not
// stand a crash of the back end, ends with an error that says why.
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { virtioDevice, type PluggableVirtioDevice } from '../../../src/devices/virtio-device/index.ts';
import { virtioRng } from '../../../src/devices/virtio-rng/index.ts';
import { MachineExitError, QmpError } from '../../../src/errors.ts';
import { restore } from '../../../src/machine/kept-snapshots.ts';
import type { Machine } from '../../../src/machine/machine.ts';

/** Linux has no driver for this id. */
const driverless = (): PluggableVirtioDevice => virtioDevice({
  device: { deviceId: 21, features: 0n, queueCount: 1, queueSizeMax: 64, config: () => new Uint8Array(0), process: () => undefined },
});
let machine: Machine;
beforeAll(async () => { machine = await restore({ qemu: '10.0' }); });
afterAll(() => machine.close());

test('virtioDevice on QEMU 10.0 is a QmpError that names a QEMU that has it, and the port is free again', async () => {
  const device = driverless();
  const error = await machine.plug(device, { port: 'rp1' }).catch((one: unknown) => one);
  expect(error).toBeInstanceOf(QmpError);
  expect((error as QmpError).hint).toContain('qemu: \'11.1\'');
  const rng = virtioRng();
  expect((await machine.plug(rng, { port: 'rp1' })).sysfs).toContain('/sys/bus/pci/devices/');
  await machine.unplug(rng);
});

test('a crash of a back end that no driver runs ends QEMU 11.1, and every wait ends with an error that says why', async () => {
  const other = await restore({ qemu: '11.1' });
  try {
    const device = driverless();
    await other.plug(device, { port: 'rp2' });
    const running = await other.guest.start('sleep 1000');
    await device.gate.crash();
    const error = await running.settled().catch((one: unknown) => one);
    expect(error).toBeInstanceOf(MachineExitError);
    expect((error as MachineExitError).hint).toMatch(/^virtio-21 in rp2: its back end crashed, .* abort on that/);
    expect((error as MachineExitError).context?.stderr).toContain('Assertion');
  } finally {
    await other.close();
  }
});
