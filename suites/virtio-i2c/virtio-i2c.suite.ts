// The kernel's I2C core and its at24 EEPROM driver over our bus. Debian's kernels have no driver for the adapter
// (I2C_VIRTIO is off in 6.1 and 6.12): the one in driver/ is built for the guest's kernel.
import { fileURLToPath } from 'node:url';
import { expect, test } from '@jest/globals';
import { i2cEeprom, q35, virtioI2c, type I2cTarget, type PciFunction } from 'rootport';
import { useMachine } from 'rootport/jest';

const vm = useMachine({
  machine: q35({ ports: 4 }),
  modules: ['at24'],
  warm: async (guest, machine) => {
    await guest.run('modprobe virtio_pci');
    await guest.loadModule(await machine.buildModule(fileURLToPath(new URL('driver', import.meta.url))));
    await guest.loadModule('at24');
  },
});

/** The number of the adapter that the guest made of the function. */
async function adapter(fn: PciFunction): Promise<string> {
  await vm.guest.until(`[ -e ${fn.sysfs}/virtio*/i2c-*/new_device ]`, 'the adapter', 10_000);
  return (await vm.guest.run(`basename ${fn.sysfs}/virtio*/i2c-*`)).stdout.trim().replace('i2c-', '');
}

/** Have the guest's core bind at24 to a 24c02 at 0x50; the sysfs file that is its content. */
async function bindEeprom(bus: string, type = '24c02'): Promise<string> {
  await vm.guest.run(`echo ${type} 0x50 >/sys/bus/i2c/devices/i2c-${bus}/new_device`);
  return `/sys/bus/i2c/devices/${bus}-0050/eeprom`;
}

test('the guest reads from at24 what is in the EEPROM, and what it writes there is in it', async () => {
  const eeprom = i2cEeprom({ sizeBytes: 256, pageBytes: 8 });
  eeprom.bytes.forEach((_, i) => { eeprom.bytes[i] = (i * 7) & 0xff; });
  const before = Buffer.from(eeprom.bytes);
  const i2c = virtioI2c({ targets: { 0x50: eeprom } });
  const file = await bindEeprom(await adapter(await vm.plug(i2c)));
  expect(await vm.guest.readFile(file)).toEqual(before);
  i2c.takeTransfers();

  await vm.guest.run(`printf 'twenty bytes of text' | dd of=${file} bs=20 seek=1 2>/dev/null`);
  expect(Buffer.from(eeprom.bytes.subarray(20, 40)).toString()).toBe('twenty bytes of text');
  expect(Buffer.concat([eeprom.bytes.subarray(0, 20), eeprom.bytes.subarray(40)])).toEqual(Buffer.concat([before.subarray(0, 20), before.subarray(40)]));
  // Bound by name, the driver does not know the page: a byte a write.
  expect(i2c.takeTransfers().filter(({ direction }) => direction === 'write').map(({ bytes }) => [bytes[0], bytes.length]))
    .toEqual(Array.from({ length: 20 }, (_, i) => [20 + i, 2]));
  await expect(vm).toHaveCleanLog();
});

test('a read is a write of the address and a read after it, in one group', async () => {
  const i2c = virtioI2c({ targets: { 0x50: i2cEeprom() } });
  const file = await bindEeprom(await adapter(await vm.plug(i2c)));
  i2c.takeTransfers();
  await vm.guest.run(`dd if=${file} bs=4 skip=3 count=1 2>/dev/null | wc -c`);
  expect(i2c.takeTransfers().map(({ address, direction, bytes, acknowledged }) => [address, direction, [...bytes], acknowledged]))
    .toEqual([[0x50, 'write', [12], true], [0x50, 'read', [0xff, 0xff, 0xff, 0xff], true]]);
});

test('where nobody is, the guest is told: at24 binds to nothing, and a chip taken off fails its reads', async () => {
  const i2c = virtioI2c();
  const bus = await adapter(await vm.plug(i2c));
  const file = await bindEeprom(bus);
  expect((await vm.guest.attempt(`[ -e ${file} ]`)).exitCode).toBe(1); // its probe read a byte, in vain
  expect(i2c.takeTransfers().every(({ acknowledged }) => !acknowledged)).toBe(true);

  await vm.guest.run(`echo 0x50 >/sys/bus/i2c/devices/i2c-${bus}/delete_device`);
  i2c.targets.set(0x50, i2cEeprom());
  await bindEeprom(bus);
  expect(await vm.guest.readFile(file)).toEqual(Buffer.alloc(256, 0xff));
  i2c.targets.delete(0x50);
  expect(await vm.guest.attempt(`cat ${file}`)).toMatchObject({ exitCode: 1, stderr: expect.stringContaining('Connection timed out') });
  await expect(vm).toHaveCleanLog();
});

test('a target that throws fails its request, and the bus goes on', async () => {
  let broken = true;
  const eeprom = i2cEeprom();
  const flaky: I2cTarget = {
    write: (bytes) => eeprom.write(bytes),
    read(lengthBytes) {
      if (broken) throw new Error('broken by the test');
      return eeprom.read(lengthBytes);
    },
  };
  const i2c = virtioI2c({ targets: { 0x50: flaky } });
  const bus = await adapter(await vm.plug(i2c));
  const file = await bindEeprom(bus);
  expect((await vm.guest.attempt(`cat ${file}`)).exitCode).toBe(1);
  broken = false;
  await vm.guest.run(`echo 0x50 >/sys/bus/i2c/devices/i2c-${bus}/delete_device`);
  await bindEeprom(bus);
  expect(await vm.guest.readFile(file)).toEqual(Buffer.alloc(256, 0xff));
});

test('unplugged with a transfer held by the device, remove() waits for it, and nothing is left behind', async () => {
  const i2c = virtioI2c({ targets: { 0x50: i2cEeprom() } });
  const file = await bindEeprom(await adapter(await vm.plug(i2c)));
  i2c.queue(0).hold();
  const reading = await vm.guest.start(`dd if=${file} bs=16 count=1 2>/dev/null | wc -c`);
  await i2c.queue(0).nextRequest();
  const report = await vm.unplug(i2c, { whenRemoving: () => i2c.queue(0).release() });
  expect(report.removeReturned).toBe(true);
  expect(report).toLeaveNothingBehind();
  expect((await reading.settled()).stdout.trim()).toBe('16');
  await expect(vm).toHaveCleanLog();
});
