import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { ProtocolError, UsageError } from '../../src/errors.ts';
import type { GuestAddress } from '../../src/virtio/guest-memory.ts';
import { SplitVirtqueue } from '../../src/virtio/split-virtqueue.ts';
import type { DescriptorChain } from '../../src/virtio/virtqueue.ts';
import { MockDriver } from './mock-driver.ts';
import { PlainMemory } from './plain-memory.ts';

const text = (value: string): Uint8Array => Buffer.from(value);

function readAll(chain: DescriptorChain): string {
  const target = new Uint8Array(chain.readableBytes);
  chain.copyOut(0, target);
  return Buffer.from(target).toString();
}

function take(queue: SplitVirtqueue): DescriptorChain {
  const chain = queue.next();
  if (chain === undefined) throw new Error(`no request: ${queue.broken?.message ?? 'the ring is empty'}`);
  return chain;
}

describe.each([{ indirect: false }, { indirect: true }])('a request, indirect $indirect', ({ indirect }) => {
  test('is read as one run of bytes and answered as another, however it was cut up', () => {
    const driver = new MockDriver({ indirect });
    const queue = driver.queue();
    const head = driver.submit([text('vir'), text('tio'), text('!')], [2, 40, 3], { indirect });
    const chain = take(queue);
    expect(chain).toMatchObject({ head, readableBytes: 7, writableBytes: 45, descriptorCount: 6 });
    expect(readAll(chain)).toBe('virtio!');
    expect(Buffer.concat(chain.readableSpans(2, 4)).toString()).toBe('rtio');
    const middle = new Uint8Array(4);
    chain.copyOut(1, middle, 0, 4);
    expect(Buffer.from(middle).toString()).toBe('irti');
    chain.copyIn(1, text(`-${'x'.repeat(43)}`), 1);
    Buffer.from('last').forEach((byte, i) => { chain.copyIn(41 + i, new Uint8Array([byte])); });
    queue.complete(chain, 45);
    const [used] = driver.collect();
    expect(used).toMatchObject({ id: head, len: 45 });
    expect(Buffer.from(used.written).toString()).toBe(`\0${'x'.repeat(40)}last`);
    expect(driver.interrupts).toBe(1);
    expect(queue.counts).toEqual({ taken: 1, completed: 1, inFlight: 0, notified: 1, suppressed: 0 });
  });

  test('is refused bytes outside of its parts', () => {
    const driver = new MockDriver({ indirect });
    const queue = driver.queue();
    driver.submit([text('abc')], [5], { indirect });
    const chain = take(queue);
    expect(() => chain.copyOut(1, new Uint8Array(3))).toThrow(RangeError);
    expect(() => chain.copyIn(0, new Uint8Array(6))).toThrow(RangeError);
    expect(() => chain.copyIn(-1, new Uint8Array(1))).toThrow(RangeError);
    expect(() => chain.writableSpans(3, 3)).toThrow(RangeError);
    expect(() => chain.copyOut(0, new Uint8Array(2), 1, 2)).toThrow('target');
    expect(() => queue.complete(chain, 6)).toThrow(UsageError);
  });
});

describe('indices', () => {
  test.each([{ eventIdx: false }, { eventIdx: true }])(
    'wrap past 65535 with nothing lost, doubled or out of place, event_idx $eventIdx', ({ eventIdx }) => {
      const driver = new MockDriver({ eventIdx, startIndex: 0xfff0, size: 4 });
      const queue = driver.queue();
      const seen: string[] = [];
      const pump = (): void => {
        for (let chain = queue.next(); chain !== undefined; chain = queue.next()) {
          seen.push(readAll(chain));
          queue.complete(chain, 0);
        }
      };
      driver.onKick = pump;
      pump();
      for (let i = 0; i < 40; i += 1) {
        driver.submit([text(`r${i}`)]);
        expect(driver.collect()).toHaveLength(1);
      }
      expect(seen).toEqual(Array.from({ length: 40 }, (_, i) => `r${i}`));
      expect(queue.base).toBe((0xfff0 + 40) & 0xffff);
      expect({ kicks: driver.kicks, interrupts: driver.interrupts }).toEqual({ kicks: 40, interrupts: 40 });
    });

  test('go on where a stopped queue left off', () => {
    const driver = new MockDriver({ startIndex: 7 });
    const first = driver.queue();
    driver.submit([text('one')]);
    first.complete(take(first), 0);
    first.stop();
    driver.submit([text('two')]);
    expect(first.next()).toBeUndefined();
    const second = driver.queue({ base: first.base });
    const chain = take(second);
    expect(readAll(chain)).toBe('two');
    second.complete(chain, 0);
    expect(driver.collect().map(({ id }) => id)).toHaveLength(2);
  });

  test('requests are completed in any order, under any mix of sizes and rings', () => {
    fc.assert(fc.property(
      fc.record({ eventIdx: fc.boolean(), indirect: fc.boolean(), startIndex: fc.integer({ min: 0, max: 0xffff }), sizeLog: fc.integer({ min: 1, max: 4 }) }),
      fc.array(fc.record({ batch: fc.integer({ min: 1, max: 6 }), finish: fc.array(fc.nat(), { maxLength: 6 }) }), { maxLength: 30 }),
      (ring, steps) => {
        const driver = new MockDriver({ ...ring, size: 2 ** ring.sizeLog });
        const queue = driver.queue();
        const held: DescriptorChain[] = [];
        let next = 0;
        const expected = new Map<number, string>();
        for (const { batch, finish } of steps) {
          for (let i = 0; i < batch && driver.freeDescriptors >= 2; i += 1) {
            const name = `#${next++}`;
            expected.set(driver.submitOne(name, ring.indirect), name);
          }
          for (let chain = queue.next(); chain !== undefined; chain = queue.next()) held.push(chain);
          expect(held).toHaveLength(expected.size);
          for (const pick of finish) {
            const [chain] = held.splice(pick % Math.max(held.length, 1), 1);
            if (chain === undefined) break;
            chain.copyIn(0, text(readAll(chain)));
            queue.complete(chain, chain.readableBytes);
          }
          for (const { id, len, written } of driver.collect()) {
            expect(Buffer.from(written.subarray(0, len)).toString()).toBe(expected.get(id));
            expected.delete(id);
          }
          expect(queue.counts.inFlight).toBe(expected.size);
        }
        expect(driver.failures).toEqual([]);
        expect(driver.memory.guardsIntact()).toBe(true);
      },
    ), { numRuns: 60 });
  });
});

describe('notifications', () => {
  test('are withheld while the driver has NO_INTERRUPT set', () => {
    const driver = new MockDriver();
    const queue = driver.queue();
    driver.suppressInterrupts(true);
    driver.submit([text('a')]);
    queue.complete(take(queue), 0);
    expect(driver.interrupts).toBe(0);
    driver.suppressInterrupts(false);
    driver.submit([text('b')]);
    queue.complete(take(queue), 0);
    expect(driver.interrupts).toBe(1);
    expect(queue.counts).toMatchObject({ notified: 1, suppressed: 1 });
  });

  test('with EVENT_IDX come exactly at used_event, NO_INTERRUPT or not', () => {
    const driver = new MockDriver({ eventIdx: true, startIndex: 0xfffe });
    const queue = driver.queue();
    driver.suppressInterrupts(true); // 2.7.7.2: the flag means nothing with EVENT_IDX
    driver.askInterruptAt(0x0001);
    const at: number[] = [];
    for (let i = 0; i < 6; i += 1) {
      driver.submit([text('a')]);
      queue.complete(take(queue), 0);
      if (driver.interrupts > at.length) at.push((0xfffe + i) & 0xffff);
    }
    expect(at).toEqual([1]);
  });

  test('kicks are asked for again only when the ring was found empty', () => {
    const driver = new MockDriver({ eventIdx: true });
    const queue = driver.queue();
    expect(queue.next()).toBeUndefined();
    driver.submit([text('a')]);
    driver.submit([text('b')]);
    expect(driver.kicks).toBe(1);
    take(queue);
    take(queue);
    driver.submit([text('c')]);
    expect(driver.kicks).toBe(1);
    take(queue);
    expect(queue.next()).toBeUndefined();
    driver.submit([text('d')]);
    expect(driver.kicks).toBe(2);
  });

  test('a request that is made available while the device asks for a kick is not lost', () => {
    const driver = new MockDriver({ eventIdx: true });
    const memory = driver.memory;
    const head = driver.stage([text('late')]);
    // The driver publishes between the device's store of avail_event and its second look at avail.idx.
    const store = Atomics.store;
    Atomics.store = ((...args: Parameters<typeof store>) => {
      const result = store(...args);
      memory.view(driver.avail + 4, 2).setUint16(0, head, true);
      memory.view(driver.avail + 2, 2).setUint16(0, 1, true);
      return result;
    }) as typeof store;
    try {
      expect(driver.queue().next()?.head).toBe(head);
    } finally {
      Atomics.store = store;
    }
  });
});

describe('a driver that fills the ring as fast as it is emptied', () => {
  function flood(lengthBytes: number, withYield: boolean): { taken: number; yields: number } {
    const driver = new MockDriver({ size: 4 });
    driver.descriptor(0, { addr: driver.arena, len: lengthBytes });
    let yields = 0;
    const queue = driver.queue(withYield ? { yieldTurn: () => { yields += 1; } } : {});
    let taken = 0;
    for (driver.publish([0]); taken < 10_000; taken += 1) {
      const chain = queue.next();
      if (chain === undefined) break;
      queue.complete(chain, 0);
      driver.publish([0]);
    }
    expect(queue.broken).toBeUndefined();
    if (withYield) expect(queue.next()).toBeDefined(); // the next turn goes on where this one ended
    return { taken, yields };
  }

  test('is left waiting after a turn, which large requests make shorter', () => {
    const small = flood(16, true);
    expect(small.yields).toBe(1);
    expect(small.taken).toBeGreaterThan(1000);
    expect(small.taken).toBeLessThanOrEqual(4096);
    expect(flood(512 * 1024, true)).toEqual({ taken: Math.ceil(4096 / 129), yields: 1 });
  });

  test('is served for ever when nobody else wants a turn', () => {
    expect(flood(16, false)).toEqual({ taken: 10_000, yields: 0 });
  });
});

describe('putBack', () => {
  test('undoes next(): a later queue takes the same requests in the same order', () => {
    const driver = new MockDriver();
    const queue = driver.queue();
    for (const name of ['a', 'b', 'c']) driver.submit([text(name)]);
    const [a, b, c] = [take(queue), take(queue), take(queue)];
    expect(queue.putBack(b)).toBe(false);
    expect(queue.putBack(c)).toBe(true);
    expect(queue.putBack(b)).toBe(true);
    expect(queue.putBack(b)).toBe(false);
    expect(queue.base).toBe(1);
    expect(queue.counts).toMatchObject({ taken: 1, inFlight: 1 });
    queue.complete(a, 0);
    queue.stop();
    const later = driver.queue({ base: queue.base });
    expect([readAll(take(later)), readAll(take(later))]).toEqual(['b', 'c']);
  });

  test('and next() again on the same queue gives the request again', () => {
    const driver = new MockDriver();
    const queue = driver.queue();
    driver.submit([text('a')]);
    expect(queue.putBack(take(queue))).toBe(true);
    expect(readAll(take(queue))).toBe('a');
    expect(queue.next()).toBeUndefined();
  });
});

describe('completing', () => {
  test('a request twice, or one of another queue, is the device author\'s mistake', () => {
    const driver = new MockDriver();
    const queue = driver.queue();
    driver.submit([text('a')]);
    const chain = take(queue);
    queue.complete(chain, 0);
    expect(() => queue.complete(chain, 0)).toThrow(UsageError);
    const other = new MockDriver();
    const otherQueue = other.queue();
    other.submit([text('a')]);
    driver.submit([text('b')]);
    take(queue);
    expect(() => queue.complete(take(otherQueue), 0)).toThrow(UsageError);
  });

  test('on a stopped or a broken queue writes nothing', () => {
    for (const end of [(queue: SplitVirtqueue) => queue.stop(), (queue: SplitVirtqueue) => queue.break(new ProtocolError('x'))]) {
      const driver = new MockDriver();
      const queue = driver.queue();
      driver.submit([text('a')]);
      const chain = take(queue);
      end(queue);
      queue.complete(chain, 0);
      expect(driver.collect()).toEqual([]);
      expect(driver.interrupts).toBe(0);
    }
  });

  test('several at once shows the driver all of them, in their order, with one notification', () => {
    const driver = new MockDriver({ size: 8, startIndex: 0xfffe });
    const queue = driver.queue();
    const heads = ['a', 'b', 'c'].map((name) => driver.submitOne(name));
    const chains = heads.map(() => take(queue));
    const shown: number[] = [];
    const { store } = Atomics;
    Atomics.store = ((array: Uint16Array, at: number, value: number) => {
      shown.push(value);
      return store(array, at, value);
    }) as typeof Atomics.store;
    try {
      queue.completeTogether([...chains].reverse(), [1, 0, 1, 99], 3);
    } finally {
      Atomics.store = store;
    }
    expect(shown).toEqual([1]); // used.idx went from 0xfffe to 1 in one step
    expect(driver.collect()).toMatchObject([{ id: heads[2], len: 1 }, { id: heads[1], len: 0 }, { id: heads[0], len: 1 }]);
    expect(driver.interrupts).toBe(1);
    expect(queue.counts).toMatchObject({ completed: 3, inFlight: 0, notified: 1 });
  });

  test('several at once of which one is not the queue\'s, comes twice or is given too many bytes, completes none', () => {
    const driver = new MockDriver();
    const queue = driver.queue();
    driver.submitOne('a');
    driver.submitOne('b');
    const [a, b] = [take(queue), take(queue)];
    const other = new MockDriver();
    other.submitOne('c');
    const foreign = take(other.queue());
    expect(() => queue.completeTogether([a, b, foreign], [0, 0, 0])).toThrow(UsageError);
    expect(() => queue.completeTogether([a, b, a], [0, 0, 0])).toThrow(UsageError);
    expect(() => queue.completeTogether([a, b], [0, 2])).toThrow(UsageError);
    expect(driver.collect()).toEqual([]);
    expect(queue.counts).toMatchObject({ completed: 0, inFlight: 2 });
    queue.completeTogether([a, b], [0, 0]);
    expect(driver.collect()).toHaveLength(2);
    queue.completeTogether([], []);
    expect(driver.interrupts).toBe(1);
  });

  test('with a wrong id and length puts just that into the ring', () => {
    const driver = new MockDriver();
    const queue = driver.queue();
    driver.submit([text('a')]);
    queue.completeAs(take(queue), 0xdead, 0xbeef);
    expect(driver.collect()).toMatchObject([{ id: 0xdead, len: 0xbeef }]);
    expect(driver.interrupts).toBe(1);
  });
});

describe('memory', () => {
  test('a buffer over two adjacent regions is one run of bytes', () => {
    const memory = new PlainMemory({ guestAddress: 0x1000, sizeBytes: 0x1000 }, { guestAddress: 0x2000, sizeBytes: 0x1000 });
    const driver = new MockDriver({ memory });
    const queue = driver.queue();
    memory.write(0x1ffd, text('abcdef'));
    driver.descriptor(0, { addr: 0x1ffd, len: 6, flags: 1, next: 1 });
    driver.descriptor(1, { addr: 0x1ff0, len: 0x40, flags: 2 });
    driver.publish([0]);
    const chain = take(queue);
    expect(readAll(chain)).toBe('abcdef');
    expect(chain.descriptorCount).toBe(2);
    chain.copyIn(0, new Uint8Array(0x40).fill(7));
    expect(memory.read(0x1ff0, 0x40).every((byte) => byte === 7)).toBe(true);
    expect(chain.writableSpans().map(({ length }) => length)).toEqual([0x10, 0x30]);
  });

  test.each([
    { where: 'at an address that is not a multiple of 4', table: 0x1802 },
    { where: 'over two regions', table: 0x1ff8 },
  ])('an indirect table $where is followed', ({ table }) => {
    const memory = new PlainMemory({ guestAddress: 0x1000, sizeBytes: 0x1000 }, { guestAddress: 0x2000, sizeBytes: 0x1000 });
    const driver = new MockDriver({ memory, indirect: true });
    const source = new MockDriver({ memory: new PlainMemory({ guestAddress: 0, sizeBytes: 0x1000 }) });
    source.descriptor(0, { addr: 0x1900, len: 3, flags: 1, next: 1 });
    source.descriptor(1, { addr: 0x1910, len: 9, flags: 2 });
    memory.write(table, source.memory.read(source.desc, 32));
    driver.descriptor(0, { addr: table, len: 32, flags: 4 });
    driver.publish([0]);
    expect(take(driver.queue())).toMatchObject({ readableBytes: 3, writableBytes: 9 });
  });

  test('the ring may lie at any place aligned as 2.7 demands', () => {
    fc.assert(fc.property(fc.nat(200), fc.nat(100), fc.nat(100), (d, a, u) => {
      const base = 0x10000;
      const memory = new PlainMemory({ guestAddress: base, sizeBytes: 0x4000 });
      const driver = new MockDriver({ memory, base: base + 0x2000 });
      const [desc, avail, used] = [base + 16 * d, base + 0x1000 + 2 * a, base + 0x1800 + 4 * u];
      const queue = new SplitVirtqueue({
        memory, size: 8, descAddress: desc as GuestAddress, driverAddress: avail as GuestAddress, deviceAddress: used as GuestAddress,
        eventIdx: true, indirect: false, base: 0, notify: () => undefined, onBroken: (error) => { throw error; },
      });
      driver.descriptor(3, { addr: driver.arena, len: 4 });
      memory.write(desc + 48, memory.read(driver.desc + 48, 16));
      memory.view(avail + 4, 2).setUint16(0, 3, true);
      memory.view(avail + 2, 2).setUint16(0, 1, true);
      queue.complete(take(queue), 0);
      expect(queue.next()).toBeUndefined();
      expect([...new Uint32Array(memory.read(used, 12).buffer)]).toEqual([1 << 16, 3, 0]);
      expect(memory.view(used + 4 + 64, 2).getUint16(0, true)).toBe(1);
    }));
  });

  test('mapped anew, is found by remap(), and a ring that is gone breaks the queue', () => {
    const regions: PlainMemory[] = [new PlainMemory({ guestAddress: 0x1000, sizeBytes: 0x1000 })];
    const driver = new MockDriver({ memory: regions[0] });
    const broken: ProtocolError[] = [];
    const queue = new SplitVirtqueue({
      memory: { region: (at, length) => regions[0]?.region(at, length), spans: (at, length) => regions[0]?.spans(at, length) },
      size: driver.size, descAddress: driver.desc as GuestAddress, driverAddress: driver.avail as GuestAddress, deviceAddress: driver.used as GuestAddress,
      eventIdx: false, indirect: false, base: 0, notify: () => undefined, onBroken: (error) => broken.push(error),
    });
    driver.submit([text('old')]);
    const moved = new PlainMemory({ guestAddress: 0x1000, sizeBytes: 0x1000 });
    moved.write(0x1000, driver.memory.read(0x1000, 0x1000));
    regions[0] = moved;
    driver.memory.regions[0].u8.fill(0xff);
    queue.remap();
    const chain = take(queue);
    expect(readAll(chain)).toBe('old');
    queue.complete(chain, 0);
    regions.pop();
    queue.remap();
    expect(broken.map(({ summary }) => summary)).toEqual([expect.stringContaining('not in one region')]);
  });
});
