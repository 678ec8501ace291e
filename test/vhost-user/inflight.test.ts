// Requests in flight outlive the back end: noted in the front end's file, and served by the next back end,
// each exactly once, in the order they were taken.
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { ProtocolError } from '../../src/errors.ts';
import { closeFd, mapFile, unmapFile } from '../../src/native/index.ts';
import { VhostUserBackend } from '../../src/vhost-user/index.ts';
import { createInflightFile, descStateSplit, InflightArea, queueRegionSplit, regionBytes } from '../../src/vhost-user/inflight.ts';
import { featureMask, VIRTIO_F } from '../../src/virtio/features.ts';
import { within } from '../../src/wait.ts';
import { openDescriptors } from '../native/open-descriptors.ts';
import { EchoDevice } from './echo-device.ts';
import { FrontEnd } from './front-end.ts';
import type { FrontEndRing, Inflight } from './front-end.ts';

const text = (bytes: Uint8Array): string => new TextDecoder().decode(bytes);

describe('the region of a ring', () => {
  let fd = -1;
  let mapping: ArrayBuffer;
  let bytes: Uint8Array;
  let area: InflightArea;
  beforeEach(() => {
    const made = createInflightFile(2, 8);
    fd = made.fd;
    mapping = mapFile(fd, 0, Number(made.description.mmapSize));
    bytes = new Uint8Array(mapping);
    area = new InflightArea(fd, made.description);
  });
  afterEach(() => {
    area.close();
    unmapFile(mapping);
    closeFd(fd);
  });
  const queue = (index: number): Uint8Array => bytes.subarray(index * regionBytes(8), (index + 1) * regionBytes(8));
  const state = (head: number, index = 0): { inflight: number; next: number; counter: bigint } =>
    descStateSplit.decode(queue(index), queueRegionSplit.sizeBytes + 16 * head);

  test('has the layout of the specification: 16 bytes, and 16 for each entry', () => {
    const offsets = ({ fields }: { fields: Record<string, { offset: number }> }): Record<string, number> =>
      Object.fromEntries(Object.entries(fields).map(([name, { offset }]) => [name, offset]));
    expect(offsets(queueRegionSplit)).toEqual({ features: 0, version: 8, desc_num: 10, last_batch_head: 12, used_idx: 14 });
    expect(offsets(descStateSplit)).toEqual({ inflight: 0, next: 6, counter: 8 });
    expect(regionBytes(8)).toBe(192); // 144, at a multiple of 64
  });

  test('that nothing was noted in is made ready, and says so', () => {
    expect(area.region(1, 8).recover(7)).toBeUndefined();
    expect(queueRegionSplit.decode(queue(1))).toEqual({ features: 0n, version: 1, desc_num: 8, last_batch_head: 0, used_idx: 7 });
    expect(queue(0).every((byte) => byte === 0)).toBe(true);
    expect(area.region(1, 8).recover(7)).toEqual([]);
  });

  test('notes each request taken with its turn, and each used one in the order of the specification', () => {
    const region = area.region(0, 8);
    region.recover(0);
    for (const head of [3, 5, 0]) region.taken(head);
    expect([3, 5, 0].map((head) => state(head))).toEqual([0n, 1n, 2n].map((counter) => ({ inflight: 1, next: 0, counter })));
    region.using(5);
    expect(queueRegionSplit.decode(queue(0))).toMatchObject({ last_batch_head: 5, used_idx: 0 });
    expect(state(5).inflight).toBe(1);
    region.used(5, 1);
    expect(state(5)).toEqual({ inflight: 0, next: 0, counter: 1n });
    region.using(3);
    region.used(3, 2);
    expect(state(3)).toEqual({ inflight: 0, next: 5, counter: 0n });
    expect(queueRegionSplit.decode(queue(0))).toMatchObject({ last_batch_head: 3, used_idx: 2 });
    expect(area.region(0, 8).recover(2)).toEqual([0]);
  });

  test('gives what is in flight in the order it was taken, and goes on counting behind it', () => {
    const first = area.region(0, 8);
    first.recover(0);
    for (const head of [6, 1, 4]) first.taken(head);
    const second = area.region(0, 8);
    expect(second.recover(0)).toEqual([6, 1, 4]);
    second.taken(6);
    expect(area.region(0, 8).recover(0)).toEqual([1, 4, 6]);
  });

  test.each([
    ['before the used index moved', 0, [2, 7]],
    ['after the used index moved, before the request was struck out', 1, [2]],
  ])('a back end that ended %s is put right', (_when, usedIndex, inFlight) => {
    const region = area.region(0, 8);
    region.recover(0);
    region.taken(2);
    region.taken(7);
    region.using(7);
    const next = area.region(0, 8);
    expect(next.recover(usedIndex)).toEqual(inFlight);
    expect(queueRegionSplit.decode(queue(0)).used_idx).toBe(usedIndex);
    expect(area.region(0, 8).recover(usedIndex)).toEqual(inFlight);
  });

  test('a batch of several used requests of another back end is followed through its list', () => {
    const region = area.region(0, 8);
    region.recover(0);
    for (const head of [0, 1, 2, 3]) region.taken(head);
    for (const head of [1, 3, 0]) region.using(head); // libvhost-user may use several before it strikes them out
    expect(area.region(0, 8).recover(3)).toEqual([2]);
  });

  test.each([
    ['of another version', (view: DataView) => view.setUint16(8, 2, true), 0, 'version 2'],
    ['of another size', (view: DataView) => view.setUint16(10, 16, true), 0, 'for 16 entries'],
    ['whose used index is far behind', () => undefined, 100, 'used 100 requests'],
    ['whose batch names a head that is none', (view: DataView) => view.setUint16(12, 8, true), 1, 'names head 8 of 8'],
  ] as const)('a region %s is a ProtocolError', (_what, spoil, usedIndex, said) => {
    area.region(0, 8).recover(0);
    spoil(new DataView(mapping));
    expect(() => area.region(0, 8).recover(usedIndex)).toThrow(ProtocolError);
    expect(() => area.region(0, 8).recover(usedIndex)).toThrow(said);
  });

  test('a ring with fewer entries than the area has room for leaves the area’s number in it', () => {
    const region = area.region(1, 4);
    region.recover(0);
    expect(queueRegionSplit.decode(queue(1)).desc_num).toBe(8);
    region.taken(3);
    expect(area.region(1, 4).recover(0)).toEqual([3]);
  });

  test('a ring beyond the area, or larger than its queues, has no place in it', () => {
    expect(() => area.region(2, 8)).toThrow('ring 2 of 8 entries has no place in the in-flight area of 2 queues of 8');
    expect(() => area.region(0, 16)).toThrow(ProtocolError);
  });

  test('counters beyond 2^32 keep their order', () => {
    const region = area.region(0, 8);
    region.recover(0);
    const at = queueRegionSplit.sizeBytes;
    bytes.set(descStateSplit.encode({ inflight: 1, counter: 2n ** 32n + 5n }), at);
    bytes.set(descStateSplit.encode({ inflight: 1, counter: 6n }), at + 16);
    const next = area.region(0, 8);
    expect(next.recover(0)).toEqual([1, 0]);
    next.taken(1);
    expect(state(1).counter).toBe(2n ** 32n + 6n);
  });
});

describe('a back end that comes back', () => {
  let directory = '';
  let before: string[] = [];
  let device: EchoDevice;
  let backend: VhostUserBackend;
  let frontEnds: FrontEnd[] = [];
  let errors: Error[] = [];

  function listen(): void {
    device = new EchoDevice();
    device.holding = true;
    backend = VhostUserBackend.listen({ path: join(directory, 's'), device, onError: (error) => errors.push(error) });
  }

  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'vhost-'));
    before = openDescriptors();
    errors = [];
    listen();
  });
  afterEach(async () => {
    device.release();
    for (const frontEnd of frontEnds.reverse()) frontEnd.close();
    frontEnds = [];
    await backend.close();
    rmSync(directory, { recursive: true });
    expect(openDescriptors()).toEqual(before);
    expect(readFileSync('/proc/self/maps', 'utf8')).not.toMatch(/memfd:(guest|inflight)/);
  });

  async function until(what: string, done: () => boolean): Promise<void> {
    const reached = (async () => {
      while (!done()) await new Promise((resolve) => setImmediate(resolve));
    })();
    await within(reached, { timeoutMs: 2000, what });
  }

  const features = featureMask(VIRTIO_F.VIRTIO_F_VERSION_1, VIRTIO_F.VIRTIO_F_RING_EVENT_IDX);

  async function begin(size: number, startIndex = 0): Promise<{ ring: FrontEndRing; inflight: Inflight }> {
    const frontEnd = new FrontEnd(backend.path);
    frontEnds.push(frontEnd);
    await frontEnd.negotiate(features);
    await frontEnd.shareMemory();
    const inflight = await frontEnd.trackInflight(2, size);
    const ring = frontEnd.prepareRing(0, { size, startIndex, eventIdx: true });
    await frontEnd.startRing(ring);
    return { ring, inflight };
  }

  /** What QEMU does when its chardev is connected again: it goes on from the used index. */
  async function comeBack(old: FrontEndRing, inflight: Inflight): Promise<FrontEndRing> {
    const frontEnd = new FrontEnd(backend.path, { memory: (frontEnds[0] as FrontEnd).memory });
    frontEnds.push(frontEnd);
    await frontEnd.negotiate(features);
    await frontEnd.shareMemory();
    await frontEnd.giveInflight(inflight);
    const usedIndex = old.driver.memory.view(old.driver.used + 2, 2).getUint16(0, true);
    const ring = frontEnd.adoptRing(old, usedIndex);
    await frontEnd.startRing(ring);
    return ring;
  }

  const taken = (count: number): Promise<void> => until(`the device to have ${count} requests`, () => device.held.length === count);

  function heldTexts(): string[] {
    return device.held.map(({ chain }) => {
      const bytes = new Uint8Array(chain.readableBytes);
      chain.copyOut(0, bytes);
      return text(bytes);
    });
  }

  /** Answer one of what the device keeps. */
  function answer(position: number): void {
    const [one] = device.held.splice(position, 1);
    if (one === undefined) throw new Error(`nothing is held at ${position}`);
    const bytes = new Uint8Array(one.chain.readableBytes);
    one.chain.copyOut(0, bytes);
    one.chain.copyIn(0, new TextEncoder().encode(text(bytes).toUpperCase()));
    one.queue.complete(one.chain, bytes.length);
  }

  async function crashed(): Promise<void> {
    const gone = backend.crash();
    device.release(); // what it finishes now reaches nobody
    await gone;
    device.holding = true;
  }

  test('has the requests that were in flight, in order, and then the new ones', async () => {
    const { ring, inflight } = await begin(8);
    for (const word of ['one', 'two']) ring.driver.submitOne(word);
    await taken(2);
    await crashed();
    expect(ring.driver.collect()).toEqual([]);
    ring.driver.onKick = undefined;
    ring.driver.submitOne('three'); // while nobody listens
    const again = await comeBack(ring, inflight);
    await taken(3);
    expect(heldTexts()).toEqual(['one', 'two', 'three']);
    device.release();
    expect(again.driver.collect().map(({ written }) => text(written))).toEqual(['ONE', 'TWO', 'THREE']);
    again.driver.submitOne('four');
    await until('the fourth', () => again.driver.collect().some(({ written }) => text(written) === 'FOUR'));
    expect(errors).toEqual([]);
  });

  test('has what was taken before what was used, though the avail ring has long forgotten it', async () => {
    const { ring, inflight } = await begin(4, 0xfffd);
    const { driver } = ring;
    driver.submitOne('old'); // stays
    driver.submitOne('x');
    await taken(2);
    for (const word of ['y', 'z', 'w']) {
      answer(1);
      expect(driver.collect()).toHaveLength(1);
      driver.submitOne(word);
      await taken(2);
    }
    expect(heldTexts()).toEqual(['old', 'w']);
    await crashed();
    const again = await comeBack(ring, inflight);
    await taken(2);
    expect(heldTexts()).toEqual(['old', 'w']);
    device.release();
    expect(again.driver.collect().map(({ written }) => text(written))).toEqual(['OLD', 'W']);
    expect(errors).toEqual([]);
  });

  /** What the file says of ring 0: the heads in flight, and the used index. */
  function noted({ fd, description }: Inflight): { heads: number[]; usedIndex: number } {
    const mapping = mapFile(fd, 0, Number(description.mmapSize));
    const bytes = new Uint8Array(mapping);
    const heads = Array.from({ length: description.queueSize }, (_, head) => head)
      .filter((head) => descStateSplit.decode(bytes, queueRegionSplit.sizeBytes + 16 * head).inflight === 1);
    const usedIndex = queueRegionSplit.decode(bytes).used_idx;
    unmapFile(mapping);
    return { heads, usedIndex };
  }

  test('notes what is in flight and nothing else: not what was used, not what was put back', async () => {
    const { ring, inflight } = await begin(8, 0xffff);
    expect(noted(inflight)).toEqual({ heads: [], usedIndex: 0xffff });
    const heads = ['one', 'two', 'three'].map((word) => ring.driver.submitOne(word));
    await taken(3);
    expect(noted(inflight)).toEqual({ heads, usedIndex: 0xffff });
    answer(1);
    expect(noted(inflight)).toEqual({ heads: [heads[0], heads[2]], usedIndex: 0 });
    const last = device.held.pop();
    expect(last?.queue.putBack(last.chain)).toBe(true);
    expect(noted(inflight)).toEqual({ heads: [heads[0]], usedIndex: 0 });
    const first = device.held.pop();
    first?.queue.completeAs(first.chain, 5, 0); // a lie to the driver is still an answer
    expect(noted(inflight)).toEqual({ heads: [], usedIndex: 1 });
  });

  test('without the in-flight area the same loses a request: the base is all that is known', async () => {
    const { ring } = await begin(4);
    ring.driver.submitOne('a');
    ring.driver.submitOne('b');
    await taken(2);
    answer(1);
    await crashed();
    const frontEnd = new FrontEnd(backend.path, { memory: (frontEnds[0] as FrontEnd).memory });
    frontEnds.push(frontEnd);
    await frontEnd.negotiate(features);
    await frontEnd.shareMemory();
    const again = frontEnd.adoptRing(ring, 1);
    await frontEnd.startRing(again);
    await taken(1);
    expect(heldTexts()).toEqual(['b']); // used already; 'a' is lost
  });

  test('a back end that is closed with requests held gives back what it can and has the rest later', async () => {
    const { ring, inflight } = await begin(8);
    for (const word of ['one', 'two', 'three']) ring.driver.submitOne(word);
    await taken(3);
    const { held } = device;
    expect(held[2]?.queue.putBack(held[2].chain)).toBe(true);
    device.held.pop();
    await crashed();
    await backend.close();
    listen();
    await comeBack(ring, inflight);
    await taken(3);
    expect(heldTexts()).toEqual(['one', 'two', 'three']);
  });

  test('a ring that is stopped and started again with requests still in flight has them once', async () => {
    const { ring, inflight } = await begin(8);
    device.drain = () => Promise.resolve(); // a device that gives up what it has
    for (const word of ['one', 'two']) ring.driver.submitOne(word);
    await taken(2);
    const [frontEnd] = frontEnds as [FrontEnd];
    const base = Number((await frontEnd.ask('GET_VRING_BASE', { index: 0, num: 0 })).value >> 32n);
    expect(base).toBe(2);
    device.held.length = 0;
    await frontEnd.giveInflight(inflight);
    await frontEnd.startRing(frontEnd.adoptRing(ring, base));
    await taken(2);
    expect(heldTexts()).toEqual(['one', 'two']);
    device.release();
    expect(ring.driver.collect()).toHaveLength(2);
  });

  test('an area that names more than the avail ring holds breaks the ring, and nothing else', async () => {
    const { ring, inflight } = await begin(8);
    ring.driver.submitOne('one');
    await taken(1);
    await crashed();
    const mapping = mapFile(inflight.fd, 0, Number(inflight.description.mmapSize));
    new Uint8Array(mapping)[queueRegionSplit.sizeBytes + 16 * 7] = 1; // head 7 was never made available
    unmapFile(mapping);
    const again = await comeBack(ring, inflight);
    await (frontEnds[1] as FrontEnd).signalled(again.errorFd);
    expect(errors).toEqual([expect.any(ProtocolError)]);
  });

  test('RESET_DEVICE forgets the area: the ring starts from its base', async () => {
    const { ring } = await begin(8);
    ring.driver.submitOne('one');
    await taken(1);
    device.drain = () => Promise.resolve();
    const [frontEnd] = frontEnds as [FrontEnd];
    await frontEnd.ask('RESET_DEVICE', undefined, { needReply: true });
    device.held.length = 0;
    await frontEnd.startRing(frontEnd.adoptRing(ring, 1));
    ring.driver.submitOne('two');
    await taken(1);
    expect(heldTexts()).toEqual(['two']);
  });

  test('the area cannot be changed under a running ring', async () => {
    const { inflight } = await begin(8);
    const [frontEnd] = frontEnds as [FrontEnd];
    frontEnd.send('SET_INFLIGHT_FD', inflight.description, { fds: [inflight.fd] });
    await frontEnd.closed();
    expect(errors.map(String).join()).toContain('SET_INFLIGHT_FD while rings run');
  });

  test('crash() without a front end is a UsageError', async () => {
    await expect(backend.crash()).rejects.toThrow('no front end to notice it');
  });

  test('whatever is taken, used in whatever order, and however often it dies: each request is answered exactly once', async () => {
    const step = fc.oneof(
      { weight: 4, arbitrary: fc.constant('submit' as const) },
      { weight: 3, arbitrary: fc.nat(7) },
      { weight: 1, arbitrary: fc.constant('crash' as const) },
    );
    await fc.assert(fc.asyncProperty(fc.integer({ min: 0, max: 0xffff }), fc.array(step, { minLength: 10, maxLength: 60 }), async (start, steps) => {
      const { ring: first, inflight } = await begin(8, start);
      let ring = first;
      const { driver } = ring;
      const sent: string[] = [];
      const answered: string[] = [];
      const collect = (): void => { for (const { written } of driver.collect()) answered.push(text(written)); };
      for (const one of steps) {
        if (one === 'submit') {
          if (driver.freeDescriptors < 2) continue;
          const word = `r${sent.length}.`.padEnd(6, 'q');
          sent.push(word);
          driver.submitOne(word);
        } else if (one === 'crash') {
          await crashed();
          ring = await comeBack(ring, inflight);
        } else {
          await taken(sent.length - answered.length);
          if (device.held.length > 0) answer(one % device.held.length);
          collect();
        }
      }
      await taken(sent.length - answered.length);
      device.release();
      device.holding = true;
      collect();
      expect([...answered].sort()).toEqual(sent.map((word) => word.toUpperCase()).sort());
      expect(errors).toEqual([]);
      await crashed();
      for (const frontEnd of frontEnds.splice(0).reverse()) frontEnd.close();
      await until('the session to end', () => !backend.connected);
    }), { numRuns: 30 });
  });
});
