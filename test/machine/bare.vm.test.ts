// The bare tier on real QEMU: it starts, is driven, and leaves nothing behind.
import { existsSync } from 'node:fs';
import { expect, test } from '@jest/globals';
import { ivshmem } from '../../src/devices/ivshmem/index.ts';
import { bare } from '../../src/machine/bare.ts';
import { pc, q35 } from '../../src/qemu/preset.ts';

test('ivshmem on q35: enumerated behind its port, and a vector that is fired is a message in RAM', async () => {
  const device = ivshmem({ vectors: 16 });
  await using machine = await bare({ machine: q35(), devices: [device] });
  const fn = await machine.functionOf(device);
  const msix = await fn.enableMsix();
  expect(await msix.arrived()).toEqual([]);
  device.fire(3);
  expect(await msix.arrived()).toEqual([3]);
  expect(await msix.arrived()).toEqual([]);
  const { directory } = machine.innards;
  await machine.close();
  expect(existsSync(directory)).toBe(false);
});

test('ivshmem on pc: the same by config ports', async () => {
  const device = ivshmem({ vectors: 4 });
  await using machine = await bare({ machine: pc(), devices: [device] });
  const fn = await machine.functionOf(device);
  const msix = await fn.enableMsix();
  device.fire(1);
  expect(await msix.arrived()).toEqual([1]);
});
