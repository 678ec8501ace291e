// A disk behind its real vhost-user session: the front end is a test's, the socket, the memory and the
// eventfds are real.
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { virtioBlk } from '../../../src/devices/virtio-blk/index.ts';
import type { VirtioBlk } from '../../../src/devices/virtio-blk/index.ts';
import { blkRequestHeader } from '../../../src/devices/virtio-blk/layout.ts';
import { readEventfd } from '../../../src/native/index.ts';
import type { Attachment } from '../../../src/qemu/attachment.ts';
import { within } from '../../../src/wait.ts';
import { FrontEnd, GUEST_BASE } from '../../vhost-user/front-end.ts';

let directory: string;
let disk: VirtioBlk;
let attachment: Attachment;
let frontEnd: FrontEnd;
const failures: Error[] = [];
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'virtio-blk-'));
  disk = virtioBlk({ capacityBytes: 1 << 20, queues: 2 });
  attachment = await disk.attach({ id: 'disk', directory, fail: (error) => failures.push(error), log: () => undefined });
  frontEnd = new FrontEnd(attachment.chardevs[0].path);
});
afterEach(async () => {
  frontEnd.close();
  await attachment.detach();
  await rm(directory, { recursive: true });
  expect(failures.splice(0)).toEqual([]);
});

/** Resolves to the counts that were seen on the way, one a turn of the event loop. */
async function completed(count: number): Promise<number[]> {
  const counts: number[] = [];
  const seen = (async () => {
    while (disk.queue(0).counts.completed < count) {
      counts.push(disk.queue(0).counts.completed);
      await new Promise((resolve) => setImmediate(resolve));
    }
    return counts;
  })();
  return within(seen, { timeoutMs: 5000, what: `${count} requests to be completed` });
}

const readSector = (sector: bigint): Uint8Array => blkRequestHeader.encode({ type: 0, sector });

test('one kick for more than a turn of work has all of it done, and others get a turn in between', async () => {
  const { driver } = await frontEnd.start({ size: 128 });
  const header = driver.arena;
  const data = { addr: GUEST_BASE + 0x80000, len: 0x80000, flags: 3, next: 101 };
  frontEnd.memory.write(header, readSector(0n));
  driver.descriptor(100, data);
  driver.descriptor(101, { addr: driver.arena + 64, len: 1, flags: 2 });
  const heads = Array.from({ length: 64 }, (_, i) => i);
  for (const head of heads) driver.descriptor(head, { addr: header, len: 16, flags: 1, next: 100 });
  driver.publish(heads);
  const progress = await completed(64);
  expect(driver.kicks).toBe(1);
  expect(driver.collect().map(({ id }) => id)).toEqual(heads);
  expect(progress.some((count) => count > 0 && count < 64)).toBe(true);
});

test('a lost interrupt is not fired but claimed, a misdirected one fires the other queue\'s, and interrupt() mends', async () => {
  const { driver, callFd } = await frontEnd.start({ size: 8 });
  const other = frontEnd.prepareRing(1, { size: 8 });
  await frontEnd.startRing(other);
  const read = async (): Promise<[number, number]> => {
    const { completed: before } = disk.queue(0).counts;
    driver.submit([readSector(1n)], [512, 1]);
    await completed(before + 1);
    driver.collect();
    return [readEventfd(callFd), readEventfd(other.callFd)];
  };
  expect(await read()).toEqual([1, 0]);
  disk.queue(0).dropInterrupts();
  expect(await read()).toEqual([0, 0]);
  disk.queue(0).misdirectInterrupts(1);
  expect(await read()).toEqual([0, 1]);
  disk.queue(0).misdirectInterrupts(undefined);
  disk.queue(0).interrupt();
  expect(await frontEnd.signalled(callFd)).toBe(1);
  expect(attachment.witness?.fired()).toEqual(new Map([[0, 4]]));
});

test('a held request is given back when the ring is stopped, and answered when it runs again', async () => {
  const ring = await frontEnd.start({ size: 8 });
  disk.bytes.fill(0x77, 512, 1024);
  disk.queue(0).hold();
  const shown = disk.queue(0).nextRequest({ timeoutMs: 2000 });
  ring.driver.submit([readSector(1n)], [512, 1]);
  await shown;
  const { payload } = await frontEnd.ask('GET_VRING_BASE', { index: 0, num: 0 });
  expect(new Uint32Array(payload.buffer)).toEqual(new Uint32Array([0, 0]));
  expect(ring.driver.collect()).toEqual([]);
  disk.queue(0).release();
  frontEnd.send('SET_VRING_BASE', { index: 0, num: 0 });
  await frontEnd.startRing(ring);
  await completed(1);
  expect(ring.driver.collect().map(({ written }) => [written[0], written[511], written[512]])).toEqual([[0x77, 0x77, 0]]);
});

test('a driver that breaks its ring fails the machine with a ProtocolError, and the other queue goes on', async () => {
  const { driver } = await frontEnd.start({ size: 8 });
  const other = frontEnd.prepareRing(1, { size: 8 });
  await frontEnd.startRing(other);
  driver.publish([9]);
  other.driver.submit([readSector(1n)], [512, 1]);
  await frontEnd.signalled(other.callFd);
  expect(other.driver.collect()).toMatchObject([{ len: 513 }]);
  expect(failures.splice(0).map(({ message }) => message)).toEqual([expect.stringContaining('avail ring names descriptor 9 of 8')]);
});
