// The dirty log of a migration: every page that the device wrote is marked, after it was written, and none
// of those that it only read.
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { ProtocolError } from '../../src/errors.ts';
import { closeFd, createEventfd, createMemfd, mapFile, readEventfd, unmapFile } from '../../src/native/index.ts';
import { DirtyLog } from '../../src/vhost-user/dirty-log.ts';
import { VhostUserBackend } from '../../src/vhost-user/index.ts';
import { F_LOG_ALL, F_PROTOCOL_FEATURES, VRING_F_LOG } from '../../src/vhost-user/protocol.ts';
import { featureMask, ringFeatures, VIRTIO_F } from '../../src/virtio/features.ts';
import { openDescriptors } from '../native/open-descriptors.ts';
import { PackedMockDriver } from '../virtio/packed-mock-driver.ts';
import { EchoDevice } from './echo-device.ts';
import { FrontEnd, GUEST_BASE, MEMORY_BYTES } from './front-end.ts';
import type { FrontEndRing } from './front-end.ts';

const PAGE = 4096;
/** Covers the guest's memory and a page beyond; the used rings are logged where no memory is, which is allowed. */
const LOG_BYTES = (GUEST_BASE + MEMORY_BYTES) / PAGE / 8 + 8;
const LOG_OFFSET = 64;

let before: string[] = [];
let logFd = -1;
let mapping: ArrayBuffer;
let bits: Uint8Array;
beforeEach(() => {
  before = openDescriptors();
  logFd = createMemfd('log', LOG_OFFSET + LOG_BYTES);
  mapping = mapFile(logFd, 0, LOG_OFFSET + LOG_BYTES);
  bits = new Uint8Array(mapping, LOG_OFFSET);
});
afterEach(() => {
  unmapFile(mapping);
  closeFd(logFd);
  expect(openDescriptors()).toEqual(before);
  expect(readFileSync('/proc/self/maps', 'utf8')).not.toMatch(/memfd:log/);
});

/** The pages marked since the last call, as numbers from address 0; clears them, as a front end does. */
function marked(): number[] {
  const pages: number[] = [];
  bits.forEach((byte, index) => {
    for (let bit = 0; bit < 8; bit += 1) if ((byte >> bit & 1) === 1) pages.push(index * 8 + bit);
  });
  bits.fill(0);
  return pages;
}

describe('the log', () => {
  let log: DirtyLog;
  beforeEach(() => {
    log = new DirtyLog();
    log.setBase(logFd, { size: 16n, offset: BigInt(LOG_OFFSET) });
  });
  afterEach(() => log.close());

  test.each([
    [0, 1, [0]], [4095, 1, [0]], [4095, 2, [0, 1]], [4096, 4096, [1]], [7 * PAGE, PAGE + 1, [7, 8]], [PAGE, 3 * PAGE, [1, 2, 3]], [127 * PAGE, PAGE, [127]],
  ])('marks the pages of a write at %i of %i bytes', (address, length, pages) => {
    expect(log.mark(address, length)).toBe(true);
    expect(marked()).toEqual(pages);
  });

  test('says so when a write is beyond its end, and marks nothing', () => {
    expect(log.mark(127 * PAGE, PAGE + 1)).toBe(false);
    expect(log.mark(2 ** 52, 1)).toBe(false);
    expect(marked()).toEqual([]);
    expect(new Uint8Array(mapping, 0, LOG_OFFSET).every((byte) => byte === 0)).toBe(true);
  });

  test('leaves what is marked, and an empty write marks nothing', () => {
    log.mark(0, 1);
    log.mark(PAGE, 1);
    expect(log.mark(5 * PAGE, 0)).toBe(true);
    expect(marked()).toEqual([0, 1]);
  });

  test('is active when it is wanted and there is one', () => {
    expect(log.active).toBe(false);
    log.enabled = true;
    expect(log.active).toBe(true);
    log.close();
    expect(log.active).toBe(false);
  });
});

describe('a device whose writes are logged', () => {
  let directory = '';
  let device: EchoDevice;
  let backend: VhostUserBackend;
  let frontEnd: FrontEnd;
  let ring: FrontEndRing;
  let errors: Error[] = [];
  /** Where the used ring is said to be: a page of the log that no memory has. */
  const USED_PAGE = GUEST_BASE / PAGE - 5;
  const features = featureMask(VIRTIO_F.VIRTIO_F_VERSION_1, VIRTIO_F.VIRTIO_F_RING_EVENT_IDX, F_PROTOCOL_FEATURES);

  beforeEach(async () => {
    directory = mkdtempSync(join(tmpdir(), 'vhost-'));
    errors = [];
    device = new EchoDevice();
    backend = VhostUserBackend.listen({ path: join(directory, 's'), device, onError: (error) => errors.push(error) });
    frontEnd = new FrontEnd(backend.path);
    ring = await frontEnd.start({ eventIdx: true });
  });
  afterEach(async () => {
    device.release();
    frontEnd.close();
    await backend.close();
    rmSync(directory, { recursive: true });
  });

  /** What QEMU does when a migration begins: the log, its switch, and each ring's, while the ring runs. */
  async function startLogging({ used = true, size = BigInt(LOG_BYTES) } = {}): Promise<void> {
    expect((await frontEnd.ask('SET_LOG_BASE', { size, offset: BigInt(LOG_OFFSET) }, { fds: [logFd] })).value).toBe(0n);
    frontEnd.send('SET_FEATURES', features | featureMask(F_LOG_ALL));
    await frontEnd.ask('SET_VRING_ADDR', { ...frontEnd.addresses(ring), flags: used ? VRING_F_LOG : 0, log: BigInt(USED_PAGE * PAGE) }, { needReply: true });
  }

  /** One request whose buffers lie where they are told; resolves when it was answered. */
  async function request(readable: number, writable: number, length = 8): Promise<void> {
    frontEnd.memory.write(readable, new Uint8Array(length).fill(0x61));
    ring.driver.descriptor(0, { addr: readable, len: length, flags: 1, next: 1 });
    ring.driver.descriptor(1, { addr: writable, len: length, flags: 2 });
    ring.driver.publish([0]);
    await frontEnd.signalled(ring.callFd);
    ring.driver.collect();
  }
  const page = (address: number): number => Math.floor(address / PAGE);
  const [READ, WRITTEN] = [GUEST_BASE + 0x80000, GUEST_BASE + 0x90000];

  test('marks the buffers it wrote and the used ring, and not what it read', async () => {
    await startLogging();
    await request(READ, WRITTEN);
    expect(marked()).toEqual([USED_PAGE, page(WRITTEN)]);
    await request(READ, WRITTEN + PAGE - 4, 8);
    expect(marked()).toEqual([USED_PAGE, page(WRITTEN), page(WRITTEN) + 1]);
  });

  test('marks nothing before logging is switched on, nor after it is switched off', async () => {
    await request(READ, WRITTEN);
    expect(marked()).toEqual([]);
    await startLogging();
    await request(READ, WRITTEN);
    expect(marked()).not.toEqual([]);
    frontEnd.send('SET_FEATURES', features);
    await frontEnd.ask('SET_VRING_ADDR', frontEnd.addresses(ring), { needReply: true });
    await request(READ, WRITTEN);
    expect(marked()).toEqual([]);
  });

  test('leaves the used ring out when the ring’s own switch is off', async () => {
    await startLogging({ used: false });
    await request(READ, WRITTEN);
    expect(marked()).toEqual([page(WRITTEN)]);
  });

  test('marks the used ring’s avail_event, which lies at its end', async () => {
    // a used ring that starts eight bytes before a page's end: flags and index in one page, the rest in the next
    await startLogging();
    await frontEnd.ask('SET_VRING_ADDR', { ...frontEnd.addresses(ring), flags: VRING_F_LOG, log: BigInt(USED_PAGE * PAGE - 8) }, { needReply: true });
    marked();
    ring.driver.onKick?.(); // a kick for nothing: the device looks, and asks for the next one
    await frontEnd.ask('GET_QUEUE_NUM', undefined);
    for (let turn = 0; turn < 20; turn += 1) await new Promise((resolve) => setImmediate(resolve));
    expect(marked()).toEqual([USED_PAGE]);
  });

  test('marks a page after it was written: what is clear has not changed', async () => {
    await startLogging();
    device.holding = true;
    frontEnd.memory.write(READ, new Uint8Array(8).fill(0x61));
    ring.driver.descriptor(0, { addr: READ, len: 8, flags: 1, next: 1 });
    ring.driver.descriptor(1, { addr: WRITTEN, len: 8, flags: 2 });
    ring.driver.publish([0]);
    while (device.held.length === 0) await new Promise((resolve) => setImmediate(resolve));
    device.held[0]?.chain.copyIn(0, new Uint8Array([1]));
    expect(marked()).not.toContain(page(WRITTEN));
    device.release();
    await frontEnd.signalled(ring.callFd);
    expect(marked()).toContain(page(WRITTEN));
  });

  test('signals the log’s eventfd when it marked something', async () => {
    const event = createEventfd();
    frontEnd.send('SET_LOG_FD', undefined, { fds: [event] });
    await request(READ, WRITTEN);
    expect(readEventfd(event)).toBe(0);
    await startLogging();
    await request(READ, WRITTEN);
    expect(readEventfd(event)).toBe(1);
    closeFd(event);
  });

  test('goes on in a new log that takes the place of the old one', async () => {
    await startLogging();
    const other = createMemfd('log', LOG_BYTES);
    await frontEnd.ask('SET_LOG_BASE', { size: BigInt(LOG_BYTES), offset: 0n }, { fds: [other] });
    await request(READ, WRITTEN);
    expect(marked()).toEqual([]);
    const view = mapFile(other, 0, LOG_BYTES);
    expect(new Uint8Array(view)[Math.floor(page(WRITTEN) / 8)]).toBe(1 << page(WRITTEN) % 8);
    unmapFile(view);
    closeFd(other);
  });

  test('breaks the ring when the log does not reach what it writes: a page missed would corrupt the guest', async () => {
    await startLogging({ size: BigInt(page(GUEST_BASE) / 8) });
    frontEnd.memory.write(READ, new Uint8Array(8));
    ring.driver.descriptor(0, { addr: READ, len: 8, flags: 1, next: 1 });
    ring.driver.descriptor(1, { addr: WRITTEN, len: 8, flags: 2 });
    ring.driver.publish([0]);
    await frontEnd.signalled(ring.errorFd);
    expect(errors).toEqual([expect.any(ProtocolError)]);
    expect(errors[0]?.message).toContain('the dirty log ends before 0x40090008');
    expect(ring.driver.collect()).toEqual([]);
  });

  test('negotiates nothing with the device when only the log is switched', async () => {
    let negotiated = 0;
    device.negotiated = () => { negotiated += 1; };
    await startLogging();
    expect(negotiated).toBe(0);
    expect(backend.features).toBe(features & ~featureMask(F_PROTOCOL_FEATURES));
  });
});

describe('a device of packed rings whose writes are logged', () => {
  /** The ring's 512 descriptors fill two pages from here on; what tells of events lies behind them. */
  const RING = GUEST_BASE + 2 * PAGE;
  const EVENTS = GUEST_BASE / PAGE + 4;
  let directory = '';
  let device: EchoDevice;
  let backend: VhostUserBackend;
  let frontEnd: FrontEnd;
  let ring: FrontEndRing<PackedMockDriver>;
  let errors: Error[] = [];

  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'vhost-'));
    errors = [];
    device = new EchoDevice(2, 512);
    device.ringFeatures = ringFeatures({ packed: true });
    backend = VhostUserBackend.listen({ path: join(directory, 's'), device, onError: (error) => errors.push(error) });
    frontEnd = new FrontEnd(backend.path);
  });
  afterEach(async () => {
    frontEnd.close();
    await backend.close();
    rmSync(directory, { recursive: true });
  });

  /** A ring that starts at this descriptor, and its log, switched on while it runs; QEMU logs the device area at its guest address. */
  async function start(startIndex: number, { log = true, eventIdx = true } = {}): Promise<void> {
    const driver = new PackedMockDriver({ memory: frontEnd.memory, base: RING, size: 512, startIndex, eventIdx });
    await frontEnd.negotiate(driver.features);
    await frontEnd.shareMemory();
    ring = frontEnd.prepareDriver(0, driver, driver.baseAfter(0, 0));
    await frontEnd.startRing(ring);
    await frontEnd.ask('SET_LOG_BASE', { size: BigInt(LOG_BYTES), offset: BigInt(LOG_OFFSET) }, { fds: [logFd] });
    frontEnd.send('SET_FEATURES', driver.features | featureMask(F_PROTOCOL_FEATURES, F_LOG_ALL));
    await frontEnd.ask('SET_VRING_ADDR', { ...frontEnd.addresses(ring), flags: log ? VRING_F_LOG : 0, log: BigInt(driver.deviceArea) }, { needReply: true });
    for (let turn = 0; turn < 20; turn += 1) await new Promise((resolve) => setImmediate(resolve));
    marked();
  }

  /** One request with a buffer that is written in a page of its own; the pages marked until it was answered and looked behind. */
  async function request(): Promise<{ pages: number[]; written: number }> {
    const { driver } = ring;
    driver.allocate(PAGE);
    const written = Math.floor(driver.allocate(16) / PAGE);
    const id = driver.submitOne('word');
    await frontEnd.signalled(ring.callFd);
    const [used] = driver.collect();
    expect([used.id, Buffer.from(used.written).toString()]).toEqual([id, 'WORD']);
    for (let turn = 0; turn < 20; turn += 1) await new Promise((resolve) => setImmediate(resolve));
    return { pages: marked(), written };
  }

  const RING_PAGES = [GUEST_BASE / PAGE + 2, GUEST_BASE / PAGE + 3];

  test.each([
    { startIndex: 0, ringPages: [RING_PAGES[0]], where: 'in the first page of the ring' },
    { startIndex: 300, ringPages: [RING_PAGES[1]], where: 'in the second' },
    { startIndex: 255, ringPages: RING_PAGES, where: 'in both' },
    { startIndex: 511, ringPages: RING_PAGES, where: 'at its end and its start' },
  ])('marks the buffer, the event suppression and the used descriptor, $where', async ({ startIndex, ringPages }) => {
    await start(startIndex);
    const { pages, written } = await request();
    expect(pages).toEqual([...new Set([...ringPages, EVENTS, written])].sort((a, b) => a - b));
    expect(errors).toEqual([]);
  });

  test('marks nothing of the ring when its own switch is off', async () => {
    await start(0, { log: false });
    const { pages, written } = await request();
    expect(pages).toEqual([written]);
  });

  test('leaves the event suppression out when it is not written: without EVENT_IDX', async () => {
    await start(0, { eventIdx: false });
    const { pages, written } = await request();
    expect(pages).toEqual([RING_PAGES[0], written]);
  });
});
