// The in-tree virtio_blk drives our disk in a real guest: what the mock driver cannot prove.
import { createHash } from 'node:crypto';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import { blkRequestHeader } from '../../../src/devices/virtio-blk/layout.ts';
import { virtioBlk } from '../../../src/devices/virtio-blk/index.ts';
import type { VirtioBlk } from '../../../src/devices/virtio-blk/index.ts';
import { restore } from '../../../src/machine/kept-snapshots.ts';
import type { Machine } from '../../../src/machine/machine.ts';
import { q35 } from '../../../src/qemu/preset.ts';

const MiB = 2 ** 20;
let machine: Machine;
let directory: string;
const plugged: VirtioBlk[] = [];
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'virtio-blk-vm-'));
  machine = await restore({ machine: q35({ cpus: 2 }) });
}, 180_000);
afterAll(async () => {
  await machine?.close();
  await rm(directory, { recursive: true });
});
afterEach(async () => {
  for (const disk of plugged.splice(0)) {
    for (let i = 0; i < disk.queues; i += 1) disk.queue(i).release();
    await machine.unplug(disk);
  }
});

async function plug(disk: VirtioBlk): Promise<string> {
  const fn = await machine.plug(disk);
  plugged.push(disk);
  const name = (await sh(`ls ${fn.sysfs}/virtio*/block`)).trim();
  await machine.guest.until(`blockdev --getsize64 /dev/${name} >/dev/null`, `/dev/${name}`, 10_000);
  return name;
}

async function sh(command: string): Promise<string> {
  return (await machine.guest.run(command)).stdout;
}

const sha = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

describe('in a guest, a disk', () => {
  test.each(['memory', 'file'] as const)('in %s keeps what is written to it, and is what it says it is', async (kind) => {
    const file = join(directory, 'disk');
    const disk = virtioBlk({ capacityBytes: 16 * MiB, queues: 2, serial: 'RP-1234567890-ABCDEF', ...(kind === 'file' && { file }) });
    const name = await plug(disk);
    expect(await sh(`cat /sys/block/${name}/serial`)).toBe('RP-1234567890-ABCDEF');
    const queue = Object.fromEntries((await sh(`cd /sys/block/${name}; grep -H . size queue/logical_block_size queue/physical_block_size queue/max_segments queue/discard_max_bytes queue/write_zeroes_max_bytes queue/write_cache ro; echo hw:$(ls mq | wc -l)`))
      .trim().split('\n').map((line) => line.split(':')));
    expect(queue).toEqual({
      size: '32768', 'queue/logical_block_size': '512', 'queue/physical_block_size': kind === 'file' ? '4096' : '512',
      'queue/max_segments': '126', 'queue/discard_max_bytes': '0', 'queue/write_zeroes_max_bytes': '0', 'queue/write_cache': 'write back', ro: '0', hw: '2',
    });
    await sh(`dd if=/dev/urandom of=/tmp/data bs=1M count=8; dd if=/tmp/data of=/dev/${name} bs=1M seek=4 oflag=direct conv=fsync; sync; echo 3 > /proc/sys/vm/drop_caches`);
    const [inRam, onDisk] = (await sh(`sha256sum /tmp/data; dd if=/dev/${name} bs=1M skip=4 count=8 | sha256sum; rm /tmp/data`)).split('\n').map((line) => line.slice(0, 64));
    const ours = (kind === 'file' ? await readFile(file) : disk.bytes).subarray(4 * MiB, 12 * MiB);
    expect([inRam, onDisk]).toEqual([sha(ours), sha(ours)]);
    expect(disk.refused).toEqual([]);
    expect(disk.queue(0).counts.completed + disk.queue(1).counts.completed).toBeGreaterThan(16);
  });

  test('that is read-only refuses writes in the guest\'s block layer', async () => {
    const disk = virtioBlk({ capacityBytes: MiB, readOnly: true });
    disk.bytes.fill(0x5a);
    const name = await plug(disk);
    expect(await sh(`cat /sys/block/${name}/ro`)).toBe('1\n');
    expect(await sh(`dd if=/dev/${name} bs=512 count=1 | tr -d Z | wc -c`)).toBe('0\n');
    expect((await machine.guest.attempt(`dd if=/dev/zero of=/dev/${name} bs=512 count=1 oflag=direct`)).exitCode).not.toBe(0);
    expect(disk.bytes.every((byte) => byte === 0x5a)).toBe(true);
  });

  test('whose queue is held keeps a reader waiting until it is released', async () => {
    const disk = virtioBlk({ capacityBytes: MiB });
    disk.bytes.fill(0x33, 25 * 4096, 26 * 4096);
    const name = await plug(disk);
    disk.queue(0).hold();
    const reading = await machine.guest.start(`dd if=/dev/${name} bs=4k skip=25 count=1 iflag=direct | tr -d 3 | wc -c`);
    const request = await disk.queue(0).nextRequest({ timeoutMs: 20_000 });
    expect(blkRequestHeader.decode(request.readable)).toEqual({ type: 0, reserved: expect.any(Number), sector: 200n });
    expect(request.writableBytes).toBe(4097);
    expect(disk.queue(0).counts.inFlight).toBe(1);
    disk.queue(0).release();
    expect((await reading.wait()).stdout).toBe('0\n');
  });

  test('that drops one interrupt leaves this reader and the next waiting, until it interrupts once more', async () => {
    const disk = virtioBlk({ capacityBytes: MiB });
    const name = await plug(disk);
    const read = (block: number): string => `dd if=/dev/${name} of=/dev/null bs=4k skip=${block} count=1 iflag=direct`;
    await sh(read(1));
    const before = disk.queue(0).counts;
    disk.queue(0).dropInterrupts();
    const readers = [];
    for (const block of [50, 150]) {
      const seen = disk.queue(0).nextRequest({ timeoutMs: 20_000 });
      readers.push(await machine.guest.start(read(block)));
      await seen;
    }
    const after = disk.queue(0).counts;
    // Both are completed; of the second the driver, which waits for the first, did not ask to be told.
    expect({ completed: after.completed - before.completed, notified: after.notified - before.notified }).toEqual({ completed: 2, notified: 1 });
    for (const reader of readers) await expect(reader.wait({ timeoutMs: 300 })).rejects.toThrow();
    disk.queue(0).interrupt();
    for (const reader of readers) expect((await reader.settled()).exitCode).toBe(0);
  });

  test('whose driver breaks no rule is refused nothing', async () => {
    const disk = virtioBlk({ capacityBytes: 4 * MiB, queues: 2, latencyMs: 1 });
    const name = await plug(disk);
    await sh(`for i in 1 2 3 4; do dd if=/dev/zero of=/dev/${name} bs=256k seek=$i count=3 oflag=direct conv=fsync & done; wait; sync`);
    expect(disk.refused).toEqual([]);
    expect(machine.deviceLog.filter((line) => line.includes('broken'))).toEqual([]);
  });
});
