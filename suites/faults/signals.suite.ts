// What a device tells its driver besides answers, done wrong: interrupts of nothing, none, or another queue's; config space
// that changes; a need of a reset. With the in-tree virtio_blk of Linux 6.1, and the kernel log of each, whole.
import { describe, expect, test } from '@jest/globals';
import { q35, type PciFunction } from 'rootport';
import { useMachine } from 'rootport/jest';
import { DiskScene, readBlock } from './disk-scene.ts';

const vm = useMachine({ machine: q35({ ports: 10, cpus: 2 }) });
const scene = new DiskScene(vm);

describe('interrupts', () => {
  test('with nothing used are nobody\'s: the kernel counts them as unhandled, and the disk works on', async () => {
    const { disk, fn, name } = await scene.plug();
    const since = await vm.mark(fn);
    const log = await scene.kernelLog(async () => {
      for (let n = 1; n <= 5; n += 1) {
        disk.queue(0).interrupt();
        await expect(fn).toHaveDelivered({ vector: 1, exactly: n, since });
      }
      expect(await scene.unhandled(fn, 1)).toBeGreaterThan(0);
      await vm.guest.run(readBlock(name));
    });
    expect(log).toEqual([]);
    await expect(vm).toHaveCleanLog();
  });

  test('left out leave a request done and the driver waiting, until one comes', async () => {
    const { disk, name } = await scene.plug();
    disk.queue(0).dropInterrupts();
    const before = disk.queue(0).counts.completed;
    const log = await scene.kernelLog(async () => {
      const io = await vm.guest.start(`${readBlock(name)} | tr -cd Z | wc -c`);
      await scene.expectHanging(io, name);
      expect(disk.queue(0).counts).toMatchObject({ completed: before + 1, inFlight: 0 });
      disk.queue(0).interrupt();
      expect((await io.wait()).stdout.trim()).toBe('4096');
    });
    expect(log).toEqual([]);
  });

  test('of another queue\'s vector are unhandled there, and the driver waits for its own', async () => {
    const { disk, fn, name } = await scene.plug({ queues: 2 });
    disk.queue(0).misdirectInterrupts(1);
    const log = await scene.kernelLog(async () => {
      const io = await vm.guest.start(`taskset -c 0 ${readBlock(name)}`); // CPU 0 uses queue 0
      await scene.expectHanging(io, name);
      expect(await scene.unhandled(fn, 2)).toBe(1);
      disk.queue(0).misdirectInterrupts(undefined);
      disk.queue(0).interrupt();
      await io.wait();
    });
    expect(log).toEqual([]);
  });
});

describe('config space', () => {
  const capacity = (sectors: number): Uint8Array => new Uint8Array(new BigUint64Array([BigInt(sectors)]).buffer);
  const size = async (name: string): Promise<string> => (await vm.guest.run(`cat /sys/block/${name}/size`)).stdout.trim();

  // QEMU has one copy of a vhost-user-blk's config space, and counts config_generation up when it fetches it
  // anew: no back end can have the driver read half of the old and half of the new. suites/virtio-edu can.
  test('changed with no word is not seen, and is from the notification on', async () => {
    const { disk, name } = await scene.plug();
    const log = await scene.kernelLog(async () => {
      disk.gate.changeConfig(0, capacity(4096));
      expect(await size(name)).toBe('2048');
      disk.gate.interruptConfig();
      await vm.guest.until(`[ $(cat /sys/block/${name}/size) = 4096 ]`, 'the driver to read its new capacity', 5000);
    });
    expect(log).toEqual([
      expect.stringMatching(`^virtio_blk virtio\\d+: \\[${name}\\] new size: 4096 512-byte logical blocks`),
      `${name}: detected capacity change from 2048 to 4096`,
    ]);
  });

  test('with a capacity of 0 is a disk of no bytes; reads past what the device has are errors', async () => {
    const { disk, name } = await scene.plug();
    for (const sectors of [0, 2 ** 20]) {
      disk.gate.changeConfig(0, capacity(sectors));
      disk.gate.interruptConfig();
      await vm.guest.until(`[ $(cat /sys/block/${name}/size) = ${sectors} ]`, 'the driver to read its new capacity', 5000);
      if (sectors === 0) expect((await vm.guest.run(`${readBlock(name)} | wc -c`)).stdout.trim()).toBe('0');
    }
    expect((await vm.guest.attempt(readBlock(name, 1000))).exitCode).toBe(1);
    expect(disk.refused).toMatchObject([{ fault: 'sector-out-of-range' }]);
    await expect(vm).toHaveCleanLog();
  });
});

describe('a device that needs a reset', () => {
  const status = async (fn: PciFunction): Promise<string> => (await vm.guest.run(`cat ${fn.sysfs}/virtio*/status`)).stdout.trim();

  test('is not known to by the guest: QEMU keeps the status, without NEEDS_RESET, and I/O hangs', async () => {
    const { disk, fn, name } = await scene.plug();
    disk.gate.needsReset();
    const io = await vm.guest.start(readBlock(name));
    await scene.expectHanging(io, name);
    expect(await status(fn)).toBe('0x0000000f'); // ACKNOWLEDGE, DRIVER, DRIVER_OK, FEATURES_OK
    await expect(vm).toHaveCleanLog();
  });

  test('is well again when the driver is bound anew', async () => {
    const { disk, fn } = await scene.plug();
    disk.gate.needsReset();
    expect(disk.gate.awaitsReset).toBe(true);
    await vm.guest.run(`cd /sys/bus/virtio/drivers/virtio_blk; dev=$(ls ${fn.sysfs} | grep ^virtio); echo $dev >unbind; echo $dev >bind`);
    expect(disk.gate.awaitsReset).toBe(false);
    const name = await scene.nameOf(fn);
    expect((await vm.guest.run(`${readBlock(name)} | tr -cd Z | wc -c`)).stdout.trim()).toBe('4096');
    expect(await vm.unplug(disk)).toLeaveNothingBehind();
  });
});
