// A disk that goes between kick and completion, and a back end that dies, for good: what the in-tree virtio_blk of Linux 6.1
// makes of it. One that comes back is reconnect.suite.ts's.
import { describe, expect, test } from '@jest/globals';
import { q35 } from 'rootport';
import { useMachine } from 'rootport/jest';
import { DiskScene, readBlock, STATUS } from './disk-scene.ts';

const vm = useMachine({ machine: q35({ ports: 4, cpus: 2 }) });
const scene = new DiskScene(vm);

describe('an unplug between kick and completion', () => {
  test('ends once the request is answered, be it with an error', async () => {
    const { disk, name } = await scene.plug();
    disk.queue(0).hold();
    const io = await vm.guest.start(readBlock(name));
    const request = await disk.queue(0).nextRequest();
    const log = await scene.kernelLog(async () => {
      const report = await vm.unplug(disk, { whenRemoving: () => request.complete({ status: STATUS.ioError }) });
      expect(report).toLeaveNothingBehind();
    });
    expect((await io.settled()).exitCode).toBe(1);
    expect(log).toEqual([]); // the block layer is silent about the errors of a disk that is going
    await expect(vm).toHaveCleanLog();
  });
});

describe('a back end that dies', () => {
  test('while the disk is idle goes unnoticed; unplugged and plugged again the disk has what it had', async () => {
    const { disk, fn } = await scene.plug();
    disk.bytes.write('still here');
    const log = await scene.kernelLog(() => disk.gate.crash());
    expect(log).toEqual([]);
    expect(() => disk.gate.interruptConfig()).toThrow('no front end'); // it did die
    expect(await fn.driver()).toBe('virtio-pci');
    expect(await vm.unplug(disk)).toLeaveNothingBehind();
    const again = await vm.plug(disk);
    const name = await scene.nameOf(again);
    expect((await vm.guest.run(`${readBlock(name)} | head -c 10`)).stdout).toBe('still here');
    await expect(vm).toHaveCleanLog();
  });

  test('with a request in flight leaves it hanging, the guest alive, and a disk that cannot be unplugged', async () => {
    const { disk, name } = await scene.plug();
    disk.queue(0).hold();
    const log = await scene.kernelLog(async () => {
      const io = await vm.guest.start(readBlock(name));
      await disk.queue(0).nextRequest();
      await disk.gate.crash();
      disk.queue(0).release();
      await scene.expectHanging(io, name);
      await expect(vm.unplug(disk, { timeoutMs: 2000 })).rejects.toThrow('DEVICE_DELETED');
      await expect(io.settled({ timeoutMs: 1 })).rejects.toThrow('waited');
    });
    expect(log).toEqual([]);
    await expect(vm).toHaveCleanLog();
  });
});
