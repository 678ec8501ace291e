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
  test('with a status that is an error, or none of the specification\'s, fails in the guest, and the block layer says so', async () => {
    const { disk, name } = await scene.plug();
    disk.queue(0).hold();
    for (const [status, message, error] of [
      [STATUS.ioError, 'Input/output error', 'I/O error'],
      [STATUS.unsupported, 'Operation not supported', 'operation not supported error'],
      [0x7f, 'Input/output error', 'I/O error'],
    ] as const) {
      const log = await scene.kernelLog(async () => {
        const io = await vm.guest.start(`dd if=/dev/${name} of=/dev/null bs=4k count=1 iflag=direct`);
        (await disk.queue(0).nextRequest()).complete({ status });
        expect([status, await io.settled()]).toMatchObject([status, { exitCode: 1, stderr: expect.stringContaining(message) }]);
      });
      expect([status, log]).toEqual([status, [expect.stringMatching(`^${error}, dev ${name}, sector 0 op 0x0:\\(READ\\)`)]]);
    }
    disk.queue(0).release();
    expect(await vm.unplug(disk)).toLeaveNothingBehind();
    await expect(vm).toHaveCleanLog();
  });

  test('with data of the test reads as that data; as done with nothing written it is believed, and what the guest\'s own buffer held is read', async () => {
    const { disk, name } = await scene.plug();
    disk.queue(0).hold();
    const log = await scene.kernelLog(async () => {
      const io = await vm.guest.start(readBlock(name));
      (await disk.queue(0).nextRequest()).complete({ data: Buffer.alloc(4096, 'not what is on the disk. '), status: STATUS.ok });
      expect((await io.wait()).stdout.slice(0, 24)).toBe('not what is on the disk.');
      const empty = await vm.guest.start(`${readBlock(name)} | tr -cd Z | wc -c`);
      (await disk.queue(0).nextRequest()).complete({ status: STATUS.ok });
      expect((await empty.wait()).stdout.trim()).toBe('0');
    });
    expect(log).toEqual([]);
    disk.queue(0).release();
  });
});

describe('two requests answered under each other\'s id', () => {
  test('are believed: each read is over, and its buffer has what was written to it', async () => {
    const { disk, name } = await scene.plug();
    disk.queue(0).hold();
    const log = await scene.kernelLog(async () => {
      const read = async (block: number): Promise<{ io: GuestProcess; request: HeldRequest }> => {
        const io = await vm.guest.start(`${readBlock(name, block)} | head -c 5`);
        return { io, request: await disk.queue(0).nextRequest() };
      };
      const one = await read(10), two = await read(20);
      const answer = (text: string): { data: Buffer; status: number; writtenBytes: number } => ({ data: Buffer.alloc(4096, text), status: STATUS.ok, writtenBytes: 4097 });
      // Told of both at once: a reader that is quick would look into its buffer before the other's data are there.
      disk.queue(0).dropInterrupts(2);
      one.request.complete({ ...answer('one  '), id: two.request.head });
      two.request.complete({ ...answer('two  '), id: one.request.head });
      disk.queue(0).interrupt();
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

  test('reversed, or chosen one by one, changes nothing: each read has its own data', async () => {
    const { disk, name } = await labelled();
    const log = await scene.kernelLog(async () => {
      disk.queue(0).hold();
      const reversed = await fourReads(name);
      for (let n = 0; n < 4; n += 1) await disk.queue(0).nextRequest();
      disk.queue(0).reorderAnswers(4);
      disk.queue(0).release();
      expect((await reversed.wait()).stdout).toBe(contents);
      disk.queue(0).hold();
      const chosen = await fourReads(name);
      const requests = [];
      for (let n = 0; n < 4; n += 1) requests.push(await disk.queue(0).nextRequest());
      for (const n of [2, 0, 3, 1]) requests[n]?.release();
      expect((await chosen.wait()).stdout).toBe(contents);
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

test('the length in the used ring is not looked at by virtio_blk: with 0, and with far more than the buffer, the read is good', async () => {
  const { disk, name } = await scene.plug();
  const log = await scene.kernelLog(async () => {
    for (const writtenBytes of [0, 0xffffffff]) {
      disk.queue(0).answerWrongLength(writtenBytes);
      expect(disk.queue(0).pendingFaults).toBe(1);
      expect((await vm.guest.run(`${readBlock(name)} | tr -cd Z | wc -c`)).stdout.trim()).toBe('4096');
      expect(disk.queue(0).pendingFaults).toBe(0);
    }
  });
  expect(log).toEqual([]);
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
  test('to an id out of range, or of no request in flight: the queue is broken for good, the request hangs, and the next ones fail', async () => {
    for (const [id, says] of [[500, 'id 500 out of range'], [77, 'id 77 is not a head!']] as const) {
      const { disk, name } = await scene.plug();
      disk.queue(0).answerWrongId(id);
      const log = await scene.kernelLog(async () => {
        const io = await vm.guest.start(readBlock(name));
        await scene.expectHanging(io, name);
        expect((await vm.guest.attempt(readBlock(name))).exitCode).toBe(1);
      });
      expect(log).toEqual([
        expect.stringMatching(`^virtio_blk virtio\\d+: req\\.0:${says}$`),
        expect.stringMatching(`^I/O error, dev ${name}, sector 0 op 0x0:\\(READ\\)`),
      ]);
    }
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
