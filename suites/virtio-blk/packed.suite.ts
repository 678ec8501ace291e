// The in-tree virtio_blk and virtio_rng drivers on packed rings (virtio 1.2, 2.8): a ring of few entries, answers out of
// order; a machine stopped and continued under I/O; devices unplugged and plugged again. fio and a file system on
// packed rings: stress.suite.ts.
import { createHash } from 'node:crypto';
import { describe, expect, test } from '@jest/globals';
import { q35, virtioBlk, virtioRng, type PciFunction } from 'rootport';
import { useMachine } from 'rootport/jest';

const vm = useMachine({ machine: q35({ cpus: 2 }) });
const MIB = 2 ** 20;
/** VIRTIO_F_RING_PACKED (virtio 1.2, section 6). */
const RING_PACKED = 34;

/** What the driver accepted: /sys/.../features has one character a bit, bit 0 first. */
async function packed(fn: PciFunction): Promise<boolean> {
  const { stdout } = await vm.guest.run(`cat ${fn.sysfs}/virtio*/features`);
  return stdout[RING_PACKED] === '1';
}

async function node(fn: PciFunction): Promise<string> {
  return `/dev/${(await vm.guest.run(`ls ${fn.sysfs}/virtio*/block`)).stdout.trim()}`;
}

test('disks and entropy devices that offer packed rings have them, and those that do not have none', async () => {
  for (const offered of [true, false]) {
    expect([offered, await packed(await vm.plug(virtioBlk({ capacityBytes: MIB, packed: offered })))]).toEqual([offered, offered]);
    expect([offered, await packed(await vm.plug(virtioRng({ packed: offered })))]).toEqual([offered, offered]);
  }
});

describe('a disk on packed rings', () => {
  test('of few entries, with requests done late, keeps every byte over many wraps', async () => {
    const disk = virtioBlk({ capacityBytes: 16 * MIB, queueSize: 8, latencyMs: 1, packed: true });
    const dev = await node(await vm.plug(disk));
    await vm.guest.run(`dd if=/dev/urandom of=/tmp/content bs=1M count=2 2>/dev/null
      for i in 0 1 2 3; do dd if=/tmp/content of=${dev} bs=4k skip=$((i * 128)) seek=$((i * 128)) count=128 oflag=direct conv=notrunc 2>/dev/null & done; wait`);
    const { stdout } = await vm.guest.run(`sha256sum </tmp/content; dd if=${dev} bs=4k count=512 iflag=direct 2>/dev/null | sha256sum`);
    const [wrote, read] = stdout.trim().split('\n').map((line) => line.slice(0, 64));
    expect(read).toBe(wrote);
    expect(createHash('sha256').update(disk.bytes.subarray(0, 2 * MIB)).digest('hex')).toBe(wrote);
    expect(disk.queue(0).counts.completed).toBeGreaterThan(500);
  });

  test('that finishes requests the other way round gives each reader its own bytes', async () => {
    const disk = virtioBlk({ capacityBytes: 16 * MIB, packed: true });
    const blocks = [100, 200, 300, 400];
    for (const block of blocks) disk.bytes.fill(block / 100, block * 4096, (block + 1) * 4096);
    const dev = await node(await vm.plug(disk));
    disk.queue(0).hold();
    const readers = [];
    const requests = [];
    for (const block of blocks) {
      readers.push(await vm.guest.start(`dd if=${dev} bs=4k skip=${block} count=1 iflag=direct 2>/dev/null | od -An -v -tu1 -w1 | sort | uniq -c`));
      requests.push(await disk.queue(0).nextRequest({ timeoutMs: 20_000 }));
    }
    for (const request of requests.reverse()) request.release();
    const read = await Promise.all(readers.map(async (reader) => (await reader.settled()).stdout.trim().split(/\s+/)));
    expect(read).toEqual(blocks.map((block) => ['4096', `${block / 100}`]));
    disk.queue(0).release();
    await vm.guest.run(`dd if=${dev} of=/dev/null bs=4k count=300 iflag=direct 2>/dev/null`); // and goes on from there, over wraps
  });

  test('answers what was under way when the machine was stopped, once it goes on', async () => {
    const disk = virtioBlk({ capacityBytes: 16 * MIB, packed: true });
    disk.bytes.fill(0x33, 40 * 4096, 41 * 4096);
    const dev = await node(await vm.plug(disk));
    disk.queue(0).hold();
    const reading = await vm.guest.start(`dd if=${dev} bs=4k skip=40 count=1 iflag=direct 2>/dev/null | tr -d 3 | wc -c`);
    await disk.queue(0).nextRequest({ timeoutMs: 20_000 });
    await vm.qmp.execute('stop');
    await vm.qmp.execute('cont');
    disk.queue(0).release();
    expect((await reading.settled()).stdout.trim()).toBe('0');
    // And goes on from there, over wraps.
    await vm.guest.run(`dd if=${dev} of=/dev/null bs=4k count=400 iflag=direct 2>/dev/null`);
    await expect(vm).toHaveCleanLog();
  });

  test('stopped and continued under load loses and repeats nothing', async () => {
    const disk = virtioBlk({ capacityBytes: 16 * MIB, queues: 2, packed: true });
    const dev = await node(await vm.plug(disk));
    await vm.guest.run('dd if=/dev/urandom of=/tmp/content bs=1M count=4 2>/dev/null');
    const writing = await vm.guest.start(`dd if=/tmp/content of=${dev} bs=4k oflag=direct 2>/dev/null; dd if=${dev} bs=4k count=1024 iflag=direct 2>/dev/null | sha256sum; sha256sum </tmp/content`);
    for (let round = 0; round < 4; round += 1) {
      await disk.queue(0).nextRequest({ timeoutMs: 20_000 });
      await vm.qmp.execute('stop');
      await vm.qmp.execute('cont');
    }
    const [read, wrote] = (await writing.settled()).stdout.trim().split('\n').map((line) => line.slice(0, 64));
    expect(read).toBe(wrote);
    expect(disk.refused).toEqual([]);
  });

  test('unplugged and plugged again is the same disk', async () => {
    const disk = virtioBlk({ capacityBytes: MIB, packed: true });
    for (let round = 0; round < 2; round += 1) {
      const fn = await vm.plug(disk);
      const dev = await node(fn);
      expect(await packed(fn)).toBe(true);
      expect((await vm.guest.run(`dd if=${dev} bs=512 skip=${round} count=1 iflag=direct 2>/dev/null | tr -d '\\0' | wc -c`)).stdout.trim()).toBe(round === 0 ? '0' : '512');
      await vm.guest.run(`tr '\\0' Z </dev/zero | dd of=${dev} bs=512 seek=${round + 1} count=1 iflag=fullblock oflag=direct 2>/dev/null`);
      await vm.unplug(disk);
      expect(disk.bytes.subarray((round + 1) * 512, (round + 2) * 512).every((byte) => byte === 0x5a)).toBe(true);
    }
    await expect(vm).toHaveCleanLog();
  });
});

test('an entropy device on packed rings gives its bytes, before and after it was unplugged', async () => {
  const rng = virtioRng({ source: new Uint8Array([0xa7]), packed: true });
  for (let round = 0; round < 2; round += 1) {
    expect(await packed(await vm.plug(rng))).toBe(true);
    await vm.guest.until('grep -q virtio /sys/class/misc/hw_random/rng_current', 'virtio_rng to be the current source', 10_000);
    const { stdout } = await vm.guest.run("dd if=/dev/hwrng bs=64 count=64 iflag=fullblock 2>/dev/null | tr -d '\\247' | wc -c");
    expect(stdout.trim()).toBe('0');
    await vm.unplug(rng);
  }
  expect(rng.bytesGiven).toBeGreaterThanOrEqual(2 * 4096);
});
