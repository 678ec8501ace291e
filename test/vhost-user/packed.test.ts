// Packed rings and VIRTIO_F_IN_ORDER through a session: what is offered, sizes, the vring base with its two halves.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { VhostUserBackend } from '../../src/vhost-user/index.ts';
import { featureMask, ringFeatures, VIRTIO_F } from '../../src/virtio/features.ts';
import { PACKED_BASE } from '../../src/virtio/packed-virtqueue.ts';
import type { MockDriverOptions } from '../virtio/driver-side.ts';
import { PackedMockDriver } from '../virtio/packed-mock-driver.ts';
import { EchoDevice } from './echo-device.ts';
import { FrontEnd, GUEST_BASE } from './front-end.ts';
import type { FrontEndRing } from './front-end.ts';

let directory = '';
let device: EchoDevice;
let backend: VhostUserBackend;
let frontEnd: FrontEnd;
let errors: Error[];
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'vhost-'));
  device = new EchoDevice();
  errors = [];
  backend = VhostUserBackend.listen({ path: join(directory, 's'), device, onError: (error) => errors.push(error) });
  frontEnd = new FrontEnd(backend.path);
});
afterEach(async () => {
  frontEnd.close();
  await backend.close();
  rmSync(directory, { recursive: true });
});

async function start(options: MockDriverOptions = {}, base: number = PACKED_BASE): Promise<FrontEndRing<PackedMockDriver>> {
  device.ringFeatures = ringFeatures({ packed: true, inOrder: true });
  const driver = new PackedMockDriver({ memory: frontEnd.memory, base: GUEST_BASE, ...options });
  await frontEnd.negotiate(driver.features);
  await frontEnd.shareMemory();
  const ring = frontEnd.prepareDriver(0, driver, base);
  await frontEnd.startRing(ring);
  return ring;
}

async function answers(ring: FrontEndRing<PackedMockDriver>, count: number): Promise<string[]> {
  const seen: string[] = [];
  while (seen.length < count) {
    await frontEnd.signalled(ring.callFd);
    seen.push(...ring.driver.collect().map(({ len, written }) => Buffer.from(written.subarray(0, len)).toString()));
  }
  return seen;
}

test.each([
  { asked: {}, bits: [28, 29] },
  { asked: { packed: true }, bits: [28, 29, 34] },
  { asked: { packed: true, inOrder: true }, bits: [28, 29, 34, 35] },
])('a device that is asked for $asked offers ring features $bits', async ({ asked, bits }) => {
  device.ringFeatures = ringFeatures(asked);
  const offered = (await frontEnd.ask('GET_FEATURES', undefined)).value & featureMask(28, 29, 34, 35);
  expect(offered).toBe(featureMask(...bits));
});

test('a device that says nothing of its ring offers no packed one', async () => {
  const { value } = await frontEnd.ask('GET_FEATURES', undefined);
  expect(value & featureMask(VIRTIO_F.VIRTIO_F_RING_PACKED, VIRTIO_F.VIRTIO_F_IN_ORDER)).toBe(0n);
});

describe.each([{ eventIdx: false, indirect: false }, { eventIdx: true, indirect: true }])('a packed ring with %p', (options) => {
  test('of a size that is no power of two is served, over its wraps', async () => {
    const ring = await start({ size: 5, ...options });
    for (let i = 0; i < 17; i += 1) {
      ring.driver.submitOne(`r${i}`, options.indirect);
      expect(await answers(ring, 1)).toEqual([`R${i}`]);
    }
    expect(errors).toEqual([]);
  });

  test('is stopped with a base that has both indices and wrap counters, and goes on there', async () => {
    const ring = await start({ size: 5, ...options });
    for (const name of ['a', 'b', 'c']) {
      ring.driver.submit([Buffer.from(name)], [1]);
      expect(await answers(ring, 1)).toEqual([name.toUpperCase()]);
    }
    const stopped = await frontEnd.ask('GET_VRING_BASE', { index: 0, num: 0 });
    const base = new DataView(stopped.payload.buffer, stopped.payload.byteOffset).getUint32(4, true);
    expect(base).toBe(0x00010001); // six descriptors of a ring of five: index 1, in the second lap
    ring.driver.onKick = undefined;
    ring.driver.submit([Buffer.from('d')], [1]);
    frontEnd.send('SET_VRING_BASE', { index: 0, num: base });
    const kickFd = frontEnd.eventfd();
    await frontEnd.startRing({ ...ring, kickFd });
    expect(await answers(ring, 1)).toEqual(['D']);
    expect(errors).toEqual([]);
  });
});

test('requests in order are used in order, though the device finished them the other way round', async () => {
  const ring = await start({ inOrder: true });
  device.holding = true;
  for (const name of ['a', 'b', 'c']) ring.driver.submitOne(name);
  while (device.held.length < 3) await new Promise((resolve) => setImmediate(resolve));
  device.held.reverse();
  device.release();
  expect(await answers(ring, 3)).toEqual(['A', 'B', 'C']);
  expect(backend.queue(0)?.counts).toMatchObject({ completed: 3, notified: 1 });
});

test.each([
  { name: 'past the ring', base: 0x80088008, message: /is past its end/ },
  { name: 'with more used than available', base: 0x80048003, message: /used more than was available/ },
])('a base $name breaks the ring and not the session', async ({ base, message }) => {
  const ring = await start({}, base);
  expect(errors.map(({ message: text }) => text)).toEqual([expect.stringMatching(message)]);
  expect(await frontEnd.signalled(ring.errorFd)).toBe(1);
  expect((await frontEnd.ask('GET_QUEUE_NUM', undefined)).value).toBe(2n);
});

test('a base of more than 16 bits for a split ring ends the session', async () => {
  await frontEnd.negotiate();
  frontEnd.send('SET_VRING_BASE', { index: 0, num: 0x10000 });
  await frontEnd.closed();
  expect(errors).toHaveLength(1);
});
