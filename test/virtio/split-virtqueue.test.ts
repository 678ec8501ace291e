// What is particular to split rings; what holds of both layouts is in virtqueue.test.ts.
import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { UsageError } from '../../src/errors.ts';
import type { ProtocolError } from '../../src/errors.ts';
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

describe('notifications', () => {
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

describe('completing', () => {
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
