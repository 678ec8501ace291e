// A device that does wrong on purpose, and what the in-tree virtio_blk and virtio_rng make of it: one small
// call a fault, and the kernel log of each, whole. The drivers are those of Linux 6.1 (drivers/block/virtio_blk.c,
// drivers/char/hw_random/virtio-rng.c, drivers/virtio/virtio_ring.c). Most faults are met with silence: a request that
// is lost hangs for ever, since virtio_blk has no timeout of its own, and then nothing can unplug the disk. Such disks
// are plugged once for the file, and go with the machine.
import { beforeAll, describe, expect, test } from '@jest/globals';
import { GuestFault, q35, virtioBlk, virtioRng, type GuestProcess, type PciFunction, type VirtioBlk, type VirtioRng } from 'rootport';
import { expectKernelReport, useMachine } from 'rootport/jest';

const vm = useMachine({ machine: q35({ ports: 10, cpus: 2 }) });
/** Long enough for anything that is going to end to have ended. */
const HANG_MS = 1000;
const [OK, IOERR, UNSUPP] = [0, 1, 2];

interface PluggedDisk {
  readonly disk: VirtioBlk;
  readonly fn: PciFunction;
  /** `vdb` */
  readonly name: string;
}

async function plugDisk(options: { queues?: number } = {}): Promise<PluggedDisk> {
  const disk = virtioBlk({ capacityBytes: 2 ** 20, ...options });
  disk.bytes.fill(0x5a);
  const fn = await vm.plug(disk);
  return { disk, fn, name: (await vm.guest.run(`ls ${fn.sysfs}/virtio*/block`)).stdout.trim() };
}

/** One request: `block` of 4 KiB, past the cache, to standard output. */
const readBlock = (name: string, block = 0): string => `dd if=/dev/${name} bs=4k skip=${block} count=1 iflag=direct 2>/dev/null`;

async function logLines(): Promise<string[]> {
  return (await vm.guest.dmesg()).trimEnd().split('\n').map((line) => line.replace(/^\[[^\]]*\] /, '').trimEnd());
}

/** All that the kernel logs while `work` runs, less the times. */
async function kernelLog(work: () => Promise<unknown>): Promise<string[]> {
  const { length } = await logLines();
  await work();
  return (await logLines()).slice(length);
}

/** It has not ended, and the block layer counts one request in flight. */
async function expectHanging(io: GuestProcess, name: string): Promise<void> {
  await expect(io.settled({ timeoutMs: HANG_MS })).rejects.toThrow(`waited ${HANG_MS / 1000} s`);
  expect((await vm.guest.run(`cat /sys/block/${name}/inflight`)).stdout.trim().split(/\s+/)).toEqual(['1', '0']);
}

/** How many interrupts of a vector no handler wanted; the kernel starts anew after 100 ms without one. */
async function unhandled(fn: PciFunction, vector: number): Promise<number> {
  const { stdout } = await vm.guest.run(`cat /proc/irq/$(ls ${fn.sysfs}/msi_irqs | sort -n | sed -n ${vector + 1}p)/spurious`);
  return Number(/unhandled (\d+)/.exec(stdout)?.[1]);
}

describe('a request answered by the test', () => {
  test.each([
    ['VIRTIO_BLK_S_IOERR', IOERR, 'Input/output error', 'I/O error'],
    ['VIRTIO_BLK_S_UNSUPP', UNSUPP, 'Operation not supported', 'operation not supported error'],
    ['a status that the specification does not have', 0x7f, 'Input/output error', 'I/O error'],
  ])('with %s fails in the guest, and the block layer says so', async (_, status, message, error) => {
    const { disk, name } = await plugDisk();
    disk.queue(0).hold();
    const log = await kernelLog(async () => {
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
    const { disk, name } = await plugDisk();
    disk.queue(0).hold();
    const io = await vm.guest.start(readBlock(name));
    (await disk.queue(0).nextRequest()).complete({ data: Buffer.alloc(4096, 'not what is on the disk. '), status: OK });
    expect((await io.wait()).stdout.slice(0, 24)).toBe('not what is on the disk.');
    disk.queue(0).release();
  });

  test('as done with nothing written is believed: the guest reads what its own buffer held', async () => {
    const { disk, name } = await plugDisk();
    disk.queue(0).hold();
    const log = await kernelLog(async () => {
      const io = await vm.guest.start(`${readBlock(name)} | tr -cd Z | wc -c`);
      (await disk.queue(0).nextRequest()).complete({ status: OK });
      expect((await io.wait()).stdout.trim()).toBe('0');
    });
    expect(log).toEqual([]);
    disk.queue(0).release();
  });
});

describe('the order and the time of answers', () => {
  /** Four reads of different blocks, in flight at once; what each got. Apart: the kernel merges neighbours. */
  async function fourReads(name: string): Promise<GuestProcess> {
    return vm.guest.start(`for n in 0 1 2 3; do (echo $n $(dd if=/dev/${name} bs=4k skip=$((n * 10)) count=1 iflag=direct 2>/dev/null | head -c 8) >/tmp/read$n) & done; wait; cat /tmp/read?`);
  }
  const contents = ['0 block--0', '1 block--1', '2 block--2', '3 block--3', ''].join('\n');
  async function labelled(): Promise<PluggedDisk> {
    const plugged = await plugDisk();
    for (let n = 0; n < 4; n += 1) plugged.disk.bytes.write(`block--${n}`, n * 10 * 4096);
    return plugged;
  }

  test('reversed changes nothing: each read has its own data', async () => {
    const { disk, name } = await labelled();
    disk.queue(0).hold();
    const log = await kernelLog(async () => {
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
    const io = await fourReads(name);
    const requests = [];
    for (let n = 0; n < 4; n += 1) requests.push(await disk.queue(0).nextRequest());
    for (const n of [2, 0, 3, 1]) requests[n]?.release();
    expect((await io.wait()).stdout).toBe(contents);
    disk.queue(0).release();
  });

  test('late changes nothing but the time: the request is in flight, and then it is done', async () => {
    const { disk, name } = await plugDisk();
    disk.queue(0).latencyMs = 300;
    const seen = disk.queue(0).nextRequest();
    const io = await vm.guest.start(`${readBlock(name)} | tr -cd Z | wc -c`);
    await seen;
    expect(disk.queue(0).counts.inFlight).toBe(1);
    expect((await io.wait()).stdout.trim()).toBe('4096');
  });
});

describe('the length in the used ring', () => {
  test.each([['0', 0], ['far more than the buffer', 0xffffffff]])('of %s is not looked at by virtio_blk: the read is good', async (_, writtenBytes) => {
    const { disk, name } = await plugDisk();
    disk.queue(0).answerWrongLength(writtenBytes);
    const log = await kernelLog(async () => {
      expect(disk.queue(0).pendingFaults).toBe(1);
      expect((await vm.guest.run(`${readBlock(name)} | tr -cd Z | wc -c`)).stdout.trim()).toBe('4096');
      expect(disk.queue(0).pendingFaults).toBe(0);
    });
    expect(log).toEqual([]);
  });
});

describe('interrupts', () => {
  test('with nothing used are nobody\'s: the kernel counts them as unhandled, and the disk works on', async () => {
    const { disk, fn, name } = await plugDisk();
    const since = await vm.mark(fn);
    const log = await kernelLog(async () => {
      for (let n = 1; n <= 5; n += 1) {
        disk.queue(0).interrupt();
        await expect(fn).toHaveDelivered({ vector: 1, exactly: n, since });
      }
      expect(await unhandled(fn, 1)).toBeGreaterThan(0);
      await vm.guest.run(readBlock(name));
    });
    expect(log).toEqual([]);
    await expect(vm).toHaveCleanLog();
  });

  test('left out leave a request done and the driver waiting, until one comes', async () => {
    const { disk, name } = await plugDisk();
    disk.queue(0).dropInterrupts();
    const before = disk.queue(0).counts.completed;
    const log = await kernelLog(async () => {
      const io = await vm.guest.start(`${readBlock(name)} | tr -cd Z | wc -c`);
      await expectHanging(io, name);
      expect(disk.queue(0).counts).toMatchObject({ completed: before + 1, inFlight: 0 });
      disk.queue(0).interrupt();
      expect((await io.wait()).stdout.trim()).toBe('4096');
    });
    expect(log).toEqual([]);
  });

  test('of another queue\'s vector are unhandled there, and the driver waits for its own', async () => {
    const { disk, fn, name } = await plugDisk({ queues: 2 });
    disk.queue(0).misdirectInterrupts(1);
    const log = await kernelLog(async () => {
      const io = await vm.guest.start(`taskset -c 0 ${readBlock(name)}`); // CPU 0 uses queue 0
      await expectHanging(io, name);
      expect(await unhandled(fn, 2)).toBe(1);
      disk.queue(0).misdirectInterrupts(undefined);
      disk.queue(0).interrupt();
      await io.wait();
    });
    expect(log).toEqual([]);
  });
});

test('an answer given twice breaks the queue: the first counts, and I/O fails from then on', async () => {
  const { disk, name } = await plugDisk();
  disk.queue(0).duplicateAnswers();
  const log = await kernelLog(async () => {
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
  let far: PluggedDisk;
  let idle: PluggedDisk;
  let lost: PluggedDisk;
  beforeAll(async () => {
    [far, idle, lost] = [await plugDisk(), await plugDisk(), await plugDisk()];
  });

  test.each([
    ['out of range', 500, () => far],
    ['of no request in flight', 77, () => idle],
  ])('to an id %s: the queue is broken for good, the request hangs, and the next ones fail', async (what, id, which) => {
    const { disk, name } = which();
    disk.queue(0).answerWrongId(id);
    const log = await kernelLog(async () => {
      const io = await vm.guest.start(readBlock(name));
      await expectHanging(io, name);
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
    const { disk, name } = lost;
    await vm.guest.run(`[ ! -e /sys/block/${name}/queue/io_timeout ]`); // there only for drivers that handle timeouts
    disk.queue(0).dropAnswers();
    const log = await kernelLog(async () => {
      const io = await vm.guest.start(readBlock(name));
      await expectHanging(io, name);
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

describe('config space', () => {
  const capacity = (sectors: number): Uint8Array => new Uint8Array(new BigUint64Array([BigInt(sectors)]).buffer);
  const size = async (name: string): Promise<string> => (await vm.guest.run(`cat /sys/block/${name}/size`)).stdout.trim();

  // QEMU has one copy of a vhost-user-blk's config space, and counts config_generation up when it fetches it
  // anew: no back end can have the driver read half of the old and half of the new. suites/virtio-edu can.
  test('changed with no word is not seen, and is from the notification on', async () => {
    const { disk, name } = await plugDisk();
    const log = await kernelLog(async () => {
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
    const { disk, name } = await plugDisk();
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
  let broken: PluggedDisk;
  beforeAll(async () => {
    broken = await plugDisk();
  });
  const status = async (fn: PciFunction): Promise<string> => (await vm.guest.run(`cat ${fn.sysfs}/virtio*/status`)).stdout.trim();

  test('is not known to by the guest: QEMU keeps the status, without NEEDS_RESET, and I/O hangs', async () => {
    const { disk, fn, name } = broken;
    disk.gate.needsReset();
    const io = await vm.guest.start(readBlock(name));
    await expectHanging(io, name);
    expect(await status(fn)).toBe('0x0000000f'); // ACKNOWLEDGE, DRIVER, DRIVER_OK, FEATURES_OK
    await expect(vm).toHaveCleanLog();
  });

  test('is well again when the driver is bound anew', async () => {
    const { disk, fn } = await plugDisk();
    disk.gate.needsReset();
    expect(disk.gate.awaitsReset).toBe(true);
    await vm.guest.run(`cd /sys/bus/virtio/drivers/virtio_blk; dev=$(ls ${fn.sysfs} | grep ^virtio); echo $dev >unbind; echo $dev >bind`);
    expect(disk.gate.awaitsReset).toBe(false);
    const name = (await vm.guest.run(`ls ${fn.sysfs}/virtio*/block`)).stdout.trim();
    expect((await vm.guest.run(`${readBlock(name)} | tr -cd Z | wc -c`)).stdout.trim()).toBe('4096');
    expect(await vm.unplug(disk)).toLeaveNothingBehind();
  });
});

describe('virtio_rng', () => {
  const PATTERN = 0xaa;
  async function plugRng(): Promise<VirtioRng> {
    const rng = virtioRng({ source: Uint8Array.of(PATTERN) });
    await vm.plug(rng);
    return rng;
  }
  const readBytes = (count: number): string => `dd if=/dev/hwrng bs=${count} count=1 iflag=fullblock 2>/dev/null`;
  /** A read that hangs until the driver's remove() has it return with less than it asked for. */
  async function hangsUntilUnplugged(rng: VirtioRng, work: () => Promise<void> = async () => {}): Promise<void> {
    const io = await vm.guest.start(`${readBytes(256)} | wc -c`);
    await work();
    await expect(io.settled({ timeoutMs: HANG_MS })).rejects.toThrow(`waited ${HANG_MS / 1000} s`);
    expect(await vm.unplug(rng)).toLeaveNothingBehind();
    expect(Number((await io.wait()).stdout)).toBeLessThan(256);
  }

  // Debian's 6.1.0-56 cuts used.len down to the 64 bytes of the driver's buffer. Its 6.12.95 believes it, and
  // /dev/hwrng hands out kernel memory: a leak that only the bytes show, for the log is clean in both.
  test('given a length beyond its buffer asks again for every 64 bytes, or else hands out what lies behind the buffer', async () => {
    const rng = await plugRng();
    await vm.guest.run(readBytes(64));
    const before = rng.queue(0).counts.completed;
    rng.queue(0).answerWrongLength(4096, 4);
    expect(rng.queue(0).pendingFaults).toBe(4);
    const log = await kernelLog(async () => {
      const notOfTheDevice = Number((await vm.guest.run(`${readBytes(1024)} | tr -d '\\252' | wc -c`)).stdout);
      expect(rng.queue(0).pendingFaults).toBeLessThan(4);
      const given = (rng.queue(0).counts.completed - before) * 64;
      if (given >= 1024) expect(notOfTheDevice).toBe(0);
      else expect(notOfTheDevice).toBeGreaterThan(512);
    });
    expect(log).toEqual([]);
    expect(await vm.unplug(rng)).toLeaveNothingBehind();
    await expect(vm).toHaveCleanLog();
  });

  test('given a length of 0 asks for nothing more: reads hang, and end with the unplug', async () => {
    const rng = await plugRng();
    rng.queue(0).answerWrongLength(0);
    await hangsUntilUnplugged(rng);
    expect(rng.queue(0).counts.completed).toBe(rng.queue(0).counts.taken); // it is not the device that it waits for
    await expect(vm).toHaveCleanLog();
  });

  test('given a wrong id breaks its queue: reads hang, and end with the unplug', async () => {
    const rng = await plugRng();
    rng.queue(0).answerWrongId(1000);
    const log = await kernelLog(() => hangsUntilUnplugged(rng));
    expect(log).toEqual([expect.stringMatching(/^virtio_rng virtio\d+: input:id 1000 out of range$/)]);
  });

  test('whose back end dies with a request in flight hangs, and can be unplugged', async () => {
    const rng = await plugRng();
    rng.queue(0).hold();
    await hangsUntilUnplugged(rng, async () => {
      await rng.queue(0).nextRequest();
      await rng.gate.crash();
      expect(rng.queue(0).waiting).toBe(0); // not held any more: lost
    });
    await expect(vm).toHaveCleanLog();
  });
});

describe('an unplug between kick and completion', () => {
  test('ends once the request is answered, be it with an error', async () => {
    const { disk, name } = await plugDisk();
    disk.queue(0).hold();
    const io = await vm.guest.start(readBlock(name));
    const request = await disk.queue(0).nextRequest();
    const log = await kernelLog(async () => {
      const report = await vm.unplug(disk, { whenRemoving: () => request.complete({ status: IOERR }) });
      expect(report).toLeaveNothingBehind();
    });
    expect((await io.settled()).exitCode).toBe(1);
    expect(log).toEqual([]); // the block layer is silent about the errors of a disk that is going
    await expect(vm).toHaveCleanLog();
  });
});

// Last in the file: from here on this guest's hot-plug worker waits in virtio_blk's remove().
describe('a back end that dies', () => {
  let dead: PluggedDisk;
  beforeAll(async () => {
    dead = await plugDisk();
  });

  test('while the disk is idle goes unnoticed; unplugged and plugged again the disk has what it had', async () => {
    const { disk, fn } = await plugDisk();
    disk.bytes.write('still here');
    const log = await kernelLog(() => disk.gate.crash());
    expect(log).toEqual([]);
    expect(() => disk.gate.interruptConfig()).toThrow('no front end'); // it did die
    expect(await fn.driver()).toBe('virtio-pci');
    expect(await vm.unplug(disk)).toLeaveNothingBehind();
    const again = await vm.plug(disk);
    const name = (await vm.guest.run(`ls ${again.sysfs}/virtio*/block`)).stdout.trim();
    expect((await vm.guest.run(`${readBlock(name)} | head -c 10`)).stdout).toBe('still here');
    await expect(vm).toHaveCleanLog();
  });

  test('with a request in flight leaves it hanging, the guest alive, and a disk that cannot be unplugged', async () => {
    const { disk, name } = dead;
    disk.queue(0).hold();
    const log = await kernelLog(async () => {
      const io = await vm.guest.start(readBlock(name));
      await disk.queue(0).nextRequest();
      await disk.gate.crash();
      disk.queue(0).release();
      await expectHanging(io, name);
      await expect(vm.unplug(disk, { timeoutMs: 2000 })).rejects.toThrow('DEVICE_DELETED');
      await expect(io.settled({ timeoutMs: 1 })).rejects.toThrow('waited');
    });
    expect(log).toEqual([]);
    await expect(vm).toHaveCleanLog();
  });
});
