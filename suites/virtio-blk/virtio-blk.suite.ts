// The in-tree virtio_blk driver over our back end: a file system made, filled, verified and checked. What it may discard:
// ranges.suite.ts; other people's tools on it: stress.suite.ts.
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import { q35, virtioBlk, type PciFunction, type VirtioBlk } from 'rootport';
import { useMachine } from 'rootport/jest';

const vm = useMachine({ machine: q35({ cpus: 2 }) });
const MIB = 2 ** 20;
const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

async function node(fn: PciFunction): Promise<string> {
  return `/dev/${(await vm.guest.run(`ls ${fn.sysfs}/virtio*/block`)).stdout.trim()}`;
}

/** A disk of 16 MiB in memory or in a file, plugged while `work` runs, and where its bytes are found in this process. */
async function withDisk(where: 'memory' | 'file', work: (disk: VirtioBlk, dev: string, bytes: (at: number, length: number) => Buffer) => Promise<void>): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), 'virtio-blk-suite-'));
  const file = join(directory, 'disk.raw');
  try {
    const disk = virtioBlk({ capacityBytes: 16 * MIB, queues: 2, serial: 'suite-0001', ...(where === 'file' ? { file } : {}) });
    const bytes = (at: number, length: number): Buffer => (where === 'file' ? readFileSync(file) : disk.bytes).subarray(at, at + length);
    await work(disk, await node(await vm.plug(disk)), bytes);
    await vm.unplug(disk);
  } finally {
    await rm(directory, { recursive: true });
  }
}

test('mkfs.ext4 on a disk in a file, write, drop caches, the checksum is the same, and fsck finds nothing', async () => {
  await withDisk('file', async (disk, dev) => {
    const content = Buffer.alloc(4 * MIB);
    for (let i = 0; i < content.length; i += 4) content.writeUInt32LE((i * 2654435761) >>> 0, i);
    await vm.guest.run(`mkfs.ext4 -q -F ${dev} && mount -t ext4 ${dev} /mnt`);
    await vm.guest.upload(content, '/mnt/content');
    await vm.guest.run('sync; echo 3 >/proc/sys/vm/drop_caches');
    expect((await vm.guest.run('sha256sum /mnt/content')).stdout.split(' ')[0]).toBe(sha256(content));
    await vm.guest.run('umount /mnt');
    const { stdout } = await vm.guest.run(`fsck.ext4 -f -n ${dev} 2>&1`);
    expect(stdout).toMatch(/\/dev\/vd[a-z]: \d+\/\d+ files/);
    expect(disk.refused).toEqual([]);
    await expect(vm).toHaveCleanLog();
  });
});

test.each(['memory', 'file'] as const)('the driver sees what a disk in %s has; what it wrote past its cache is in the back end, byte for byte, and the other way round', async (where) => {
  await withDisk(where, async (disk, dev, bytes) => {
    const { stdout: seen } = await vm.guest.run(`cd /sys/block/${dev.replace('/dev/', '')}; cat size queue/logical_block_size serial; echo; ls mq | wc -l`);
    expect(seen.split(/\s+/).filter((word) => word !== '')).toEqual([`${16 * MIB / 512}`, '512', 'suite-0001', '2']);
    const page = Buffer.from(Array.from({ length: 4096 }, (_, i) => (i * 7 + 3) & 0xff));
    await vm.guest.run(`dd of=${dev} bs=4096 seek=5 count=1 oflag=direct iflag=fullblock 2>/dev/null`, { input: page });
    const back = await vm.guest.run(`dd if=${dev} bs=4096 skip=5 count=1 iflag=direct 2>/dev/null | sha256sum`);
    expect(back.stdout.split(' ')[0]).toBe(sha256(page));
    expect(bytes(4 * 4096, 3 * 4096).equals(Buffer.concat([Buffer.alloc(4096), page, Buffer.alloc(4096)]))).toBe(true);
    if (where === 'memory') {
      disk.bytes.fill(0x5a, 8192, 12288);
      const { stdout } = await vm.guest.run(`dd if=${dev} bs=4096 skip=2 count=1 iflag=direct 2>/dev/null | tr -d Z | wc -c`);
      expect(stdout.trim()).toBe('0');
    }
  });
});

test('a read-only disk refuses writes in the guest', async () => {
  const disk = virtioBlk({ capacityBytes: MIB, readOnly: true });
  const dev = await node(await vm.plug(disk));
  expect((await vm.guest.run(`cat /sys/block/${dev.replace('/dev/', '')}/ro`)).stdout.trim()).toBe('1');
  expect((await vm.guest.attempt(`dd if=/dev/zero of=${dev} bs=4096 count=1 oflag=direct`)).exitCode).not.toBe(0);
  expect(disk.bytes.every((byte) => byte === 0)).toBe(true);
});
