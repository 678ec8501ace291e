// What holds of a virtqueue whatever its layout: data, order, wraps, sizes, and that no wakeup is lost. The layouts' own
// rules are in split-virtqueue.test.ts, hostile-ring.test.ts and packed-hostile-ring.test.ts.
import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { ProtocolError, UsageError } from '../../src/errors.ts';
import { featureMask, VIRTIO_F } from '../../src/virtio/features.ts';
import { PackedVirtqueue } from '../../src/virtio/packed-virtqueue.ts';
import { SplitVirtqueue } from '../../src/virtio/split-virtqueue.ts';
import { createVirtqueue } from '../../src/virtio/virtqueue-factory.ts';
import type { DescriptorChain, TransportVirtqueue } from '../../src/virtio/virtqueue.ts';
import type { DriverSide } from './driver-side.ts';
import { LAYOUTS, mockDriver } from './layouts.ts';
import type { Layout } from './layouts.ts';

const text = (value: string): Uint8Array => Buffer.from(value);

function readAll(chain: DescriptorChain): string {
  const target = new Uint8Array(chain.readableBytes);
  chain.copyOut(0, target);
  return Buffer.from(target).toString();
}

function take(queue: TransportVirtqueue): DescriptorChain {
  const chain = queue.next();
  if (chain === undefined) throw new Error(`no request: ${queue.broken?.message ?? 'the ring is empty'}`);
  return chain;
}

function takeAll(queue: TransportVirtqueue): DescriptorChain[] {
  const chains: DescriptorChain[] = [];
  for (let chain = queue.next(); chain !== undefined; chain = queue.next()) chains.push(chain);
  return chains;
}

/** Sizes that the layout allows: small ones mostly, since they wrap. */
function sizes(layout: Layout): fc.Arbitrary<number> {
  if (layout === 'split') return fc.integer({ min: 0, max: 5 }).map((log) => 2 ** log);
  return fc.oneof({ weight: 4, arbitrary: fc.integer({ min: 1, max: 12 }) }, { weight: 1, arbitrary: fc.integer({ min: 13, max: 70 }) });
}

const ring = (layout: Layout): fc.Arbitrary<{ size: number; eventIdx: boolean; indirect: boolean; inOrder: boolean; startIndex: number }> => fc.record({
  size: sizes(layout), eventIdx: fc.boolean(), indirect: fc.boolean(), inOrder: fc.boolean(), startIndex: fc.integer({ min: 0, max: 0xffff }),
});

describe('the layout', () => {
  test('is that of the features', () => {
    const packed = featureMask(VIRTIO_F.VIRTIO_F_RING_PACKED);
    const options = { memory: mockDriver('split').memory, size: 8, descAddress: 0x10000, driverAddress: 0x10100, deviceAddress: 0x10200, base: 0, notify: () => undefined, onBroken: () => undefined };
    const made = (features: bigint): TransportVirtqueue => createVirtqueue({ ...options, features } as unknown as Parameters<typeof createVirtqueue>[0]);
    expect(made(0n)).toBeInstanceOf(SplitVirtqueue);
    expect(made(packed)).toBeInstanceOf(PackedVirtqueue);
  });
});

describe.each(LAYOUTS)('a %s ring', (layout) => {
  test.each([{ indirect: false }, { indirect: true }])('gives a request as one run of bytes and takes the answer as another, indirect $indirect', ({ indirect }) => {
    const driver = mockDriver(layout, { indirect });
    const queue = driver.queue();
    const id = driver.submit([text('vir'), text('tio'), text('!')], [2, 40, 3], { indirect });
    const chain = take(queue);
    expect(chain).toMatchObject({ head: id, readableBytes: 7, writableBytes: 45, descriptorCount: 6 });
    expect(readAll(chain)).toBe('virtio!');
    chain.copyIn(1, text(`-${'x'.repeat(43)}`), 1);
    queue.complete(chain, 45);
    const [used] = driver.collect();
    expect(used).toMatchObject({ id, len: 45 });
    expect(Buffer.from(used.written).toString()).toBe(`\0${'x'.repeat(43)}\0`);
    expect(driver.interrupts).toBe(1);
    expect(queue.counts).toEqual({ taken: 1, completed: 1, inFlight: 0, notified: 1, suppressed: 0 });
  });

  test('keeps all data under any order of completion, mix of requests, size and start', () => {
    fc.assert(fc.property(
      ring(layout), fc.boolean(),
      fc.array(fc.record({ batch: fc.array(fc.integer({ min: 1, max: 4 }), { maxLength: 6 }), indirect: fc.boolean(), finish: fc.array(fc.nat(), { maxLength: 6 }) }), { maxLength: 30 }),
      (options, usedBatches, steps) => {
        const driver = mockDriver(layout, options);
        const queue = driver.queue({ usedBatches });
        const held: DescriptorChain[] = [];
        const expected = new Map<number, string>();
        let next = 0;
        const step = (finish: readonly number[]): void => {
          held.push(...takeAll(queue));
          for (const pick of finish) {
            const [chain] = held.splice(pick % Math.max(held.length, 1), 1);
            if (chain === undefined) break;
            chain.copyIn(0, text(readAll(chain)));
            queue.complete(chain, chain.readableBytes);
          }
          const order: number[] = [];
          for (const { id, len, written } of driver.collect()) {
            expect(Buffer.from(written.subarray(0, len)).toString()).toBe(expected.get(id));
            order.push(id);
          }
          if (options.inOrder) expect(order).toEqual([...expected.keys()].slice(0, order.length));
          for (const id of order) expected.delete(id);
          expect(queue.counts.inFlight).toBe(expected.size);
        };
        for (const { batch, indirect, finish } of steps) {
          for (const pieces of batch) {
            const table = options.indirect && indirect && 2 * pieces <= options.size;
            if (!table && 2 * pieces > driver.freeDescriptors) break;
            if (driver.freeDescriptors === 0) break;
            const name = `#${next++}`.padEnd(pieces * 3, '.');
            const parts = Array.from({ length: pieces }, (_, i) => text(name.slice(3 * i, i === pieces - 1 ? undefined : 3 * i + 3)));
            expected.set(driver.submit(parts, parts.map(({ length }) => length), { indirect: table }), name);
          }
          step(finish);
        }
        step(held.map(() => 0).concat(Array<number>(options.size).fill(0)));
        expect(expected.size).toBe(0);
        expect(driver.failures).toEqual([]);
        expect(driver.memory.guardsIntact()).toBe(true);
      },
    ), { numRuns: 300 });
  });

  // From where each index is about to wrap: 16 bits (split), the ring's end (packed).
  test.each(layout === 'split' ? [1, 2, 4, 256, 4096, 32768] : [1, 2, 3, 5, 255, 1000, 32767, 32768])(
    'of %i entries is filled, emptied backwards, and filled again, over the wrap of its indices', (size) => {
      const driver = mockDriver(layout, { size, eventIdx: true, startIndex: layout === 'split' ? 0xffff : size - 1 });
      const queue = driver.queue();
      for (let lap = 0; lap < (size > 1000 ? 2 : 3); lap += 1) {
        const ids = Array.from({ length: size }, () => driver.submit([text('x')]));
        expect(driver.freeDescriptors).toBe(0);
        const chains = takeAll(queue);
        // Joined: toEqual is slow over so many.
        expect(chains.map(({ head }) => head).join()).toBe(ids.join());
        for (const chain of chains.reverse()) queue.complete(chain, 0);
        expect(driver.collect().map(({ id }) => id).join()).toBe(ids.reverse().join());
      }
      expect(driver.failures).toEqual([]);
    });

  test('wraps all its indices with nothing lost, doubled or out of place, one kick and one interrupt each', () => {
    const driver = mockDriver(layout, { eventIdx: true, size: layout === 'split' ? 4 : 5 });
    const queue = driver.queue();
    const seen: number[] = [];
    const word = new Uint8Array(4);
    const pump = (): void => {
      for (let chain = queue.next(); chain !== undefined; chain = queue.next()) {
        chain.copyOut(0, word);
        seen.push(new DataView(word.buffer).getUint32(0, true));
        queue.complete(chain, 0);
      }
    };
    driver.onKick = pump;
    pump();
    const count = layout === 'split' ? 70_000 : 5000; // a packed ring's wrap at its size
    for (let i = 0; i < count; i += 1) {
      driver.submit([new Uint8Array(new Uint32Array([i]).buffer)]);
      if (driver.collect().length !== 1) throw new Error(`request ${i} was not used once`);
    }
    expect(seen.findIndex((value, i) => value !== i)).toBe(-1);
    expect({ seen: seen.length, kicks: driver.kicks, interrupts: driver.interrupts }).toEqual({ seen: count, kicks: count, interrupts: count });
  });

  test('goes on where a stopped queue left off, whatever the stop was at', () => {
    fc.assert(fc.property(ring(layout), fc.array(fc.integer({ min: 0, max: 5 }), { minLength: 1, maxLength: 20 }), (options, lives) => {
      const driver = mockDriver(layout, options);
      let base = driver.queue().base;
      let next = 0;
      const seen: string[] = [];
      for (const count of lives) {
        const queue = driver.queue({ base });
        for (let i = 0; i < count && driver.freeDescriptors > 0; i += 1) driver.submit([text(`#${next++}`)]);
        for (const chain of takeAll(queue)) {
          seen.push(readAll(chain));
          queue.complete(chain, 0);
        }
        driver.collect();
        if (driver.freeDescriptors > 0) driver.submit([text(`#${next++}`)]); // for the next life
        queue.stop();
        expect(queue.next()).toBeUndefined();
        base = queue.base;
      }
      const last = driver.queue({ base });
      seen.push(...takeAll(last).map(readAll));
      expect(seen).toEqual(Array.from({ length: next }, (_, i) => `#${i}`));
      expect(driver.failures).toEqual([]);
    }), { numRuns: 100 });
  });

  describe('with IN_ORDER', () => {
    test('uses requests in the order they were taken, and interrupts once for what was waiting', () => {
      const driver = mockDriver(layout, { inOrder: true });
      const queue = driver.queue();
      const ids = ['a', 'b', 'c'].map((name) => driver.submitOne(name));
      const [a, b, c] = takeAll(queue);
      queue.complete(c, 1);
      queue.complete(b, 0);
      expect({ used: driver.collect(), interrupts: driver.interrupts, counts: queue.counts })
        .toMatchObject({ used: [], interrupts: 0, counts: { completed: 0, inFlight: 3 } });
      expect(() => queue.complete(c, 1)).toThrow(UsageError);
      queue.complete(a, 1);
      expect(driver.collect().map(({ id, len }) => [id, len])).toEqual([[ids[0], 1], [ids[1], 0], [ids[2], 1]]);
      expect(queue.counts).toEqual({ taken: 3, completed: 3, inFlight: 0, notified: 1, suppressed: 2 });
    });

    test('and batches, writes one used entry for a run, but not over a request that was written in part', () => {
      const driver = mockDriver(layout, { inOrder: true });
      const queue = driver.queue({ usedBatches: true });
      const before = driver.memory.read(driver.desc, driver.arena - driver.desc);
      const ids = ['a', 'b', 'c', 'd'].map((name) => driver.submitOne(name));
      const published = driver.memory.read(driver.desc, driver.arena - driver.desc);
      const chains = takeAll(queue);
      for (const [i, written] of [[3, 0], [2, 1], [1, 0], [0, 1]] as const) queue.complete(chains[i], written);
      const entries = usedEntries(driver, layout, before, published);
      // a was written completely and is skipped for b; b has a length to tell; c is skipped for d.
      expect(entries).toEqual([ids[1], ids[3]]);
      expect(driver.collect().map(({ id, len }) => [id, len])).toEqual([[ids[0], 1], [ids[1], 0], [ids[2], 1], [ids[3], 0]]);
      driver.submitOne('e');
      expect(readAll(take(queue))).toBe('e');
    });

    test('stopped with requests that wait for one before them, has the next queue take them all again', () => {
      const driver = mockDriver(layout, { inOrder: true, size: 8 });
      const queue = driver.queue();
      for (const name of ['a', 'b', 'c', 'd']) driver.submitOne(name);
      const [a, , c] = takeAll(queue);
      queue.complete(c, 1);
      queue.complete(a, 1);
      queue.stop();
      const later = driver.queue({ base: queue.base });
      expect(takeAll(later).map(readAll)).toEqual(['b', 'c', 'd']);
    });

    test('uses a wrong id in its turn', () => {
      const driver = mockDriver(layout, { inOrder: true });
      const queue = driver.queue();
      driver.submitOne('a');
      driver.submitOne('b');
      const [a, b] = takeAll(queue);
      queue.completeAs(b, 0xdead, 7);
      expect(driver.collect()).toEqual([]);
      queue.complete(a, 0);
      expect(driver.collect().map(({ id, len }) => [id, len])).toEqual([[a.head, 0], [0xdead, 7]]);
    });
  });

  describe('putBack', () => {
    test.each([{ inOrder: false }, { inOrder: true }])('undoes next(): a later queue takes the same requests in the same order, in order $inOrder', ({ inOrder }) => {
      const driver = mockDriver(layout, { inOrder, size: 8 });
      const queue = driver.queue();
      for (const name of ['a', 'b', 'c']) driver.submitOne(name);
      const [a, b, c] = takeAll(queue);
      expect(queue.putBack(b)).toBe(false);
      expect(queue.putBack(c)).toBe(true);
      expect(queue.putBack(b)).toBe(true);
      expect(queue.putBack(b)).toBe(false);
      expect(queue.counts).toMatchObject({ taken: 1, inFlight: 1 });
      queue.complete(a, 0);
      queue.stop();
      expect(takeAll(driver.queue({ base: queue.base })).map(readAll)).toEqual(['b', 'c']);
    });

    test('and next() again on the same queue gives the request again', () => {
      const driver = mockDriver(layout);
      const queue = driver.queue();
      driver.submitOne('a');
      for (let i = 0; i < 20; i += 1) expect(queue.putBack(take(queue))).toBe(true);
      expect(readAll(take(queue))).toBe('a');
      expect(queue.next()).toBeUndefined();
    });
  });

  describe('notifications', () => {
    test('are withheld while the driver wants none', () => {
      const driver = mockDriver(layout);
      const queue = driver.queue();
      driver.suppressInterrupts(true);
      driver.submitOne('a');
      queue.complete(take(queue), 0);
      expect(driver.interrupts).toBe(0);
      driver.suppressInterrupts(false);
      driver.submitOne('b');
      queue.complete(take(queue), 0);
      expect(queue.counts).toMatchObject({ notified: 1, suppressed: 1 });
    });

    test('of available requests are asked for again only when the ring was found empty', () => {
      const driver = mockDriver(layout, { eventIdx: true, size: 16 });
      const queue = driver.queue();
      expect(queue.next()).toBeUndefined();
      driver.submitOne('a');
      driver.submitOne('b');
      expect(driver.kicks).toBe(1);
      take(queue);
      take(queue);
      driver.submitOne('c');
      expect(driver.kicks).toBe(1);
      take(queue);
      expect(queue.next()).toBeUndefined();
      driver.submitOne('d');
      expect(driver.kicks).toBe(2);
    });

    test('are never lost, whatever the driver does between any two looks of the device', () => {
      fc.assert(fc.property(
        ring(layout), fc.boolean(), fc.array(fc.nat(7), { maxLength: 120 }),
        (options, usedBatches, script) => {
          const driver = mockDriver(layout, { ...options, eventIdx: true });
          const queue = driver.queue({ usedBatches });
          const held: DescriptorChain[] = [];
          let [submitted, collected, at, seen] = [0, 0, 0, 0];
          let kicked = true; // a transport lets the device look when it starts
          driver.onKick = () => { kicked = true; };
          const choose = (): number => script[at++] ?? 0;
          const interrupted = (): boolean => driver.interrupts !== seen;
          const collect = (): void => {
            seen = driver.interrupts;
            collected += driver.collect().length;
          };
          /** The driver, which looks for what was used only when it was interrupted. */
          const drive = (): void => {
            const choice = choose();
            if (choice >= 4 && driver.freeDescriptors > 0) {
              driver.submit([text('x')]);
              submitted += 1;
            }
            if (choice % 2 === 1 && interrupted()) collect();
          };
          between(drive, () => {
            while (at < script.length) {
              drive();
              if (kicked) {
                kicked = false;
                held.push(...takeAll(queue));
              }
              for (let n = choose() % 3; n > 0 && held.length > 0; n -= 1) queue.complete(held.splice(choose() % held.length, 1)[0], 0);
            }
          });
          for (let quiet = false; !quiet;) {
            quiet = !kicked && held.length === 0 && !interrupted();
            if (kicked) held.push(...takeAll(queue));
            kicked = false;
            for (const chain of held.splice(0)) queue.complete(chain, 0);
            if (interrupted()) collect();
          }
          expect({ collected, failures: driver.failures }).toEqual({ collected: submitted, failures: [] });
        },
      ), { numRuns: 500 });
    });
  });

  describe('completing', () => {
    test('a request twice, or one of another queue, is the device author\'s mistake', () => {
      const [driver, other] = [mockDriver(layout), mockDriver(layout)];
      const queue = driver.queue();
      driver.submitOne('a');
      const chain = take(queue);
      queue.complete(chain, 0);
      expect(() => queue.complete(chain, 0)).toThrow(UsageError);
      other.submitOne('a');
      driver.submitOne('b');
      take(queue);
      expect(() => queue.complete(take(other.queue()), 0)).toThrow(UsageError);
    });

    test('on a stopped or a broken queue writes nothing', () => {
      for (const end of [(queue: TransportVirtqueue) => queue.stop(), (queue: TransportVirtqueue) => queue.break(new ProtocolError('x'))]) {
        const driver = mockDriver(layout);
        const queue = driver.queue();
        driver.submitOne('a');
        const chain = take(queue);
        end(queue);
        queue.complete(chain, 0);
        expect(driver.collect()).toEqual([]);
        expect(driver.interrupts).toBe(0);
      }
    });
  });
});

/** Ids of the used entries that were written, in ring order. */
function usedEntries(driver: DriverSide, layout: Layout, fresh: Uint8Array, published: Uint8Array): number[] {
  const now = driver.memory.read(driver.desc, driver.arena - driver.desc);
  const entries: number[] = [];
  const view = new DataView(now.buffer);
  if (layout === 'packed') {
    for (let i = 0; i < driver.size; i += 1) {
      if (Buffer.compare(now.subarray(16 * i, 16 * i + 16), published.subarray(16 * i, 16 * i + 16)) !== 0) entries.push(view.getUint16(16 * i + 12, true));
    }
  } else {
    const used = driver.deviceArea - driver.desc + 4;
    for (let i = 0; i < driver.size; i += 1) {
      if (Buffer.compare(now.subarray(used + 8 * i, used + 8 * i + 8), fresh.subarray(used + 8 * i, used + 8 * i + 8)) !== 0) entries.push(view.getUint32(used + 8 * i, true));
    }
  }
  return entries;
}

/** Run `body` with `act` after each atomic access in it: what another thread could do there. */
function between(act: () => void, body: () => void): void {
  const { load, store } = Atomics;
  let acting = false;
  const followed = <A extends unknown[], R>(access: (...args: A) => R) => (...args: A): R => {
    const result = access(...args);
    if (!acting) {
      acting = true;
      act();
      acting = false;
    }
    return result;
  };
  Atomics.load = followed(load) as typeof load;
  Atomics.store = followed(store) as typeof store;
  try {
    body();
  } finally {
    Atomics.load = load;
    Atomics.store = store;
  }
}
