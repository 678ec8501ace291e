// The in-tree virtio_blk driver over our back end: a file system made, filled, verified and checked.
import { createHash } from 'node:crypto';
import { describe, expect, test } from '@jest/globals';
import { q35, virtioBlk, type PciFunction, type VirtioBlk } from 'rootport';
import { useMachine } from 'rootport/jest';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const vm = useMachine({ machine: q35({ cpus: 2 }) });
const MIB = 2 ** 20;

async function node(fn: PciFunction): Promise<string> {
  return `/dev/${(await vm.guest.run(`ls ${fn.sysfs}/virtio*/block`)).stdout.trim()}`;
}

describe.each(['memory', 'file'] as const)('a disk in %s', (where) => {
  async function withDisk(work: (disk: VirtioBlk, fn: PciFunction) => Promise<void>): Promise<void> {
    const directory = await mkdtemp(join(tmpdir(), 'virtio-blk-suite-'));
    try {
      const disk = virtioBlk({ capacityBytes: 64 * MIB, queues: 2, serial: 'suite-0001', ...(where === 'file' ? { file: join(directory, 'disk.raw') } : {}) });
      await work(disk, await vm.plug(disk));
      await vm.unplug(disk);
    } finally {
      await rm(directory, { recursive: true });
    }
  }

  test('mkfs.ext4, write, drop caches, the checksum is the same, and fsck finds nothing', async () => {
    await withDisk(async (disk, fn) => {
      const dev = await node(fn);
      const content = Buffer.alloc(8 * MIB);
      for (let i = 0; i < content.length; i += 4) content.writeUInt32LE((i * 2654435761) >>> 0, i);
      const checksum = createHash('sha256').update(content).digest('hex');
      await vm.guest.run(`mkfs.ext4 -q -F ${dev} && mount -t ext4 ${dev} /mnt`);
      await vm.guest.upload(content, '/mnt/content');
      await vm.guest.run('sync; echo 3 >/proc/sys/vm/drop_caches');
      expect((await vm.guest.run('sha256sum /mnt/content')).stdout.split(' ')[0]).toBe(checksum);
      await vm.guest.run('umount /mnt');
      const { stdout } = await vm.guest.run(`fsck.ext4 -f -n ${dev} 2>&1`);
      expect(stdout).toMatch(/\/dev\/vd[a-z]: \d+\/\d+ files/);
      expect(disk.refused).toEqual([]);
      await expect(vm).toHaveCleanLog();
    });
  });

  test('what the guest wrote past its cache is in the back end, byte for byte, and the other way round', async () => {
    await withDisk(async (disk, fn) => {
      const dev = await node(fn);
      const page = Buffer.from(Array.from({ length: 4096 }, (_, i) => (i * 7 + 3) & 0xff));
      await vm.guest.run(`dd of=${dev} bs=4096 seek=5 count=1 oflag=direct iflag=fullblock 2>/dev/null`, { input: page });
      const back = await vm.guest.run(`dd if=${dev} bs=4096 skip=5 count=1 iflag=direct 2>/dev/null | sha256sum`);
      expect(back.stdout.split(' ')[0]).toBe(createHash('sha256').update(page).digest('hex'));
      if (where === 'memory') {
        expect(disk.bytes.subarray(5 * 4096, 6 * 4096)).toEqual(page);
        disk.bytes.fill(0x5a, 8192, 12288);
        const { stdout } = await vm.guest.run(`dd if=${dev} bs=4096 skip=2 count=1 iflag=direct 2>/dev/null | tr -d Z | wc -c`);
        expect(stdout.trim()).toBe('0');
      }
    });
  });

  test('the driver sees the capacity, block size, serial and queues that the device has', async () => {
    await withDisk(async (_, fn) => {
      const dev = (await node(fn)).replace('/dev/', '');
      const { stdout } = await vm.guest.run(`cd /sys/block/${dev}; cat size queue/logical_block_size serial; echo; ls mq | wc -l`);
      expect(stdout.split(/\s+/).filter((word) => word !== '')).toEqual([`${64 * MIB / 512}`, '512', 'suite-0001', '2']);
    });
  });

  test('discard is not offered, and a driver that asks for it all the same is told so', async () => {
    await withDisk(async (_, fn) => {
      const dev = (await node(fn)).replace('/dev/', '');
      expect((await vm.guest.run(`cat /sys/block/${dev}/queue/discard_max_bytes`)).stdout.trim()).toBe('0');
      expect((await vm.guest.attempt(`fstrim /dev/${dev}; blkdiscard /dev/${dev}`)).exitCode).not.toBe(0);
    });
  });
});

test('a read-only disk refuses writes in the guest', async () => {
  const disk = virtioBlk({ capacityBytes: MIB, readOnly: true });
  const dev = await node(await vm.plug(disk));
  expect((await vm.guest.run(`cat /sys/block/${dev.replace('/dev/', '')}/ro`)).stdout.trim()).toBe('1');
  expect((await vm.guest.attempt(`dd if=/dev/zero of=${dev} bs=4096 count=1 oflag=direct`)).exitCode).not.toBe(0);
  expect(disk.bytes.every((byte) => byte === 0)).toBe(true);
});
