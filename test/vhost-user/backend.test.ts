import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { DeadlineError, ProtocolError, UsageError } from '../../src/errors.ts';
import { createMemfd, closeFd, signalEventfd, readEventfd, socketPair, receiveMessage, sendMessage } from '../../src/native/index.ts';
import type { PayloadOf } from '../../src/vhost-user/codec.ts';
import { CONFIG_CHANGE, VhostUserBackend } from '../../src/vhost-user/index.ts';
import type { VhostUserBackendOptions } from '../../src/vhost-user/index.ts';
import { PROTOCOL_FEATURES } from '../../src/vhost-user/requests.ts';
import { featureMask, VIRTIO_F } from '../../src/virtio/features.ts';
import { within } from '../../src/wait.ts';
import { openDescriptors } from '../native/open-descriptors.ts';
import { EchoDevice } from './echo-device.ts';
import { configBytes, FrontEnd, GUEST_BASE, MEMORY_BYTES, USER_BASE } from './front-end.ts';

let directory = '';
let before: string[] = [];
let device = new EchoDevice();
let backend: VhostUserBackend;
let frontEnds: FrontEnd[] = [];
let errors: Error[] = [];
let lines: string[] = [];

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'vhost-'));
  before = openDescriptors();
  errors = [];
  lines = [];
  listen();
});
afterEach(async () => {
  device.release();
  for (const frontEnd of frontEnds) frontEnd.close();
  frontEnds = [];
  await backend.close();
  rmSync(directory, { recursive: true });
  expect(openDescriptors()).toEqual(before);
  expect(readFileSync('/proc/self/maps', 'utf8')).not.toContain('memfd:guest');
});

function listen(options: Partial<VhostUserBackendOptions> = {}): void {
  device = new EchoDevice();
  backend = VhostUserBackend.listen({
    path: join(directory, 's'), device, onError: (error) => errors.push(error), log: (line) => lines.push(line), ...options,
  });
}

function connect(): FrontEnd {
  const frontEnd = new FrontEnd(backend.path);
  frontEnds.push(frontEnd);
  return frontEnd;
}

function hangUp(frontEnd: FrontEnd): void {
  frontEnds = frontEnds.filter((other) => other !== frontEnd);
  frontEnd.close();
}

const turns = async (count: number): Promise<void> => {
  for (let turn = 0; turn < count; turn++) await new Promise((resolve) => setImmediate(resolve));
};

async function until(what: string, done: () => boolean): Promise<void> {
  const reached = (async () => {
    while (!done()) await new Promise((resolve) => setImmediate(resolve));
  })();
  await within(reached, { timeoutMs: 2000, what });
}

const text = (bytes: Uint8Array): string => new TextDecoder().decode(bytes);

describe('negotiation', () => {
  test('the device’s features are offered with VERSION_1, EVENT_IDX, INDIRECT, the dirty log and the protocol features', async () => {
    const { value } = await connect().ask('GET_FEATURES', undefined);
    expect(value).toBe((1n << 5n) | (1n << 26n) | (1n << 28n) | (1n << 29n) | (1n << 30n) | (1n << 32n));
  });

  test('config features are offered only for a device with config space', async () => {
    const frontEnd = connect();
    const bits = async (): Promise<bigint> => (await frontEnd.ask('GET_PROTOCOL_FEATURES', undefined)).value;
    expect((await bits()) & featureMask(5, 9)).toBe(featureMask(5, 9));
    device.configSpace = new Uint8Array(0);
    expect((await bits()) & featureMask(5, 9)).toBe(0n);
  });

  test('accepted features reach the device without the transport’s own bit', async () => {
    const frontEnd = connect();
    await frontEnd.negotiate();
    await frontEnd.shareMemory();
    expect(device.accepted).toBe(featureMask(VIRTIO_F.VIRTIO_F_VERSION_1));
    expect(backend.features).toBe(device.accepted);
  });

  test('the number of queues is the device’s', async () => {
    const frontEnd = connect();
    await frontEnd.negotiate();
    expect((await frontEnd.ask('GET_QUEUE_NUM', undefined)).value).toBe(2n);
  });

  test('config space is read by parts, zeroes beyond its end, and written', async () => {
    const frontEnd = connect();
    await frontEnd.negotiate();
    const get = async (offset: number, size: number): Promise<number[]> =>
      Array.from(configBytes(await frontEnd.ask('GET_CONFIG', { offset, flags: 0, bytes: new Uint8Array(size) })));
    expect(await get(0, 10)).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 0, 0]);
    expect(await get(6, 2)).toEqual([7, 8]);
    const write = (offset: number): Promise<{ value: bigint }> =>
      frontEnd.ask('SET_CONFIG', { offset, flags: 0, bytes: new Uint8Array([9, 9]) }, { needReply: true });
    expect((await write(1)).value).toBe(0n);
    expect(await get(0, 4)).toEqual([1, 9, 9, 4]);
    expect((await write(7)).value).toBe(1n); // refused, and the session goes on
    expect(await get(0, 4)).toEqual([1, 9, 9, 4]);
  });
});

describe('a ring', () => {
  test.each([
    ['plain', {}],
    ['EVENT_IDX', { eventIdx: true }],
    ['INDIRECT', { indirect: true }],
    ['both', { eventIdx: true, indirect: true }],
  ])('serves requests and interrupts the driver (%s)', async (_name, options) => {
    const frontEnd = connect();
    const ring = await frontEnd.start(options);
    for (const word of ['one', 'two', 'three']) {
      ring.driver.submitOne(word, 'indirect' in options);
      expect(await frontEnd.signalled(ring.callFd)).toBe(1);
      expect(ring.driver.collect().map(({ written }) => text(written))).toEqual([word.toUpperCase()]);
    }
    expect(backend.fired()).toEqual(new Map([[0, 3]]));
    expect(backend.signalled()).toEqual(new Map([[0, 3]]));
    expect(backend.queue(0)?.counts).toMatchObject({ taken: 3, completed: 3, inFlight: 0 });
    expect(errors).toEqual([]);
  });

  test('a kick that came before the ring was enabled is not lost', async () => {
    const frontEnd = connect();
    await frontEnd.negotiate();
    await frontEnd.shareMemory();
    const ring = frontEnd.prepareRing(0);
    frontEnd.send('SET_VRING_KICK', 0n, { fds: [ring.kickFd] });
    ring.driver.submitOne('early');
    await until('the kick to be seen', () => backend.kicked().get(0) === 1);
    expect(ring.driver.collect()).toEqual([]);
    frontEnd.send('SET_VRING_ENABLE', { index: 0, num: 1 });
    await frontEnd.signalled(ring.callFd);
    expect(ring.driver.collect().map(({ written }) => text(written))).toEqual(['EARLY']);
  });

  test('requests that were there before the ring started are served without a kick', async () => {
    const frontEnd = connect();
    await frontEnd.negotiate();
    await frontEnd.shareMemory();
    const ring = frontEnd.prepareRing(0);
    ring.driver.onKick = undefined;
    ring.driver.submitOne('there');
    await frontEnd.startRing(ring);
    await frontEnd.signalled(ring.callFd);
    expect(ring.driver.collect()).toHaveLength(1);
  });

  test('a ring that is enabled before it starts is looked into when it starts', async () => {
    const frontEnd = connect();
    await frontEnd.negotiate();
    await frontEnd.shareMemory();
    const ring = frontEnd.prepareRing(0);
    ring.driver.onKick = undefined;
    ring.driver.submitOne('there');
    frontEnd.send('SET_VRING_ENABLE', { index: 0, num: 1 });
    frontEnd.send('SET_VRING_KICK', 0n, { fds: [ring.kickFd] });
    await frontEnd.signalled(ring.callFd);
  });

  test('a new kick eventfd takes over in the middle of a run', async () => {
    const frontEnd = connect();
    const ring = await frontEnd.start();
    const other = frontEnd.eventfd();
    await frontEnd.ask('SET_VRING_KICK', 0n, { fds: [other], needReply: true });
    ring.driver.onKick = () => signalEventfd(other);
    ring.driver.submitOne('x');
    await frontEnd.signalled(ring.callFd);
    signalEventfd(ring.kickFd);
    await turns(5);
    expect(backend.kicked()).toEqual(new Map([[0, 1]]));
  });

  test('without the protocol features the ring is enabled from its start', async () => {
    const frontEnd = connect();
    frontEnd.send('SET_FEATURES', featureMask(VIRTIO_F.VIRTIO_F_VERSION_1));
    frontEnd.send('SET_MEM_TABLE', [frontEnd.region()], { fds: [frontEnd.memory.fd] });
    const ring = frontEnd.prepareRing(0);
    frontEnd.send('SET_VRING_KICK', 0n, { fds: [ring.kickFd] });
    ring.driver.submitOne('x');
    await frontEnd.signalled(ring.callFd);
  });

  test('a disabled ring takes nothing until it is enabled again', async () => {
    const frontEnd = connect();
    const ring = await frontEnd.start();
    await frontEnd.ask('SET_VRING_ENABLE', { index: 0, num: 0 }, { needReply: true });
    ring.driver.submitOne('later');
    await until('the kick to be seen', () => backend.kicked().get(0) === 1);
    expect(backend.queue(0)?.counts.taken).toBe(0);
    expect(device.disables).toEqual([0]);
    frontEnd.send('SET_VRING_ENABLE', { index: 0, num: 1 });
    await frontEnd.signalled(ring.callFd);
  });

  test('two rings have interrupts of their own', async () => {
    const frontEnd = connect();
    const first = await frontEnd.start();
    const second = frontEnd.prepareRing(1);
    await frontEnd.startRing(second);
    second.driver.submitOne('x');
    await frontEnd.signalled(second.callFd);
    expect(readEventfd(first.callFd)).toBe(0);
    expect(backend.fired()).toEqual(new Map([[1, 1]]));
  });

  test('a new call eventfd takes over in the middle of a run', async () => {
    const frontEnd = connect();
    const ring = await frontEnd.start();
    const other = frontEnd.eventfd();
    frontEnd.send('SET_VRING_CALL', 0n, { fds: [other] });
    ring.driver.submitOne('x');
    await frontEnd.signalled(other);
    expect(readEventfd(ring.callFd)).toBe(0);
  });

  test('a driver that polls (no call eventfd) is served, and nothing is said to have left', async () => {
    const frontEnd = connect();
    const ring = await frontEnd.start();
    await frontEnd.ask('SET_VRING_CALL', 0x100n, { needReply: true });
    ring.driver.submitOne('x');
    await until('the request to be used', () => ring.driver.collect().length === 1);
    expect(backend.signalled()).toEqual(new Map());
  });

  test('GET_VRING_BASE waits for requests in flight, answers where the ring came to, and stops it', async () => {
    const frontEnd = connect();
    const ring = await frontEnd.start();
    device.holding = true;
    ring.driver.submitOne('slow');
    await until('the device to have it', () => device.held.length === 1);
    let answered = false;
    const base = frontEnd.ask('GET_VRING_BASE', { index: 0, num: 0 }).then(({ value }) => {
      answered = true;
      return Number(value >> 32n);
    });
    await turns(20);
    expect(answered).toBe(false);
    device.release();
    expect(await base).toBe(1);
    expect(ring.driver.collect().map(({ written }) => text(written))).toEqual(['SLOW']);
    expect(backend.queue(0)).toBeUndefined();
    ring.driver.submitOne('unheard');
    await turns(20);
    expect(ring.driver.collect()).toEqual([]);
  });

  test('a stopped ring goes on from its base when it is started again', async () => {
    const frontEnd = connect();
    const ring = await frontEnd.start();
    ring.driver.submitOne('a');
    await frontEnd.signalled(ring.callFd);
    ring.driver.collect();
    const num = Number((await frontEnd.ask('GET_VRING_BASE', { index: 0, num: 0 })).value >> 32n);
    expect(num).toBe(1);
    ring.driver.submitOne('b');
    frontEnd.send('SET_VRING_NUM', { index: 0, num: 8 });
    frontEnd.send('SET_VRING_BASE', { index: 0, num });
    frontEnd.send('SET_VRING_ADDR', frontEnd.addresses(ring));
    await frontEnd.startRing(ring);
    await frontEnd.signalled(ring.callFd);
    expect(ring.driver.collect().map(({ written }) => text(written))).toEqual(['B']);
  });

  test('a broken ring signals the error eventfd, is reported once, and the other ring goes on', async () => {
    const frontEnd = connect();
    const ring = await frontEnd.start();
    const other = frontEnd.prepareRing(1);
    await frontEnd.startRing(other);
    ring.driver.availHead(0, 99);
    ring.driver.availIndex(1);
    signalEventfd(ring.kickFd);
    signalEventfd(ring.kickFd);
    await frontEnd.signalled(ring.errorFd);
    expect(errors).toHaveLength(1);
    expect(errors[0]).toBeInstanceOf(ProtocolError);
    expect(errors[0]?.message).toContain('the avail ring names descriptor 99 of 8');
    expect((await frontEnd.ask('GET_STATUS', undefined)).value & 0x40n).toBe(0x40n);
    other.driver.submitOne('alive');
    await frontEnd.signalled(other.callFd);
  });

  test('a device whose code throws is reported, and its queue stops', async () => {
    const frontEnd = connect();
    const ring = await frontEnd.start();
    device.failure = new TypeError('a bug of the device');
    ring.driver.submitOne('x');
    await frontEnd.signalled(ring.errorFd);
    expect(errors.map((error) => error.message)).toEqual([
      'a bug of the device', expect.stringContaining('the device failed on queue 0: TypeError: a bug of the device'),
    ]);
    expect(frontEnd.hungUp).toBe(false);
  });
});

describe('guest memory', () => {
  test('a request’s buffers may lie in another region than its ring', async () => {
    const frontEnd = connect();
    await frontEnd.negotiate();
    const half = BigInt(MEMORY_BYTES / 2);
    const low = { ...frontEnd.region(), size: half };
    const high = { guestAddress: BigInt(GUEST_BASE) + half, size: half, userAddress: 0x1000n, mmapOffset: half };
    await frontEnd.ask('SET_MEM_TABLE', [high, low], { fds: [frontEnd.memory.fd, frontEnd.memory.fd], needReply: true });
    const ring = frontEnd.prepareRing(0);
    await frontEnd.startRing(ring);
    // across the border between the two
    const at = GUEST_BASE + MEMORY_BYTES / 2 - 3;
    frontEnd.memory.write(at, new TextEncoder().encode('border'));
    ring.driver.descriptor(0, { addr: at, len: 6, flags: 1, next: 1 });
    ring.driver.descriptor(1, { addr: at + 16, len: 6, flags: 2 });
    ring.driver.publish([0]);
    await frontEnd.signalled(ring.callFd);
    expect(text(frontEnd.memory.read(at + 16, 6))).toBe('BORDER');
  });

  test('a region added in the middle of a run pauses nothing', async () => {
    const frontEnd = connect();
    const ring = await frontEnd.start();
    device.holding = true;
    ring.driver.submitOne('held');
    await until('the device to have it', () => device.held.length === 1);
    const extra = createMemfd('extra', 4096);
    const region = { guestAddress: 0n, size: 4096n, userAddress: 0x1000n, mmapOffset: 0n };
    expect((await frontEnd.ask('SET_MEM_TABLE', [region, frontEnd.region()], { fds: [extra, frontEnd.memory.fd], needReply: true })).value).toBe(0n);
    expect(device.drains).toEqual([]);
    closeFd(extra);
    device.release();
    await frontEnd.signalled(ring.callFd);
  });

  test('a region taken away in the middle of a run is unmapped only when no request is in flight', async () => {
    const frontEnd = connect();
    await frontEnd.negotiate();
    const extra = createMemfd('extra', 4096);
    const region = { guestAddress: 0n, size: 4096n, userAddress: 0x1000n, mmapOffset: 0n };
    await frontEnd.ask('SET_MEM_TABLE', [region, frontEnd.region()], { fds: [extra, frontEnd.memory.fd], needReply: true });
    closeFd(extra);
    const ring = frontEnd.prepareRing(0);
    await frontEnd.startRing(ring);
    device.holding = true;
    ring.driver.submitOne('held');
    await until('the device to have it', () => device.held.length === 1);
    const mapped = (): boolean => readFileSync('/proc/self/maps', 'utf8').includes('memfd:extra');
    const table = frontEnd.shareMemory();
    await until('the device to be asked', () => device.drains.length === 1);
    expect(mapped()).toBe(true);
    ring.driver.submitOne('meanwhile');
    await turns(10);
    expect(device.held).toHaveLength(1);
    device.release();
    expect((await table).value).toBe(0n);
    expect(mapped()).toBe(false);
    await until('both to be used', () => backend.queue(0)?.counts.completed === 2);
    expect(ring.driver.collect().map(({ written }) => text(written))).toEqual(['HELD', 'MEANWHILE']);
  });

  test('a ring whose own region is mapped anew goes on where it was', async () => {
    const frontEnd = connect();
    const ring = await frontEnd.start();
    ring.driver.submitOne('before');
    await frontEnd.signalled(ring.callFd);
    const smaller = { ...frontEnd.region(), size: BigInt(MEMORY_BYTES / 2) };
    await frontEnd.ask('SET_MEM_TABLE', [smaller], { fds: [frontEnd.memory.fd], needReply: true });
    ring.driver.submitOne('after');
    await frontEnd.signalled(ring.callFd);
    expect(ring.driver.collect().map(({ written }) => text(written))).toEqual(['BEFORE', 'AFTER']);
  });

  test('a ring that a new table takes away is broken, and the session goes on', async () => {
    const frontEnd = connect();
    const ring = await frontEnd.start();
    await frontEnd.ask('SET_MEM_TABLE', [{ ...frontEnd.region(), guestAddress: 0n }], { fds: [frontEnd.memory.fd], needReply: true });
    await frontEnd.signalled(ring.errorFd);
    expect(errors.map(String).join()).toContain('is not in one region of guest memory');
    ring.driver.submitOne('x');
    expect((await frontEnd.ask('GET_VRING_BASE', { index: 0, num: 0 })).value >> 32n).toBe(0n);
  });

  test('a session that ends while a new table waits for requests leaves nothing mapped', async () => {
    const frontEnd = connect();
    const ring = await frontEnd.start();
    device.holding = true;
    ring.driver.submitOne('held');
    await until('the device to have it', () => device.held.length === 1);
    frontEnd.send('SET_MEM_TABLE', [{ ...frontEnd.region(), guestAddress: 0n }], { fds: [frontEnd.memory.fd] });
    await until('the device to be asked', () => device.drains.length === 1);
    const closed = backend.close();
    device.release();
    await closed;
    await turns(2);
    // the front end's own mapping is left
    expect(readFileSync('/proc/self/maps', 'utf8').match(/memfd:guest/g)).toHaveLength(1);
  });

  test('a table that waits too long for requests is refused, and nothing of it stays mapped', async () => {
    await backend.close();
    listen({ drainTimeoutMs: 20 });
    const frontEnd = connect();
    const ring = await frontEnd.start();
    device.holding = true;
    ring.driver.submitOne('held');
    await until('the device to have it', () => device.held.length === 1);
    const { value } = await frontEnd.ask('SET_MEM_TABLE', [{ ...frontEnd.region(), guestAddress: 0n }], { fds: [frontEnd.memory.fd], needReply: true });
    expect(value).toBe(1n);
    await frontEnd.closed();
    expect(errors[0]).toBeInstanceOf(DeadlineError);
    expect(errors[0]?.message).toContain('for SET_MEM_TABLE');
  });

  test('a region of over 4 GiB is usable from end to end', async () => {
    const frontEnd = connect();
    await frontEnd.negotiate();
    const sizeBytes = 2 ** 32 + 0x10000;
    const large = createMemfd('large', sizeBytes);
    const guestAddress = 2 ** 40;
    const region = { guestAddress: BigInt(guestAddress), size: BigInt(sizeBytes), userAddress: 0x1000n, mmapOffset: 0n };
    await frontEnd.ask('SET_MEM_TABLE', [frontEnd.region(), region], { fds: [frontEnd.memory.fd, large], needReply: true });
    closeFd(large);
    const ring = frontEnd.prepareRing(0);
    await frontEnd.startRing(ring);
    frontEnd.memory.write(GUEST_BASE + 0x80000, new TextEncoder().encode('far'));
    ring.driver.descriptor(0, { addr: GUEST_BASE + 0x80000, len: 3, flags: 1, next: 1 });
    ring.driver.descriptor(1, { addr: guestAddress + 2 ** 32 - 1, len: 3, flags: 2 }); // over the seam of the two mappings
    ring.driver.publish([0]);
    await frontEnd.signalled(ring.callFd);
    ring.driver.descriptor(0, { addr: guestAddress + 2 ** 32 - 1, len: 3, flags: 1, next: 1 });
    ring.driver.descriptor(1, { addr: GUEST_BASE + 0x80010, len: 3, flags: 2 });
    ring.driver.publish([0]);
    await frontEnd.signalled(ring.callFd);
    expect(text(frontEnd.memory.read(GUEST_BASE + 0x80010, 3))).toBe('FAR');
  });
});

describe('memory regions one by one', () => {
  const half = BigInt(MEMORY_BYTES / 2);
  const halves = (frontEnd: FrontEnd): [low: PayloadOf<'ADD_MEM_REG'>, high: PayloadOf<'ADD_MEM_REG'>] => [
    { ...frontEnd.region(), size: half },
    { guestAddress: BigInt(GUEST_BASE) + half, size: half, userAddress: BigInt(USER_BASE) + half, mmapOffset: half },
  ];
  const add = async (frontEnd: FrontEnd, region: PayloadOf<'ADD_MEM_REG'>): Promise<bigint> =>
    (await frontEnd.ask('ADD_MEM_REG', region, { fds: [frontEnd.memory.fd], needReply: true })).value;
  const mappings = (): number => (readFileSync('/proc/self/maps', 'utf8').match(/memfd:guest/g) ?? []).length;

  test('as many slots are offered as KVM has', async () => {
    const frontEnd = connect();
    await frontEnd.negotiate();
    expect((await frontEnd.ask('GET_MAX_MEM_SLOTS', undefined)).value).toBe(509n);
  });

  test('a ring runs in regions that were added, and a further one costs it no pause', async () => {
    const frontEnd = connect();
    await frontEnd.negotiate();
    const [low, high] = halves(frontEnd);
    expect(await add(frontEnd, low)).toBe(0n);
    const ring = frontEnd.prepareRing(0);
    await frontEnd.startRing(ring);
    device.holding = true;
    ring.driver.submitOne('held');
    await until('the device to have it', () => device.held.length === 1);
    expect(await add(frontEnd, high)).toBe(0n);
    expect(device.drains).toEqual([]);
    device.release();
    await frontEnd.signalled(ring.callFd);
    expect(ring.driver.collect().map(({ written }) => text(written))).toEqual(['HELD']);
    const at = GUEST_BASE + MEMORY_BYTES - 16;
    frontEnd.memory.write(at, new TextEncoder().encode('high'));
    ring.driver.descriptor(0, { addr: at, len: 4, flags: 1, next: 1 });
    ring.driver.descriptor(1, { addr: at + 8, len: 4, flags: 2 });
    ring.driver.publish([0]);
    await frontEnd.signalled(ring.callFd);
    expect(text(frontEnd.memory.read(at + 8, 4))).toBe('HIGH');
  });

  test('a region that is removed is unmapped when no request is in flight, its descriptor closed, and then is not there', async () => {
    const frontEnd = connect();
    await frontEnd.negotiate();
    const [low, high] = halves(frontEnd);
    await add(frontEnd, low);
    await add(frontEnd, high);
    expect(mappings()).toBe(3);
    const ring = frontEnd.prepareRing(0);
    await frontEnd.startRing(ring);
    device.holding = true;
    ring.driver.submitOne('held');
    await until('the device to have it', () => device.held.length === 1);
    // identified by addresses and size: the offset is ignored; QEMU 7.2 sends a descriptor
    const removed = frontEnd.ask('REM_MEM_REG', { ...high, mmapOffset: 0n }, { fds: [frontEnd.memory.fd], needReply: true });
    await until('the device to be asked', () => device.drains.length === 1);
    expect(mappings()).toBe(3);
    device.release();
    expect((await removed).value).toBe(0n);
    expect(mappings()).toBe(2);
    ring.driver.submitOne('after');
    await until('both', () => backend.queue(0)?.counts.completed === 2);
    ring.driver.descriptor(0, { addr: GUEST_BASE + MEMORY_BYTES - 16, len: 4, flags: 1 });
    ring.driver.publish([0]);
    await frontEnd.signalled(ring.errorFd);
    expect(errors[0]?.message).toContain('is not in guest memory');
  });

  test('a region that is added again, as QEMU 7.2 does for each pair of a network card, stays until it is removed as often', async () => {
    const frontEnd = connect();
    await frontEnd.negotiate();
    const [low, high] = halves(frontEnd);
    const remove = async (): Promise<bigint> => (await frontEnd.ask('REM_MEM_REG', high, { needReply: true })).value;
    for (const region of [low, high, low, high]) expect(await add(frontEnd, region)).toBe(0n);
    expect(mappings()).toBe(3);
    expect([await remove(), mappings()]).toEqual([0n, 3]);
    expect([await remove(), mappings()]).toEqual([0n, 2]);
    const ring = frontEnd.prepareRing(0);
    await frontEnd.startRing(ring);
    ring.driver.submitOne('low');
    await frontEnd.signalled(ring.callFd);
    expect(ring.driver.collect().map(({ written }) => text(written))).toEqual(['LOW']);
    expect(await remove()).toBe(1n);
    expect(errors[0]?.message).toContain('REM_MEM_REG of a region that is not there');
  });

  test('a table takes the place of all that was added', async () => {
    const frontEnd = connect();
    await frontEnd.negotiate();
    const [low, high] = halves(frontEnd);
    await add(frontEnd, low);
    await add(frontEnd, high);
    await frontEnd.shareMemory();
    expect(mappings()).toBe(2);
  });

  test('one region more than the slots is refused', async () => {
    const frontEnd = connect();
    await frontEnd.negotiate();
    const slot = (index: number): PayloadOf<'ADD_MEM_REG'> => ({ guestAddress: BigInt(index) * 4096n, size: 4096n, userAddress: BigInt(index) * 4096n, mmapOffset: 0n });
    for (let index = 0; index < 509; index += 1) expect(await add(frontEnd, slot(index))).toBe(0n);
    expect(await add(frontEnd, slot(509))).toBe(1n);
    await frontEnd.closed();
    expect(errors[0]?.message).toContain('beyond the 509 regions');
  });
});

describe('steering and witnesses', () => {
  test('a dropped interrupt counts as fired and not as signalled', async () => {
    const frontEnd = connect();
    const ring = await frontEnd.start();
    let left = 1;
    backend.beforeCall = () => (left-- > 0 ? 'drop' : 'deliver');
    ring.driver.submitOne('a');
    ring.driver.submitOne('b');
    await frontEnd.signalled(ring.callFd);
    expect(backend.fired()).toEqual(new Map([[0, 2]]));
    expect(backend.signalled()).toEqual(new Map([[0, 1]]));
    expect(errors).toEqual([]);
  });

  test('a misdirected interrupt leaves by the other queue', async () => {
    const frontEnd = connect();
    const ring = await frontEnd.start();
    const other = frontEnd.prepareRing(1);
    await frontEnd.startRing(other);
    backend.beforeCall = () => ({ queue: 1 });
    ring.driver.submitOne('a');
    await frontEnd.signalled(other.callFd);
    expect(readEventfd(ring.callFd)).toBe(0);
    expect(backend.fired()).toEqual(new Map([[0, 1]]));
    expect(backend.signalled()).toEqual(new Map([[1, 1]]));
  });

  test('a spurious interrupt can be fired, but not into the void', async () => {
    expect(() => backend.signal(0)).toThrow(UsageError);
    const frontEnd = connect();
    const ring = await frontEnd.start();
    backend.signal(0);
    expect(await frontEnd.signalled(ring.callFd)).toBe(1);
    expect(() => backend.signal(1)).toThrow('queue 1 has no call eventfd');
    expect(() => backend.signal(7)).toThrow(UsageError);
  });

  test('a config change goes to the front end’s channel and is counted', async () => {
    const frontEnd = connect();
    await frontEnd.negotiate();
    expect(() => backend.configChanged()).toThrow(UsageError);
    const [theirs, ours] = socketPair();
    await frontEnd.ask('SET_BACKEND_REQ_FD', undefined, { fds: [theirs], needReply: true });
    closeFd(theirs);
    const outcome = backend.configChanged();
    const bytes = new Uint8Array(64);
    expect(receiveMessage(ours, bytes)?.byteCount).toBe(12);
    expect(Array.from(new Uint32Array(bytes.buffer, 0, 3))).toEqual([2, 1 | 8, 0]); // wants an acknowledgement
    expect(backend.fired()).toEqual(new Map([[CONFIG_CHANGE, 1]]));
    sendMessage(ours, new Uint8Array(Uint32Array.of(2, 5, 8, 0, 0).buffer));
    expect(await outcome).toBe('done');
    closeFd(ours);
  });

  test('a config change that the front end cannot take, one that it does not answer, and one at the session’s end are told apart', async () => {
    const frontEnd = connect();
    await frontEnd.negotiate();
    const [theirs, ours] = socketPair();
    await frontEnd.ask('SET_BACKEND_REQ_FD', undefined, { fds: [theirs], needReply: true });
    closeFd(theirs);
    const refused = backend.configChanged();
    sendMessage(ours, new Uint8Array(Uint32Array.of(2, 5, 8, 1, 0).buffer));
    expect(await refused).toBe('refused');
    expect(await backend.configChanged({ timeoutMs: 10 })).toBe('unanswered');
    const last = backend.configChanged();
    hangUp(frontEnd);
    expect(await last).toBe('unanswered');
    expect(errors).toEqual([]);
    closeFd(ours);
  });

  test('a front end without REPLY_ACK is not asked to acknowledge a config change', async () => {
    const frontEnd = connect();
    await frontEnd.negotiate();
    frontEnd.send('SET_PROTOCOL_FEATURES', featureMask(PROTOCOL_FEATURES.BACKEND_REQ, PROTOCOL_FEATURES.CONFIG, PROTOCOL_FEATURES.MQ));
    const [theirs, ours] = socketPair();
    frontEnd.send('SET_BACKEND_REQ_FD', undefined, { fds: [theirs] });
    closeFd(theirs);
    await frontEnd.ask('GET_QUEUE_NUM', undefined);
    expect(await backend.configChanged()).toBe('sent');
    const bytes = new Uint8Array(12);
    receiveMessage(ours, bytes);
    expect(Array.from(new Uint32Array(bytes.buffer))).toEqual([2, 1, 0]);
    closeFd(ours);
  });

  test('an answer on the back-end channel to what was not asked ends the session with a ProtocolError', async () => {
    const frontEnd = connect();
    await frontEnd.negotiate();
    const [theirs, ours] = socketPair();
    await frontEnd.ask('SET_BACKEND_REQ_FD', undefined, { fds: [theirs], needReply: true });
    closeFd(theirs);
    sendMessage(ours, new Uint8Array(Uint32Array.of(2, 5, 8, 0, 0).buffer));
    await frontEnd.closed();
    expect(errors).toEqual([expect.any(ProtocolError)]);
    expect(errors[0]?.message).toContain('what was not asked');
    closeFd(ours);
  });

  test('a need of a reset is said by the status, the rings and a config change, until the device is reset', async () => {
    expect(() => backend.needsReset()).toThrow(UsageError);
    const frontEnd = connect();
    const ring = await frontEnd.start();
    const [theirs, ours] = socketPair();
    await frontEnd.ask('SET_BACKEND_REQ_FD', undefined, { fds: [theirs], needReply: true });
    closeFd(theirs);
    frontEnd.send('SET_STATUS', 0xfn);
    expect((await frontEnd.ask('GET_STATUS', undefined)).value).toBe(0xfn);
    backend.needsReset();
    expect((await frontEnd.ask('GET_STATUS', undefined)).value).toBe(0x4fn);
    expect(await frontEnd.signalled(ring.errorFd)).toBe(1);
    expect(receiveMessage(ours, new Uint8Array(64))?.byteCount).toBe(12);
    await frontEnd.ask('SET_STATUS', 0n, { needReply: true });
    expect((await frontEnd.ask('GET_STATUS', undefined)).value).toBe(0n);
    closeFd(ours);
  });

  test('a back end that crashes and is down serves nobody until its restart, which waits for the queues that ran', async () => {
    const first = connect();
    await first.start();
    await expect(backend.restart({ timeoutMs: 1000 })).rejects.toThrow(UsageError);
    await backend.crash({ down: true });
    await first.closed();
    expect({ down: backend.down, connected: backend.connected, there: existsSync(backend.path) }).toEqual({ down: true, connected: false, there: false });
    await expect(backend.restart({ timeoutMs: 20 })).rejects.toThrow('waited 20 ms for a front end to connect again to');
    expect(backend.down).toBe(false);
    const second = connect();
    const ring = await second.start();
    ring.driver.submitOne('again');
    await second.signalled(ring.callFd);

    await backend.crash({ down: true });
    const back = backend.restart({ timeoutMs: 5000 });
    await connect().start();
    await back;
    await backend.crash({ down: true });
    const half = backend.restart({ timeoutMs: 200 });
    await connect().negotiate();
    await expect(half).rejects.toThrow(/waited 200 ms for queue 0 of the device at .* to run again/);
    expect(errors).toEqual([]);
  });

  test('a restart that nobody waits for any more, or of a back end that was closed, says so', async () => {
    await connect().start();
    await backend.crash({ down: true });
    const controller = new AbortController();
    const back = backend.restart({ timeoutMs: 5000, signal: controller.signal });
    controller.abort(new Error('the machine is gone'));
    await expect(back).rejects.toThrow('the machine is gone');
    await connect().start();
    await backend.crash({ down: true });
    await backend.close();
    await expect(backend.restart({ timeoutMs: 1000 })).rejects.toThrow(UsageError);
  });

  test('a back end that crashes ends its session without an error, and serves the next front end', async () => {
    const first = connect();
    await first.start();
    await backend.crash();
    await first.closed();
    expect({ connected: backend.connected, resets: device.resets, errors }).toEqual({ connected: false, resets: 1, errors: [] });
    await expect(backend.crash()).rejects.toThrow(UsageError);
    const second = connect();
    const ring = await second.start();
    ring.driver.submitOne('again');
    await second.signalled(ring.callFd);
  });

  test('queueStarted resolves when a driver starts the queue, and names what it waited for', async () => {
    const frontEnd = connect();
    const started = backend.queueStarted(0, { timeoutMs: 2000 });
    await expect(backend.queueStarted(1, { timeoutMs: 5 })).rejects.toThrow(/a driver to start queue 1/);
    await frontEnd.start();
    await started;
    await backend.queueStarted(0, { timeoutMs: 1 });
  });
});

describe('lifetimes', () => {
  test('a front end that hangs up leaves a reset device, and the next one is served', async () => {
    const first = connect();
    await first.start();
    hangUp(first);
    await until('the session to end', () => !backend.connected);
    expect(device.resets).toBe(1);
    expect(errors).toEqual([]);
    const second = connect();
    const ring = await second.start();
    ring.driver.submitOne('again');
    await second.signalled(ring.callFd);
  });

  test('a second front end is turned away while the first is there', async () => {
    const first = connect();
    await first.negotiate();
    await connect().closed();
    expect((await first.ask('GET_QUEUE_NUM', undefined)).value).toBe(2n);
  });

  test('a front end that comes while the last one’s requests are finished waits its turn', async () => {
    const first = connect();
    const ring = await first.start();
    device.holding = true;
    ring.driver.submitOne('slow');
    await until('the device to have it', () => device.held.length === 1);
    hangUp(first);
    await until('the end to be noticed', () => device.drains.length === 1);
    const second = connect();
    await turns(10);
    device.release();
    const next = await second.start();
    next.driver.submitOne('next');
    await second.signalled(next.callFd);
  });

  test('a front end that waits its turn is hung up on by close', async () => {
    const first = connect();
    const ring = await first.start();
    device.holding = true;
    ring.driver.submitOne('slow');
    await until('the device to have it', () => device.held.length === 1);
    hangUp(first);
    await until('the end to be noticed', () => device.drains.length === 1);
    const second = connect();
    await turns(10);
    const closed = backend.close();
    await second.closed();
    device.release();
    await closed;
    expect(backend.connected).toBe(false);
  });

  test('close with a running ring stops it, removes the socket, and may be called again', async () => {
    const frontEnd = connect();
    const ring = await frontEnd.start();
    await backend.close();
    await backend.close();
    await frontEnd.closed();
    expect(existsSync(backend.path)).toBe(false);
    expect(backend.queue(0)).toBeUndefined();
    ring.driver.submitOne('nobody');
    await turns(5);
    expect(ring.driver.collect()).toEqual([]);
  });

  test('a device that does not drain ends its session with a DeadlineError; its memory stays until it lets go', async () => {
    await backend.close();
    listen({ drainTimeoutMs: 20 });
    const frontEnd = connect();
    const ring = await frontEnd.start();
    device.holding = true;
    ring.driver.submitOne('for ever');
    await until('the device to have it', () => device.held.length === 1);
    await backend.close();
    expect(errors).toEqual([expect.any(DeadlineError)]);
    expect(errors[0]?.message).toContain('the device to finish its requests');
    const chain = device.held[0]?.chain;
    const word = new Uint8Array(8);
    chain?.copyOut(0, word); // still mapped
    expect(text(word)).toBe('for ever');
    device.release(); // completes on a stopped queue: nothing, and no crash
    await turns(3);
    expect(ring.driver.collect()).toEqual([]);
  });

  test('RESET_DEVICE and a status of 0 stop the rings and reset the device', async () => {
    const frontEnd = connect();
    await frontEnd.start();
    frontEnd.send('SET_STATUS', 0xfn);
    expect((await frontEnd.ask('GET_STATUS', undefined)).value).toBe(0xfn);
    await frontEnd.ask('RESET_DEVICE', undefined, { needReply: true });
    expect(backend.queue(0)).toBeUndefined();
    expect(device.resets).toBe(1);
    await frontEnd.ask('SET_STATUS', 0n, { needReply: true });
    expect(device.resets).toBe(2);
    // Disabled, too: the next ring waits to be enabled.
    const ring = frontEnd.prepareRing(0);
    await frontEnd.ask('SET_VRING_KICK', 0n, { fds: [ring.kickFd], needReply: true });
    ring.driver.submitOne('x');
    await until('the kick to be seen', () => backend.kicked().get(0) === 1);
    expect(ring.driver.collect()).toEqual([]);
    await frontEnd.ask('SET_VRING_ENABLE', { index: 0, num: 1 }, { needReply: true });
    expect(ring.driver.collect()).toHaveLength(1);
  });

  test('memory of a front end’s own addresses is not taken for the guest’s', async () => {
    const frontEnd = connect();
    const ring = await frontEnd.start();
    ring.driver.descriptor(0, { addr: USER_BASE + 0x80000, len: 4 });
    ring.driver.publish([0]);
    await frontEnd.signalled(ring.errorFd);
    expect(errors[0]?.message).toContain('is not in guest memory');
  });
});
