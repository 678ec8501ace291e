// What the in-tree virtio_blk driver does with a disk that offers discard and write-zeroes (virtio 1.2, 5.2.6), and
// with one that changes its capacity while it is in use (5.2.5.1); what the device was asked for is its own witness.
import { describe, expect, test } from '@jest/globals';
import { q35, virtioBlk, type PciFunction, type VirtioBlk } from 'rootport';
import { useMachine } from 'rootport/jest';

// busybox's blkdiscard knows no -z, and its shell takes its own applets first: these are called by their paths.
const vm = useMachine({
  machine: q35({ cpus: 2, ports: 2 }),
  packages: [{ name: 'util-linux', programs: ['blkdiscard', 'fallocate', 'fstrim'] }, { name: 'e2fsprogs', programs: ['resize2fs'] }],
});
const BLKDISCARD = '/usr/sbin/blkdiscard', FALLOCATE = '/usr/bin/fallocate', FSTRIM = '/usr/sbin/fstrim';
const MIB = 2 ** 20;

async function plugged(disk: VirtioBlk): Promise<{ fn: PciFunction; dev: string; sysfs: string }> {
  const fn = await vm.plug(disk);
  const name = (await vm.guest.run(`ls ${fn.sysfs}/virtio*/block`)).stdout.trim();
  return { fn, dev: `/dev/${name}`, sysfs: `/sys/block/${name}` };
}

const asked = (ranges: VirtioBlk['discarded']): number[][] => ranges.map(({ positionBytes, lengthBytes }) => [positionBytes, lengthBytes]);
const total = (ranges: VirtioBlk['discarded']): number => ranges.reduce((sum, { lengthBytes }) => sum + lengthBytes, 0);

const offering = (capacityBytes: number, packed = false): VirtioBlk => virtioBlk({ capacityBytes, queues: 2, discard: true, writeZeroes: true, packed });

describe('a disk that offers discard and write-zeroes', () => {
  test('is seen to take them, and by default a disk takes neither', async () => {
    const limits = 'cat queue/discard_max_bytes queue/write_zeroes_max_bytes';
    const { sysfs } = await plugged(offering(MIB));
    expect((await vm.guest.run(`cd ${sysfs}; ${limits}`)).stdout.trim().split('\n')).toEqual([`${8 * MIB}`, `${8 * MIB}`]);
    const plain = await plugged(virtioBlk({ capacityBytes: MIB }));
    expect((await vm.guest.run(`cd ${plain.sysfs}; ${limits}`)).stdout.trim().split('\n')).toEqual(['0', '0']);
    expect((await vm.guest.attempt(`${BLKDISCARD} ${plain.dev}`)).exitCode).not.toBe(0);
  });

  test.each([false, true])('is told what nobody needs and what is to be zero, those ranges and no other, in pieces of at most 8 MiB (packed rings: %p)', async (packed) => {
    const disk = offering(32 * MIB, packed);
    disk.bytes.fill(0x77);
    const { dev } = await plugged(disk);
    const zeroed = (from: number, to: number): void => {
      expect(disk.bytes.subarray(from, to).every((byte) => byte === 0)).toBe(true);
      expect([disk.bytes[from - 1], disk.bytes[to]]).toEqual([0x77, 0x77]);
    };
    await vm.guest.run(`${BLKDISCARD} -o ${MIB} -l 65536 ${dev}`);
    expect(asked(disk.discarded)).toEqual([[MIB, 65536]]);
    zeroed(MIB, MIB + 65536);
    // blkdiscard -z wants it zeroed and kept; what fallocate punches out may be dropped.
    await vm.guest.run(`${BLKDISCARD} -z -o 8192 -l 4096 ${dev}; ${FALLOCATE} -p -o 65536 -l 8192 ${dev}`);
    expect(disk.zeroed).toEqual([
      { positionBytes: 8192, lengthBytes: 4096, unmap: false }, { positionBytes: 65536, lengthBytes: 8192, unmap: true },
    ]);
    zeroed(8192, 12288);
    zeroed(65536, 73728);
    const { stdout } = await vm.guest.run(`dd if=${dev} bs=4096 skip=2 count=1 iflag=direct 2>/dev/null | tr -d '\\0' | wc -c`);
    expect(stdout.trim()).toBe('0');
    await vm.guest.run(`${BLKDISCARD} ${dev}`);
    const whole = disk.discarded.slice(1);
    expect(total(whole)).toBe(32 * MIB);
    expect(Math.max(...whole.map(({ lengthBytes }) => lengthBytes))).toBeLessThanOrEqual(8 * MIB);
    expect(disk.zeroed).toHaveLength(2);
    expect(disk.refused).toEqual([]);
    await expect(vm).toHaveCleanLog();
  });

  test('is discarded whole by mkfs.ext4, and told by fstrim of the room that a removed file leaves', async () => {
    const disk = offering(32 * MIB);
    const { dev } = await plugged(disk);
    await vm.guest.run(`mkfs.ext4 -q -F -E nodiscard ${dev} && mount -t ext4 ${dev} /mnt && dd if=/dev/urandom of=/mnt/file bs=1M count=4 2>/dev/null && sync`);
    expect(disk.discarded).toEqual([]);
    await vm.guest.run(`rm /mnt/file && sync && ${FSTRIM} /mnt && umount /mnt && e2fsck -f -n ${dev}`);
    expect(total(disk.discarded)).toBeGreaterThanOrEqual(4 * MIB);
    const before = disk.discarded.length;
    await vm.guest.run(`mkfs.ext4 -q -F ${dev}`);
    // All of it, and some of it twice: the journal's place once more.
    expect(total(disk.discarded.slice(before))).toBeGreaterThanOrEqual(32 * MIB);
    expect(Math.max(...disk.discarded.slice(before).map(({ positionBytes, lengthBytes }) => positionBytes + lengthBytes))).toBe(32 * MIB);
    expect(disk.refused).toEqual([]);
    await expect(vm).toHaveCleanLog();
  });
});

describe('a disk that is resized while it is plugged', () => {
  test('has its new size in the guest once the config-change interrupt came, and its new end can be written', async () => {
    const disk = virtioBlk({ capacityBytes: 4 * MIB, queues: 2 });
    disk.bytes.fill(0x11);
    const { dev, sysfs, fn } = await plugged(disk);
    const config = await vm.mark(fn);
    await disk.resize(6 * MIB);
    await vm.guest.until(`[ "$(cat ${sysfs}/size)" = ${6 * MIB / 512} ]`, 'the driver to see the new capacity', 10_000);
    await expect(fn).toHaveDelivered({ vector: 0, atLeast: 1, since: config });
    expect((await vm.guest.dmesg())).toMatch(/\[vd[a-z]\] new size: 12288 512-byte logical blocks/);
    await vm.guest.run(`tr '\\0' Z </dev/zero | dd of=${dev} bs=4096 seek=${6 * MIB / 4096 - 1} count=1 iflag=fullblock oflag=direct 2>/dev/null`);
    expect(disk.capacityBytes).toBe(6 * MIB);
    expect(disk.bytes).toHaveLength(6 * MIB);
    expect([disk.bytes[4 * MIB - 1], disk.bytes[4 * MIB], disk.bytes[6 * MIB - 4097], disk.bytes[6 * MIB - 4096], disk.bytes[6 * MIB - 1]]).toEqual([0x11, 0, 0, 0x5a, 0x5a]);
    expect(disk.refused).toEqual([]);
  });

  test('takes a mounted ext4 with it, which grows into the new room and is found whole', async () => {
    const disk = virtioBlk({ capacityBytes: 8 * MIB });
    const { dev, sysfs } = await plugged(disk);
    await vm.guest.run(`mkfs.ext4 -q -F ${dev} && mount -t ext4 ${dev} /mnt && echo kept >/mnt/file`);
    await disk.resize(24 * MIB);
    await vm.guest.until(`[ "$(cat ${sysfs}/size)" = ${24 * MIB / 512} ]`, 'the driver to see the new capacity', 10_000);
    await vm.guest.run(`resize2fs ${dev} && dd if=/dev/urandom of=/mnt/large bs=1M count=16 2>/dev/null && umount /mnt && e2fsck -f -n ${dev}`);
    await vm.guest.run(`mount -t ext4 ${dev} /mnt`);
    expect((await vm.guest.run('cat /mnt/file; wc -c </mnt/large; umount /mnt')).stdout).toBe(`kept\n${16 * MIB}\n`);
    expect(disk.refused).toEqual([]);
    await expect(vm).toHaveCleanLog();
  });

  test('is not asked for what it lost, and a request that was on its way there is refused and no more', async () => {
    const disk = virtioBlk({ capacityBytes: 4 * MIB });
    const { dev, sysfs } = await plugged(disk);
    const last = `dd if=${dev} of=/dev/null bs=4096 skip=1023 count=1 iflag=direct`;
    disk.queue(0).hold();
    const reading = await vm.guest.start(last);
    await disk.queue(0).nextRequest({ timeoutMs: 20_000 });
    await disk.resize(2 * MIB);
    disk.queue(0).release();
    expect((await reading.settled()).exitCode).not.toBe(0);
    expect(disk.refused.map(({ fault }) => fault)).toEqual(['sector-out-of-range']);
    await vm.guest.until(`[ "$(cat ${sysfs}/size)" = ${2 * MIB / 512} ]`, 'the driver to see the smaller capacity', 10_000);
    expect((await vm.guest.attempt(last)).stderr).toMatch(/0\+0 records in/);
    expect(disk.refused).toHaveLength(1);
  });
});
