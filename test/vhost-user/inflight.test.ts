// Requests in flight outlive the back end: noted in the front end's file, and served by the next back end,
// each exactly once, in the order they were taken.
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { ProtocolError } from '../../src/errors.ts';
import { mapFile, unmapFile } from '../../src/native/index.ts';
import { VhostUserBackend } from '../../src/vhost-user/index.ts';
import { descStatePacked, queueRegionPacked } from '../../src/vhost-user/inflight-packed.ts';
import { descStateSplit, queueRegionSplit } from '../../src/vhost-user/inflight-split.ts';
import { ringFeatures } from '../../src/virtio/features.ts';
import { within } from '../../src/wait.ts';
import { openDescriptors } from '../native/open-descriptors.ts';
import type { DriverSide } from '../virtio/driver-side.ts';
import { LAYOUTS, mockDriver } from '../virtio/layouts.ts';
import { EchoDevice } from './echo-device.ts';
import { FrontEnd, GUEST_BASE } from './front-end.ts';
import type { FrontEndRing, Inflight } from './front-end.ts';

const text = (bytes: Uint8Array): string => new TextDecoder().decode(bytes);

describe.each(LAYOUTS)('a back end of %s rings that comes back', (layout) => {
  const packed = layout === 'packed';
  let directory = '';
  let before: string[] = [];
  let device: EchoDevice;
  let backend: VhostUserBackend;
  let frontEnds: FrontEnd[] = [];
  let errors: Error[] = [];

  function listen(): void {
    device = new EchoDevice();
    device.holding = true;
    device.ringFeatures = ringFeatures({ packed });
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

  /** The features of the ring that the test made last. */
  let features = 0n;

  async function begin(size: number, startIndex = 0): Promise<{ ring: FrontEndRing<DriverSide>; inflight: Inflight }> {
    const frontEnd = new FrontEnd(backend.path);
    frontEnds.push(frontEnd);
    const driver = mockDriver(layout, { memory: frontEnd.memory, base: GUEST_BASE, size, startIndex, eventIdx: true });
    ({ features } = driver);
    await frontEnd.negotiate(features);
    await frontEnd.shareMemory();
    const inflight = await frontEnd.trackInflight(2, size);
    const ring = frontEnd.prepareDriver(0, driver, driver.baseAfter(0, 0));
    await frontEnd.startRing(ring);
    return { ring, inflight };
  }

  /**
   * What QEMU does when its chardev is connected again: it goes on from the used index. A packed ring has none to read:
   * it goes on from where it last knew, the start.
   */
  async function comeBack(old: FrontEndRing<DriverSide>, inflight: Inflight): Promise<FrontEndRing<DriverSide>> {
    const frontEnd = new FrontEnd(backend.path, { memory: (frontEnds[0] as FrontEnd).memory });
    frontEnds.push(frontEnd);
    await frontEnd.negotiate(features);
    await frontEnd.shareMemory();
    await frontEnd.giveInflight(inflight);
    const { driver } = old;
    const base = packed ? driver.baseAfter(0, 0) : driver.memory.view(driver.deviceArea + 2, 2).getUint16(0, true);
    const ring = frontEnd.adoptRing(old, base);
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

  /** What the file says of ring 0: the ids of what is in flight, and the place of the next used entry. */
  function noted({ fd, description }: Inflight): { ids: number[]; used: number } {
    const mapping = mapFile(fd, 0, Number(description.mmapSize));
    const bytes = new Uint8Array(mapping);
    const entries = Array.from({ length: description.queueSize }, (_, entry) => entry);
    try {
      if (!packed) {
        const ids = entries.filter((head) => descStateSplit.decode(bytes, queueRegionSplit.sizeBytes + 16 * head).inflight === 1);
        return { ids, used: queueRegionSplit.decode(bytes).used_idx };
      }
      const states = entries.map((entry) => descStatePacked.decode(bytes, queueRegionPacked.sizeBytes + 32 * entry));
      const { used_idx: used, used_wrap_counter: wrap } = queueRegionPacked.decode(bytes);
      return { ids: states.filter(({ inflight }) => inflight === 1).map(({ last }) => states[last].id).sort((a, b) => a - b), used: used | wrap << 15 };
    } finally {
      unmapFile(mapping);
    }
  }

  test('notes what is in flight and nothing else: not what was used, not what was put back', async () => {
    const { ring, inflight } = await begin(8, 0xffff);
    const used = (requests: number): number => ring.driver.baseAfter(requests, 2 * requests) >>> (packed ? 16 : 0);
    expect(noted(inflight)).toEqual({ ids: [], used: used(0) });
    const ids = ['one', 'two', 'three'].map((word) => ring.driver.submitOne(word));
    await taken(3);
    expect(noted(inflight)).toEqual({ ids: [...ids].sort((a, b) => a - b), used: used(0) });
    answer(1);
    expect(noted(inflight)).toEqual({ ids: [ids[0], ids[2]].sort((a, b) => a - b), used: used(1) });
    const last = device.held.pop();
    expect(last?.queue.putBack(last.chain)).toBe(true);
    expect(noted(inflight)).toEqual({ ids: [ids[0]], used: used(1) });
    const first = device.held.pop();
    first?.queue.completeAs(first.chain, 5, 0); // a lie to the driver is still an answer
    expect(noted(inflight)).toEqual({ ids: [], used: used(2) });
  });

  // QEMU's base of a packed ring is the start of all, so that such a ring would be served again, not lost.
  if (!packed) test('without the in-flight area the same loses a request: the base is all that is known', async () => {
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
    expect(base & 0x7fff).toBe(packed ? 4 : 2);
    device.held.length = 0;
    await frontEnd.giveInflight(inflight);
    await frontEnd.startRing(frontEnd.adoptRing(ring, base));
    await taken(2);
    expect(heldTexts()).toEqual(['one', 'two']);
    device.release();
    expect(ring.driver.collect()).toHaveLength(2);
  });

  if (!packed) test('an area that names more than the avail ring holds breaks the ring, and nothing else', async () => {
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
    await frontEnd.startRing(frontEnd.adoptRing(ring, ring.driver.baseAfter(1, 2)));
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
