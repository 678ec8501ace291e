// The bare tier on real QEMU: it starts, is driven, and leaves nothing behind.
import { existsSync } from 'node:fs';
import { expect, test } from '@jest/globals';
import { DeadlineError, MachineExitError, QmpError, QtestError, UsageError } from '../../src/errors.ts';
import { qemuDevice } from '../../src/devices/qemu-device/index.ts';
import { edu } from '../../src/devices/edu/index.ts';
import { ivshmem } from '../../src/devices/ivshmem/index.ts';
import { bare } from '../../src/machine/bare.ts';
import { pc, q35 } from '../../src/qemu/preset.ts';
import { machineDirectories, machineName, machineProcesses } from './nothing-left.ts';

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

test('a message that does not come and a line that does not move are DeadlineErrors that say which', async () => {
  const device = ivshmem({ vectors: 2 });
  await using machine = await bare({ devices: [device] });
  const msix = await (await machine.functionOf(device)).enableMsix();
  await msix.mask(1);
  device.fire(1);
  const silent = await msix.next(1, { timeoutMs: 50 }).catch((error: unknown) => error);
  expect(silent).toBeInstanceOf(DeadlineError);
  expect((silent as Error).message).toMatch(/waited 50 ms for the message of vector 1 at 0x\w+ in guest RAM/);
  await expect(machine.qtest.waitForIrq(21, 1, { timeoutMs: 20 })).rejects.toThrow(/interrupt line 21 to be raised/);
});

test('an eject that QEMU does not follow is a DeadlineError with the device\'s name', async () => {
  const device = edu();
  await using machine = await bare({ machine: pc({ ports: 1 }), devices: [device] });
  machine.slots.eject = () => Promise.resolve();
  await expect(machine.eject(device, { timeoutMs: 50 })).rejects.toThrow(/DEVICE_DELETED of dev0 \(edu in slot1\)/);
});

test('what QEMU or the machine lacks is refused, and the machine goes on', async () => {
  await using machine = await bare();
  await expect(machine.qtest.interceptIn('nobody')).rejects.toThrow(QtestError);
  await expect(machine.plug(qemuDevice('no-such-model'))).rejects.toThrow(QmpError);
  await expect(machine.functionOf('nobody')).rejects.toThrow(UsageError);
  const port = await machine.functionOf('rp1');
  await expect(port.memRead(0, 0x1000, 4)).rejects.toThrow(/no access of 4 bytes at 4096 of BAR 0/);
  await expect(port.ioRead(0, 0, 4)).rejects.toThrow(/is memory: memRead/);
  await expect(port.enableMsi()).rejects.toThrow(/no MSI capability/);
  await machine.plug(edu());
});

test('unknown options are refused before QEMU starts', async () => {
  await expect(bare({ kernel: '6.1' } as object)).rejects.toThrow(/bare has no option "kernel"/);
});

test('a QEMU that is killed ends every wait with its exit, and nothing is left of a machine', async () => {
  const device = ivshmem();
  const machine = await bare({ devices: [device] });
  const waiting = machine.qtest.waitForIrq(21, 1, { timeoutMs: 10_000 }).catch((error: unknown) => error);
  process.kill(machine.innards.process.pid, 'SIGKILL');
  expect(await waiting).toBeInstanceOf(MachineExitError);
  await expect(machine.qtest.ioRead(0x80, 1)).rejects.toThrow(/killed by SIGKILL/);
  await machine.close();
  expect(machineProcesses(machineName(process.pid))).toEqual([]);
  expect(machineDirectories(machineName(process.pid))).toEqual([]);
});
