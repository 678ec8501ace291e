// VIRTIO_F_IN_ORDER with a driver that takes it: Linux 7.x's virtio_blk, over QEMU's vhost-user-blk. What the device
// finishes in any order the driver gets in order, one used entry for each request or one for a run of them, on either layout.
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { virtioBlk } from '../../src/devices/virtio-blk/index.ts';
import { boot } from '../../src/machine/boot.ts';
import type { Machine } from '../../src/machine/machine.ts';
import { ensureTree, silentProgress } from '../../src/packages/index.ts';
import { LAYOUTS } from './layouts.ts';

/** VIRTIO_F_RING_PACKED and VIRTIO_F_IN_ORDER (virtio 1.2, section 6). */
const [RING_PACKED, IN_ORDER] = [34, 35];
const MIB = 2 ** 20;

let machine: Machine;
beforeAll(async () => {
  const modules = join(await ensureTree('kernel-backports', silentProgress), 'usr/lib/modules');
  const [release] = await readdir(modules);
  const modulesDir = join(modules, release);
  machine = await boot({ kernel: { image: join(modulesDir, 'vmlinuz'), modulesDir } });
}, 600_000);
afterAll(() => machine.close());

const MATRIX = LAYOUTS.flatMap((layout) => ([true, 'batched'] as const).map((inOrder) => ({ layout, inOrder })));

describe.each(MATRIX)('a disk of $layout rings that offers VIRTIO_F_IN_ORDER ($inOrder)', ({ layout, inOrder }) => {
  test('has it, and keeps every byte of four writers at once', async () => {
    const { guest } = machine;
    const disk = virtioBlk({ capacityBytes: 16 * MIB, inOrder, packed: layout === 'packed', queueSize: 16 });
    const fn = await machine.plug(disk);
    const { stdout: features } = await guest.run(`cat ${fn.sysfs}/virtio*/features`);
    expect([features[RING_PACKED], features[IN_ORDER]]).toEqual([layout === 'packed' ? '1' : '0', '1']);
    const dev = `/dev/${(await guest.run(`ls ${fn.sysfs}/virtio*/block`)).stdout.trim()}`;
    await guest.run(`dd if=/dev/urandom of=/tmp/content bs=1M count=4 2>/dev/null
      for i in 0 1 2 3; do dd if=/tmp/content of=${dev} bs=4k skip=$((i * 256)) seek=$((i * 256)) count=256 oflag=direct conv=notrunc 2>/dev/null & done; wait`);
    const { stdout } = await guest.run(`md5sum </tmp/content; dd if=${dev} bs=4k count=1024 iflag=direct 2>/dev/null | md5sum`);
    const [wrote, read] = stdout.trim().split('\n').map((line) => line.slice(0, 32));
    expect(read).toBe(wrote);
    expect(disk.queue(0).counts.completed).toBeGreaterThan(1000);
    await machine.unplug(disk);
  });

  test('answers what was asked first first, though it was done last', async () => {
    const { guest } = machine;
    const disk = virtioBlk({ capacityBytes: 16 * MIB, inOrder, packed: layout === 'packed' });
    const fn = await machine.plug(disk);
    const dev = `/dev/${(await guest.run(`ls ${fn.sysfs}/virtio*/block`)).stdout.trim()}`;
    const queue = disk.queue(0);
    for (const [block, letter] of ['a', 'b', 'c', 'd'].entries()) disk.bytes.fill(letter, block * 4096, (block + 1) * 4096);
    queue.hold();
    const readers = [];
    const requests = [];
    for (const block of [0, 1, 2, 3]) {
      const shown = queue.nextRequest();
      readers.push(await guest.start(`dd if=${dev} bs=4k skip=${block} count=1 iflag=direct 2>/dev/null | head -c 1`));
      requests.push(await shown);
    }
    const { completed } = queue.counts;
    for (const last of [3, 2, 1]) requests[last].release();
    // Done by the device, and not one of them used: the oldest is not done.
    expect(queue.counts).toMatchObject({ inFlight: 4, completed });
    requests[0].release();
    expect((await Promise.all(readers.map((reader) => reader.wait()))).map(({ stdout }) => stdout)).toEqual(['a', 'b', 'c', 'd']);
    expect(queue.counts).toMatchObject({ inFlight: 0, completed: completed + 4 });
    queue.release();
    await machine.unplug(disk);
  });
});
