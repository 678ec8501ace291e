// A QEMU that cannot carry any virtio device says so, with a hint, and its machine goes on.
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { virtioDevice } from '../../../src/devices/virtio-device/index.ts';
import { virtioRng } from '../../../src/devices/virtio-rng/index.ts';
import { QmpError } from '../../../src/errors.ts';
import { boot } from '../../../src/machine/boot.ts';
import type { Machine } from '../../../src/machine/machine.ts';

let machine: Machine;
beforeAll(async () => { machine = await boot({ qemu: '10.0' }); });
afterAll(() => machine.close());

test('virtioDevice on QEMU 10.0 is a QmpError that names a QEMU that has it, and the port is free again', async () => {
  const device = virtioDevice({ device: { deviceId: 21, features: 0n, queueCount: 1, queueSizeMax: 64, config: () => new Uint8Array(0), process: () => undefined } });
  const error = await machine.plug(device, { port: 'rp1' }).catch((one: unknown) => one);
  expect(error).toBeInstanceOf(QmpError);
  expect((error as QmpError).hint).toContain('qemu: \'11.1\'');
  const rng = virtioRng();
  expect((await machine.plug(rng, { port: 'rp1' })).sysfs).toContain('/sys/bus/pci/devices/');
  await machine.unplug(rng);
});
