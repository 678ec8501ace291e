// A disk in a thread of its own serves the guest while the test's event loop stands still.
import { createHash } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { virtioBlk } from '../../../src/devices/virtio-blk/index.ts';
import { restore } from '../../../src/machine/kept-snapshots.ts';
import type { Machine } from '../../../src/machine/machine.ts';
import type { Device, FireWitness } from '../../../src/qemu/attachment.ts';

const MiB = 2 ** 20;
let machine: Machine;
let directory: string;
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'virtio-blk-worker-'));
  machine = await restore();
}, 180_000);
afterAll(async () => {
  await machine?.close();
  await rm(directory, { recursive: true });
});

const sha = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

test.each(['memory', 'file'] as const)('a disk in %s keeps what is written to it, and leaves nothing behind', async (kind) => {
  const file = join(directory, 'disk');
  const disk = virtioBlk({ capacityBytes: 16 * MiB, worker: true, queues: 2, serial: 'in-a-thread', ...(kind === 'file' && { file }) });
  for (let plug = 0; plug < 2; plug += 1) { // the same disk again: its thread is another
    const { sysfs } = await machine.plug(disk);
    const name = (await machine.guest.run(`ls ${sysfs}/virtio*/block`)).stdout.trim();
    expect((await machine.guest.run(`cat /sys/block/${name}/serial`)).stdout).toBe('in-a-thread');
    const { stdout } = await machine.guest.run(
      `dd if=/dev/urandom of=/tmp/data bs=1M count=4 2>/dev/null; dd if=/tmp/data of=/dev/${name} bs=1M seek=3 oflag=direct conv=fsync 2>/dev/null; sha256sum </tmp/data`);
    const bytes = kind === 'memory' ? disk.bytes : readFileSync(file);
    expect(sha(bytes.subarray(3 * MiB, 7 * MiB))).toBe(stdout.slice(0, 64));
    expect(await machine.unplug(disk)).toMatchObject({ removeReturned: true, leftovers: [] });
  }
  expect(disk.refused).toEqual([]);
});

test('requests are served while this thread does not yield once', async () => {
  const disk = virtioBlk({ capacityBytes: MiB, worker: true });
  let witness: FireWitness | undefined;
  const watched: Device = {
    ...disk,
    async attach(site) {
      const attachment = await disk.attach(site);
      ({ witness } = attachment);
      return attachment;
    },
  };
  const { sysfs } = await machine.plug(watched);
  const name = (await machine.guest.run(`ls ${sysfs}/virtio*/block`)).stdout.trim();
  const reader = await machine.guest.start(`touch /tmp/go; while [ -e /tmp/go ]; do dd if=/dev/${name} of=/dev/null bs=4k iflag=direct 2>/dev/null; done`);
  const fired = (): number => witness?.fired().get(0) ?? 0;
  const before = fired(), until = Date.now() + 30_000;
  while (fired() < before + 100 && Date.now() < until); // no await: the event loop stands still
  expect(fired()).toBeGreaterThanOrEqual(before + 100);
  await machine.guest.run('rm /tmp/go');
  await reader.wait();
  await machine.unplug(watched);
});

test('what cannot be done in another thread is a UsageError that says so', async () => {
  expect(() => virtioBlk({ capacityBytes: MiB, worker: true, latencyMs: 5 })).toThrow(/latencyMs, hang or reconnect with worker: true/);
  expect(() => virtioBlk({ capacityBytes: MiB, worker: true, reconnect: true })).toThrow(/leave worker out/);
  const disk = virtioBlk({ capacityBytes: MiB, worker: true });
  expect(() => disk.queue(0)).toThrow(/queue\(\) with worker: true/);
  expect(() => disk.gate.needsReset()).toThrow(/gate with worker: true/);
});

test('a file that the thread cannot open is the error of the plug, and nothing stays plugged', async () => {
  const disk = virtioBlk({ capacityBytes: MiB, worker: true, file: join(directory, 'no-such-directory/disk') });
  await expect(machine.plug(disk)).rejects.toMatchObject({ name: 'EnvironmentError', message: expect.stringContaining('no-such-directory') });
  await expect(machine.plug(disk)).rejects.toMatchObject({ name: 'EnvironmentError' }); // and not "plugged already"
});
