// Answers that are wrong, early, late, twice or not given at all, and what the in-tree virtio_blk makes of them: one small
// call a fault, and the kernel log of each, whole. The driver is that of Linux 6.1 (drivers/block/virtio_blk.c,
// drivers/virtio/virtio_ring.c). Most faults are met with silence: a request that is lost hangs for ever, since
// virtio_blk has no timeout of its own, and then nothing can unplug the disk. Such disks are plugged once for the
// file, and go with the machine.
import { describe, expect, test } from '@jest/globals';
import { GuestFault, q35, virtioBlk, type GuestProcess, type HeldRequest } from 'rootport';
import { expectKernelReport, useMachine } from 'rootport/jest';
import { DiskScene, readBlock, STATUS } from './disk-scene.ts';
import type { PluggedDisk } from './disk-scene.ts';

const vm = useMachine({ machine: q35({ ports: 10, cpus: 2 }) });
const scene = new DiskScene(vm);

describe('a request answered by the test', () => {
  test.each([
    ['VIRTIO_BLK_S_IOERR', STATUS.ioError, 'Input/output error', 'I/O error'],
    ['VIRTIO_BLK_S_UNSUPP', STATUS.unsupported, 'Operation not supported', 'operation not supported error'],
    ['a status that the specification does not have', 0x7f, 'Input/output error', 'I/O error'],
  ])('with %s fails in the guest, and the block layer says so', async (_, status, message, error) => {
    const { disk, name } = await scene.plug();
    disk.queue(0).hold();
    const log = await scene.kernelLog(async () => {
      const io = await vm.guest.start(`dd if=/dev/${name} of=/dev/null bs=4k count=1 iflag=direct`);
      (await disk.queue(0).nextRequest()).complete({ status });
      expect(await io.settled()).toMatchObject({ exitCode: 1, stderr: expect.stringContaining(message) });
    });
    expect(log).toEqual([expect.stringMatching(`^${error}, dev ${name}, sector 0 op 0x0:\\(READ\\)`)]);
    disk.queue(0).release();
    expect(await vm.unplug(disk)).toLeaveNothingBehind();
    await expect(vm).toHaveCleanLog();
  });

  test('with data of the test reads as that data', async () => {
    const { disk, name } = await scene.plug();
    disk.queue(0).hold();
    const log = await scene.kernelLog(async () => {
      const io = await vm.guest.start(readBlock(name));
      (await disk.queue(0).nextRequest()).complete({ data: Buffer.alloc(4096, 'not what is on the disk. '), status: STATUS.ok });
      expect((await io.wait()).stdout.slice(0, 24)).toBe('not what is on the disk.');
    });
    expect(log).toEqual([]);
    disk.queue(0).release();
  });

  test('as done with nothing written is believed: the guest reads what its own buffer held', async () => {
    const { disk, name } = await scene.plug();
    disk.queue(0).hold();
    const log = await scene.kernelLog(async () => {
      const io = await vm.guest.start(`${readBlock(name)} | tr -cd Z | wc -c`);
      (await disk.queue(0).nextRequest()).complete({ status: STATUS.ok });
      expect((await io.wait()).stdout.trim()).toBe('0');
    });
    expect(log).toEqual([]);
    disk.queue(0).release();
  });
});

describe('two requests answered under each other\'s id', () => {
  test('are believed: each read is over when the other\'s answer comes, and its buffer has what was written to it', async () => {
    const { disk, name } = await scene.plug();
    disk.queue(0).hold();
    const log = await scene.kernelLog(async () => {
      const read = async (block: number): Promise<{ io: GuestProcess; request: HeldRequest }> => {
        const io = await vm.guest.start(`${readBlock(name, block)} | head -c 5`);
        return { io, request: await disk.queue(0).nextRequest() };
      };
      const one = await read(10), two = await read(20);
      const answer = (text: string): { data: Buffer; status: number; writtenBytes: number } => ({ data: Buffer.alloc(4096, text), status: STATUS.ok, writtenBytes: 4097 });
      one.request.complete({ ...answer('one  '), id: two.request.head });
      two.request.complete({ ...answer('two  '), id: one.request.head });
      expect([(await one.io.wait()).stdout, (await two.io.wait()).stdout]).toEqual(['one  ', 'two  ']);
    });
    expect(log).toEqual([]);
    disk.queue(0).release();
    expect(await vm.unplug(disk)).toLeaveNothingBehind();
    await expect(vm).toHaveCleanLog();
  });
});

describe('the order and the time of answers', () => {
  /** Four reads of different blocks, in flight at once; what each got. Apart: the kernel merges neighbours. */
  async function fourReads(name: string): Promise<GuestProcess> {
    return vm.guest.start(`for n in 0 1 2 3; do (echo $n $(dd if=/dev/${name} bs=4k skip=$((n * 10)) count=1 iflag=direct 2>/dev/null | head -c 8) >/tmp/read$n) & done; wait; cat /tmp/read?`);
  }
  const contents = ['0 block--0', '1 block--1', '2 block--2', '3 block--3', ''].join('\n');
  async function labelled(): Promise<PluggedDisk> {
    const plugged = await scene.plug();
    for (let n = 0; n < 4; n += 1) plugged.disk.bytes.write(`block--${n}`, n * 10 * 4096);
    return plugged;
  }

  test('reversed changes nothing: each read has its own data', async () => {
    const { disk, name } = await labelled();
    disk.queue(0).hold();
    const log = await scene.kernelLog(async () => {
      const io = await fourReads(name);
      for (let n = 0; n < 4; n += 1) await disk.queue(0).nextRequest();
      disk.queue(0).reorderAnswers(4);
      disk.queue(0).release();
      expect((await io.wait()).stdout).toBe(contents);
    });
    expect(log).toEqual([]);
  });

  test('chosen one by one changes nothing either', async () => {
    const { disk, name } = await labelled();
    disk.queue(0).hold();
    const log = await scene.kernelLog(async () => {
      const io = await fourReads(name);
      const requests = [];
      for (let n = 0; n < 4; n += 1) requests.push(await disk.queue(0).nextRequest());
      for (const n of [2, 0, 3, 1]) requests[n]?.release();
      expect((await io.wait()).stdout).toBe(contents);
    });
    expect(log).toEqual([]);
    disk.queue(0).release();
  });

  test('late changes nothing but the time: the request is in flight, and then it is done', async () => {
    const { disk, name } = await scene.plug();
    disk.queue(0).latencyMs = 300;
    const log = await scene.kernelLog(async () => {
      const seen = disk.queue(0).nextRequest();
      const io = await vm.guest.start(`${readBlock(name)} | tr -cd Z | wc -c`);
      await seen;
      expect(disk.queue(0).counts.inFlight).toBe(1);
      expect((await io.wait()).stdout.trim()).toBe('4096');
    });
    expect(log).toEqual([]);
  });
});

describe('the length in the used ring', () => {
  test.each([['0', 0], ['far more than the buffer', 0xffffffff]])('of %s is not looked at by virtio_blk: the read is good', async (_, writtenBytes) => {
    const { disk, name } = await scene.plug();
    disk.queue(0).answerWrongLength(writtenBytes);
    const log = await scene.kernelLog(async () => {
      expect(disk.queue(0).pendingFaults).toBe(1);
      expect((await vm.guest.run(`${readBlock(name)} | tr -cd Z | wc -c`)).stdout.trim()).toBe('4096');
      expect(disk.queue(0).pendingFaults).toBe(0);
    });
    expect(log).toEqual([]);
  });
});

test('an answer given twice breaks the queue: the first counts, and I/O fails from then on', async () => {
  const { disk, name } = await scene.plug();
  disk.queue(0).duplicateAnswers();
  const log = await scene.kernelLog(async () => {
    expect((await vm.guest.run(`${readBlock(name)} | tr -cd Z | wc -c`)).stdout.trim()).toBe('4096');
    disk.queue(0).interrupt(); // the driver may have gone to sleep between the two
    expect((await vm.guest.attempt(readBlock(name))).exitCode).toBe(1);
  });
  expect(log).toEqual([
    expect.stringMatching(/^virtio_blk virtio\d+: req\.0:id \d+ is not a head!$/),
    expect.stringMatching(`^I/O error, dev ${name}, sector 0 op 0x0:\\(READ\\)`),
  ]);
  await expect(vm).toHaveCleanLog(); // dev_err, and no WARN
  expect(await vm.unplug(disk)).toLeaveNothingBehind(); // nothing was in flight
});

describe('a disk whose request is lost', () => {
  test.each([
    ['out of range', 500],
    ['of no request in flight', 77],
  ])('to an id %s: the queue is broken for good, the request hangs, and the next ones fail', async (what, id) => {
    const { disk, name } = await scene.plug();
    disk.queue(0).answerWrongId(id);
    const log = await scene.kernelLog(async () => {
      const io = await vm.guest.start(readBlock(name));
      await scene.expectHanging(io, name);
      expect((await vm.guest.attempt(readBlock(name))).exitCode).toBe(1);
    });
    const says = what === 'out of range' ? `id ${id} out of range` : `id ${id} is not a head!`;
    expect(log).toEqual([
      expect.stringMatching(`^virtio_blk virtio\\d+: req\\.0:${says}$`),
      expect.stringMatching(`^I/O error, dev ${name}, sector 0 op 0x0:\\(READ\\)`),
    ]);
    await expect(vm).toHaveCleanLog();
  });

  test('by the device: it hangs silently, for no timeout is there to be had, and others go on', async () => {
    const { disk, name } = await scene.plug();
    await vm.guest.run(`[ ! -e /sys/block/${name}/queue/io_timeout ]`); // there only for drivers that handle timeouts
    disk.queue(0).dropAnswers();
    const log = await scene.kernelLog(async () => {
      const io = await vm.guest.start(readBlock(name));
      await scene.expectHanging(io, name);
      expect((await vm.guest.run(`${readBlock(name, 1)} | tr -cd Z | wc -c`)).stdout.trim()).toBe('4096');
    });
    expect(log).toEqual([]);
  });
});

test('a write whose answer is lost hangs who waits for it: a hung task, which ends every wait on the machine', async () => {
  const machine = await vm.fresh();
  const disk = virtioBlk({ capacityBytes: 2 ** 20 });
  const fn = await machine.plug(disk);
  const name = (await machine.guest.run(`ls ${fn.sysfs}/virtio*/block`)).stdout.trim();
  disk.queue(0).dropAnswers();
  expectKernelReport(/blocked for more than/, { kind: 'hung-task' });
  await machine.guest.run('echo 1 >/proc/sys/kernel/hung_task_timeout_secs');
  const io = await machine.guest.start(`dd if=/dev/zero of=/dev/${name} bs=4k count=1 conv=fsync`);
  const fault = await io.settled().catch((error: unknown) => error);
  expect(fault).toBeInstanceOf(GuestFault);
  expect((fault as GuestFault).message).toMatch(/INFO: task dd:\d+ blocked for more than \d+ seconds/);
});
