// Other people's tools on the in-tree virtio_blk driver over our back end: fio that checksums what it wrote,
// badblocks, and XFS and ext4 made, filled, checked; each with the device's own view of it. The tools are
// Debian's (`packages`), four CPUs give each of four queues a CPU of its own.
import { createHash } from 'node:crypto';
import { describe, expect, test } from '@jest/globals';
import { q35, virtioBlk, type VirtioBlk } from 'rootport';
import { useMachine } from 'rootport/jest';

const QUEUES = 4, MIB = 2 ** 20, BLOCK = 4096;
const vm = useMachine({
  machine: q35({ cpus: QUEUES, ports: 2 }),
  modules: ['xfs'],
  packages: ['fio', { name: 'xfsprogs', programs: ['mkfs.xfs', 'xfs_repair'] }],
});

async function plugged(disk: VirtioBlk): Promise<string> {
  const fn = await vm.plug(disk);
  return `/dev/${(await vm.guest.run(`ls ${fn.sysfs}/virtio*/block`)).stdout.trim()}`;
}

function completed(disk: VirtioBlk): number[] {
  return Array.from({ length: QUEUES }, (_, index) => disk.queue(index).counts.completed);
}

const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

describe.each([false, true])('on packed rings: %p', (packed) => {
  /** Each job has a CPU, and with it a queue; a part of the disk, and 16 requests of 4 KiB under way. */
  const BLOCKS_EACH = 256;
  const fio = (dev: string, more = ''): string =>
    `fio --name=verify --filename=${dev} --rw=randwrite --bs=${BLOCK} --size=${BLOCKS_EACH * BLOCK} --offset_increment=${BLOCKS_EACH * BLOCK} ` +
    `--numjobs=${QUEUES} --thread --cpus_allowed=0-${QUEUES - 1} --cpus_allowed_policy=split --ioengine=libaio --iodepth=16 --direct=1 ` +
    `--verify=crc32c --verify_fatal=1 --randseed=7 ${more} --group_reporting --output-format=json`;

  test('fio finds every block that four jobs wrote at random as they wrote it, by crc32c, each job over its own queue', async () => {
    const disk = virtioBlk({ capacityBytes: 8 * MIB, queues: QUEUES, packed });
    const dev = await plugged(disk);
    const before = completed(disk);
    const { stdout } = await vm.guest.run(fio(dev), { timeoutMs: 90_000 });
    const { jobs } = JSON.parse(stdout.slice(stdout.indexOf('{'))) as { jobs: { error: number; read: { total_ios: number }; write: { total_ios: number } }[] };
    expect(jobs.map(({ error, read, write }) => [error, write.total_ios, read.total_ios])).toEqual([[0, QUEUES * BLOCKS_EACH, QUEUES * BLOCKS_EACH]]);
    // The device's side: each queue carried one job's writes and its reads.
    for (const [index, count] of completed(disk).entries()) expect(count - before[index]).toBeGreaterThanOrEqual(2 * BLOCKS_EACH);
    // And fio's header (verify.h: magic 0xacca, the offset at 16) stands in each block of the disk, where it belongs.
    for (let at = 0; at < QUEUES * BLOCKS_EACH * BLOCK; at += BLOCK) {
      expect([disk.bytes.readUInt16LE(at), Number(disk.bytes.readBigUInt64LE(at + 16))]).toEqual([0xacca, at]);
    }
    expect(disk.refused).toEqual([]);

    // One byte that the device falsified is one byte too many.
    disk.bytes[100 * BLOCK + 1000] ^= 1;
    const again = await vm.guest.attempt(fio(dev, '--verify_only'));
    expect(again.exitCode).not.toBe(0);
    expect(`${again.stdout}${again.stderr}`).toMatch(new RegExp(`crc32c: verify failed at file ${dev} offset ${100 * BLOCK}`));
    await expect(vm).toHaveCleanLog();
  });
});

test('badblocks finds none while it overwrites the disk with its patterns, and the block that is bad', async () => {
  const disk = virtioBlk({ capacityBytes: 4 * MIB, queues: QUEUES });
  const dev = await plugged(disk);
  expect((await vm.guest.run(`badblocks -w -b ${BLOCK} -t 0xaa -t 0x55 ${dev}`)).stdout).toBe('');
  expect(disk.bytes.equals(Buffer.alloc(4 * MIB, 0x55))).toBe(true);
  disk.bytes[77 * BLOCK] = 0x54;
  expect((await vm.guest.run(`echo 3 >/proc/sys/vm/drop_caches; badblocks -b ${BLOCK} -t 0x55 ${dev}`)).stdout.trim()).toBe('77');
  expect(disk.refused).toEqual([]);
  await expect(vm).toHaveCleanLog();
});

const FILE_SYSTEMS: readonly { type: string; packed: boolean; make: string; check: string; magic: [at: number, bytes: string] }[] = [
  // xfsprogs wants 300 MiB unless told; and 6.1 calls large extent counts (nrext64) an experiment.
  { type: 'xfs', packed: false, make: 'mkfs.xfs --unsupported -q -f -i nrext64=0', check: 'xfs_repair -n', magic: [0, '58465342'] },
  { type: 'ext4', packed: true, make: 'mkfs.ext4 -q -F', check: 'e2fsck -f -n', magic: [1024 + 0x38, '53ef'] },
];
test.each(FILE_SYSTEMS)('$type (packed rings: $packed) is made, mounted, filled by all CPUs at once, has it after a remount, and its own check finds nothing', async ({ type, packed, make, check, magic }) => {
  const disk = virtioBlk({ capacityBytes: 64 * MIB, queues: QUEUES, packed });
  const dev = await plugged(disk);
  const before = completed(disk);
  await vm.guest.run(`${make} ${dev} && mount -t ${type} ${dev} /mnt`);
  const content = Buffer.alloc(MIB / 2);
  for (let i = 0; i < content.length; i += 4) content.writeUInt32LE((i * 2654435761) >>> 0, i);
  await vm.guest.upload(content, '/tmp/content');
  await vm.guest.run(`for i in 0 1 2 3; do taskset -c $i sh -c 'mkdir /mnt/$0 && for f in 1 2 3; do dd if=/tmp/content of=/mnt/$0/$f bs=64k conv=fsync 2>/dev/null; done; rm /mnt/$0/2' $i & done; wait
    umount /mnt && mount -t ${type} -o ro ${dev} /mnt`, { timeoutMs: 90_000 });
  const { stdout } = await vm.guest.run('sha256sum /mnt/[0-3]/*; umount /mnt');
  const sums = stdout.trim().split('\n').map((line) => line.split(/\s+/));
  expect(sums).toEqual([0, 1, 2, 3].flatMap((i) => [1, 3].map((f) => [sha256(content), `/mnt/${i}/${f}`])));
  await vm.guest.run(`${check} ${dev}`);
  // The device's side: the file system is on the disk, the file's bytes are, and every queue worked for it.
  expect(disk.bytes.toString('hex', magic[0], magic[0] + magic[1].length / 2)).toBe(magic[1]);
  expect(disk.bytes.includes(content.subarray(0, 64 * 1024))).toBe(true);
  for (const [index, count] of completed(disk).entries()) expect(count).toBeGreaterThan(before[index]);
  expect(disk.refused).toEqual([]);
  await expect(vm).toHaveCleanLog();
});
