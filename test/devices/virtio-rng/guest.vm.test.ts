// The in-tree virtio_rng drives our entropy device in a real guest.
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { virtioRng } from '../../../src/devices/virtio-rng/index.ts';
import { restore } from '../../../src/machine/kept-snapshots.ts';
import type { Machine } from '../../../src/machine/machine.ts';

let machine: Machine;
beforeAll(async () => { machine = await restore(); }, 180_000);
afterAll(async () => { await machine?.close(); });

test('bytes that the guest reads from /dev/hwrng are those of our source, over MSI-X', async () => {
  const rng = virtioRng({ source: new Uint8Array([0xa7]) });
  const fn = await machine.plug(rng);
  await machine.guest.until('grep -q virtio /sys/class/misc/hw_random/rng_current', 'virtio_rng to be the current source', 10_000);
  const before = rng.queue(0).counts.completed;
  const { stdout } = await machine.guest.run('dd if=/dev/hwrng bs=64 count=16 iflag=fullblock | od -An -v -tx1 | tr -s " " "\\n" | sort | uniq -c');
  expect(stdout.trim().split('\n').filter((line) => /[0-9a-f]{2}$/.test(line)).at(-1)?.trim()).toBe('1024 a7');
  expect(rng.queue(0).counts.completed).toBeGreaterThan(before);
  expect(rng.bytesGiven).toBeGreaterThanOrEqual(1024);
  expect((await machine.guest.run(`ls ${fn.sysfs}/msi_irqs | wc -l`)).stdout.trim()).toBe('2');
  await machine.unplug(rng);
});

test('a held queue keeps a reader waiting, and a released one answers it', async () => {
  const rng = virtioRng();
  await machine.plug(rng);
  await machine.guest.until('grep -q virtio /sys/class/misc/hw_random/rng_current', 'virtio_rng to be the current source', 10_000);
  rng.queue(0).hold();
  const reading = await machine.guest.start('dd if=/dev/hwrng bs=256 count=4 iflag=fullblock | wc -c');
  await rng.queue(0).nextRequest({ timeoutMs: 10_000 });
  await expect(reading.wait({ timeoutMs: 200 })).rejects.toThrow('did not happen');
  rng.queue(0).release();
  expect((await reading.settled()).stdout.trim()).toBe('1024');
  await machine.unplug(rng);
});
