// What a driver that breaks the rules gets: one ProtocolError on its queue, and nothing else touched.
import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { ProtocolError } from '../../src/errors.ts';
import type { GuestAddress } from '../../src/virtio/guest-memory.ts';
import { SplitVirtqueue } from '../../src/virtio/split-virtqueue.ts';
import type { MockDriverOptions } from './mock-driver.ts';
import { MockDriver } from './mock-driver.ts';
import { PlainMemory } from './plain-memory.ts';

const NEXT = 1;
const WRITE = 2;
const INDIRECT = 4;

interface Case {
  readonly name: string;
  readonly message: RegExp;
  readonly options?: MockDriverOptions;
  readonly chainLimit?: number;
  readonly make: (driver: MockDriver) => void;
}

/** A table of descriptors in the arena, and descriptor 0 that refers to it. */
function indirect(driver: MockDriver, entries: Parameters<MockDriver['descriptor']>[1][], flags = INDIRECT, lengthBytes = 16 * entries.length): void {
  const scratch = new MockDriver({ memory: new PlainMemory({ guestAddress: 0, sizeBytes: 0x4000 }), size: 128 });
  entries.forEach((entry, i) => { scratch.descriptor(i, entry); });
  const table = driver.arena + 0x100;
  driver.memory.write(table, scratch.memory.read(0, 16 * entries.length));
  driver.descriptor(0, { addr: table, len: lengthBytes, flags, next: 1 });
  driver.publish([0]);
}

const cases: Case[] = [
  {
    name: 'a head outside of the table',
    message: /avail ring names descriptor 8 of 8/,
    make: (driver) => driver.publish([8]),
  },
  {
    name: 'a next outside of the table',
    message: /descriptor 9 is outside the table of 8/,
    make: (driver) => {
      driver.descriptor(0, { addr: driver.arena, len: 4, flags: NEXT, next: 9 });
      driver.publish([0]);
    },
  },
  {
    name: 'a next with its highest bit set',
    message: /descriptor 65535 is outside the table of 8/,
    make: (driver) => {
      driver.descriptor(0, { addr: driver.arena, len: 4, flags: NEXT, next: 0xffff });
      driver.publish([0]);
    },
  },
  {
    name: 'a descriptor that is its own next',
    message: /a loop, or more than the 8 descriptors allowed, in the chain of head 2/,
    make: (driver) => {
      driver.descriptor(2, { addr: driver.arena, len: 4, flags: NEXT, next: 2 });
      driver.publish([2]);
    },
  },
  {
    name: 'a loop of two',
    message: /loop/,
    make: (driver) => {
      driver.descriptor(2, { addr: driver.arena, len: 4, flags: NEXT, next: 5 });
      driver.descriptor(5, { addr: driver.arena, len: 4, flags: NEXT, next: 2 });
      driver.publish([2]);
    },
  },
  {
    name: 'an avail index that jumps past the queue\'s size',
    message: /avail.idx went from 0 to 9: 9 requests in a queue of 8/,
    make: (driver) => driver.availIndex(9),
  },
  {
    name: 'an avail index that goes back',
    message: /avail.idx went from 5 to 4: 65535 requests/,
    options: { startIndex: 5 },
    make: (driver) => driver.availIndex(4),
  },
  {
    name: 'a buffer outside of memory',
    message: /4 bytes at 0xdead0000, is not in guest memory/,
    make: (driver) => {
      driver.descriptor(0, { addr: 0xdead0000, len: 4 });
      driver.publish([0]);
    },
  },
  {
    name: 'a buffer that runs past the end of memory by one byte',
    message: /is not in guest memory/,
    make: (driver) => {
      const [{ guestAddress, sizeBytes }] = driver.memory.regions;
      driver.descriptor(0, { addr: guestAddress + sizeBytes - 3, len: 4 });
      driver.publish([0]);
    },
  },
  ...[2n ** 53n - 1n, 2n ** 53n, 2n ** 64n - 2n, 2n ** 63n, 2n ** 32n].map((addr) => ({
    name: `a buffer at 0x${addr.toString(16)}`,
    message: /is not in guest memory/,
    make: (driver: MockDriver) => {
      driver.descriptor(0, { addr, len: 4 });
      driver.publish([0]);
    },
  })),
  {
    name: 'a length of 2^32 - 1',
    message: /4294967295 bytes at/,
    make: (driver) => {
      driver.descriptor(0, { addr: driver.arena, len: 0xffffffff });
      driver.publish([0]);
    },
  },
  {
    name: 'a length of zero',
    message: /descriptor 1 has length 0/,
    make: (driver) => {
      driver.descriptor(0, { addr: driver.arena, len: 4, flags: NEXT, next: 1 });
      driver.descriptor(1, { addr: driver.arena, len: 0, flags: WRITE });
      driver.publish([0]);
    },
  },
  {
    name: 'a device-readable descriptor after a device-writable one',
    message: /descriptor 1 is device-readable and follows a device-writable one/,
    make: (driver) => {
      driver.descriptor(0, { addr: driver.arena, len: 4, flags: WRITE | NEXT, next: 1 });
      driver.descriptor(1, { addr: driver.arena, len: 4 });
      driver.publish([0]);
    },
  },
  {
    name: 'a head that the device still has',
    message: /descriptor 0 was made available again while the device has it/,
    make: (driver) => {
      driver.descriptor(0, { addr: driver.arena, len: 4 });
      driver.publish([0, 0]);
    },
  },
  {
    name: 'INDIRECT without the feature',
    message: /descriptor 0 is INDIRECT, which was not negotiated/,
    options: { indirect: false },
    make: (driver) => indirect(driver, [{ addr: driver.arena, len: 4 }]),
  },
  {
    name: 'INDIRECT inside of an indirect table',
    message: /indirect descriptor 0 is INDIRECT again/,
    options: { indirect: true },
    make: (driver) => indirect(driver, [{ addr: driver.arena, len: 16, flags: INDIRECT }]),
  },
  {
    name: 'INDIRECT together with NEXT',
    message: /both INDIRECT and NEXT/,
    options: { indirect: true },
    make: (driver) => indirect(driver, [{ addr: driver.arena, len: 4 }], INDIRECT | NEXT),
  },
  ...[0, 15, 17].map((length) => ({
    name: `an indirect table of ${length} bytes`,
    message: /not a multiple of 16/,
    options: { indirect: true },
    make: (driver: MockDriver) => indirect(driver, [{ addr: driver.arena, len: 4 }], INDIRECT, length),
  })),
  {
    name: 'an indirect table of 65537 entries',
    message: /65537 entries, more than an index reaches/,
    options: { indirect: true },
    make: (driver) => indirect(driver, [{ addr: driver.arena, len: 4 }], INDIRECT, 16 * 65537),
  },
  {
    name: 'an indirect table outside of memory',
    message: /indirect table of descriptor 0, 1048560 bytes at .* is not in guest memory/,
    options: { indirect: true },
    make: (driver) => indirect(driver, [{ addr: driver.arena, len: 4 }], INDIRECT, 16 * 65535),
  },
  {
    name: 'an indirect table at 2^64 - 16',
    message: /is not in guest memory/,
    options: { indirect: true },
    make: (driver) => {
      driver.descriptor(0, { addr: 2n ** 64n - 16n, len: 16, flags: INDIRECT });
      driver.publish([0]);
    },
  },
  {
    name: 'a next outside of an indirect table',
    message: /descriptor 1 is outside the indirect table of 1/,
    options: { indirect: true },
    make: (driver) => indirect(driver, [{ addr: driver.arena, len: 4, flags: NEXT, next: 1 }]),
  },
  {
    name: 'a loop in an indirect table',
    message: /loop/,
    options: { indirect: true },
    make: (driver) => indirect(driver, [{ addr: driver.arena, len: 4, flags: NEXT, next: 1 }, { addr: driver.arena, len: 4, flags: NEXT, next: 0 }]),
  },
  {
    name: 'an indirect chain longer than the queue',
    message: /more than the 8 descriptors allowed/,
    options: { indirect: true },
    make: (driver) => indirect(driver, Array.from({ length: 9 }, (_, i) => ({ addr: driver.arena, len: 4, flags: i < 8 ? NEXT : 0, next: i + 1 }))),
  },
];

describe('a ring with', () => {
  test.each(cases)('$name breaks its queue, once', ({ message, options, make }) => {
    const driver = new MockDriver(options);
    const queue = driver.queue();
    make(driver);
    const before = driver.memory.read(driver.used, 4 + 8 * driver.size);
    for (let i = 0; i < 3; i += 1) queue.next();
    expect(driver.failures.map(({ summary }) => summary)).toEqual([expect.stringMatching(message)]);
    expect(queue.broken).toBe(driver.failures[0]);
    expect(queue.broken).toBeInstanceOf(ProtocolError);
    expect(queue.next()).toBeUndefined();
    expect(driver.memory.read(driver.used, 4 + 8 * driver.size)).toEqual(before);
  });

  test('as many descriptors as the limit allows is fine, with one more it is not', () => {
    for (const [count, fine] of [[8, true], [9, false], [16, true], [17, false]] as const) {
      const driver = new MockDriver({ indirect: true });
      const queue = driver.queue(count > 9 ? { chainLimit: 16 } : {});
      indirect(driver, Array.from({ length: count }, (_, i) => ({ addr: driver.arena, len: 4, flags: i < count - 1 ? NEXT : 0, next: i + 1 })));
      expect(queue.next()?.descriptorCount).toBe(fine ? count : undefined);
    }
  });

  test('direct descriptors and then an indirect one are one chain (2.7.5.3.2)', () => {
    const driver = new MockDriver({ indirect: true });
    indirect(driver, [{ addr: driver.arena, len: 5, flags: NEXT | WRITE, next: 1 }, { addr: driver.arena, len: 6, flags: WRITE }]);
    driver.descriptor(3, { addr: driver.arena, len: 4, flags: NEXT, next: 0 });
    driver.availHead(0, 3);
    expect(driver.queue().next()).toMatchObject({ head: 3, readableBytes: 4, writableBytes: 11, descriptorCount: 3 });
  });
});

describe('a queue placed badly', () => {
  const memory = new PlainMemory({ guestAddress: 0x1000, sizeBytes: 0x1000 });
  const good = { size: 8, desc: 0x1000, avail: 0x1100, used: 0x1200 };
  test.each([
    { name: 'desc not aligned to 16', place: { ...good, desc: 0x1008 }, message: /desc ring at 0x1008 is not aligned to 16/ },
    { name: 'avail not aligned to 2', place: { ...good, avail: 0x1101 }, message: /avail ring .* not aligned to 2/ },
    { name: 'used not aligned to 4', place: { ...good, used: 0x1202 }, message: /used ring .* not aligned to 4/ },
    { name: 'used past the end of memory', place: { ...good, used: 0x1ffc }, message: /used ring, 70 bytes at 0x1ffc, is not in one region/ },
    { name: 'desc outside of memory', place: { ...good, desc: 0 }, message: /desc ring, 128 bytes at 0x0/ },
    { name: 'a size of 0', place: { ...good, size: 0 }, message: /size 0 is not a power of two/ },
    { name: 'a size of 3', place: { ...good, size: 3 }, message: /size 3 is not a power of two/ },
    { name: 'a size of 65536', place: { ...good, size: 65536 }, message: /size 65536/ },
    { name: 'a size that is no number', place: { ...good, size: NaN }, message: /size NaN/ },
  ])('$name, is broken from the start', ({ place, message }) => {
    const broken: ProtocolError[] = [];
    const queue = new SplitVirtqueue({
      memory, size: place.size,
      descAddress: place.desc as GuestAddress, driverAddress: place.avail as GuestAddress, deviceAddress: place.used as GuestAddress,
      eventIdx: true, indirect: true, base: 0, notify: () => undefined, onBroken: (error) => broken.push(error),
    });
    expect(broken.map(({ summary }) => summary)).toEqual([expect.stringMatching(message)]);
    expect(queue.next()).toBeUndefined();
  });
});

describe('any ring whatever', () => {
  const word = fc.oneof(fc.nat(40), fc.integer({ min: 0, max: 0xffff }));
  const address = fc.oneof(
    fc.integer({ min: 0x1000, max: 0x3100 }).map(BigInt),
    fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
    fc.constantFrom(0n, 0xfffn, 0x1fffn, 2n ** 53n - 1n, 2n ** 64n - 1n),
  );
  const descriptor = fc.record({
    addr: address,
    len: fc.oneof(fc.integer({ min: 0, max: 64 }), fc.integer({ min: 0, max: 16 }).map((n) => 16 * n), fc.integer({ min: 0, max: 0xffffffff })),
    flags: fc.oneof(fc.integer({ min: 0, max: 7 }), word),
    next: fc.oneof(fc.nat(9), word),
  });

  test('is taken without a crash or a hang, and written only where the driver allowed', () => {
    fc.assert(fc.property(
      fc.array(descriptor, { minLength: 8, maxLength: 8 }),
      fc.array(fc.oneof(fc.nat(9), word), { minLength: 8, maxLength: 8 }),
      fc.oneof(fc.nat(9), word),
      fc.uint8Array({ minLength: 0x400, maxLength: 0x400 }),
      fc.boolean(),
      (descriptors, heads, index, noise, eventIdx) => {
        const memory = new PlainMemory({ guestAddress: 0x1000, sizeBytes: 0x1000 }, { guestAddress: 0x2000, sizeBytes: 0x1000 });
        memory.write(0x1800, noise); // what indirect tables and buffers are made of
        const driver = new MockDriver({ memory, eventIdx, indirect: true });
        // A table of plausible descriptors, where the indirect ones may find it.
        descriptors.forEach((entry, i) => { driver.descriptor(i, entry); });
        memory.write(0x2000, memory.read(driver.desc, 128));
        heads.forEach((head, i) => { driver.availHead(i, head); });
        const queue = driver.queue();
        driver.availIndex(index);
        const before = memory.read(0x1000, 0x2000);
        const allowed = new Uint8Array(0x2000);
        allowed.fill(1, driver.used - 0x1000, driver.used - 0x1000 + 6 + 64);
        let taken = 0;
        for (let chain = queue.next(); chain !== undefined; chain = queue.next()) {
          taken += 1;
          for (const span of chain.writableSpans()) {
            const region = memory.regions.find(({ u8 }) => u8.buffer === span.buffer);
            const start = (region?.guestAddress ?? 0) - 0x1000 + span.byteOffset - 64;
            allowed.fill(1, start, start + span.length);
          }
          const bytes = Buffer.alloc(chain.writableBytes, 0x5a);
          chain.copyOut(0, new Uint8Array(chain.readableBytes));
          chain.copyIn(0, bytes);
          queue.complete(chain, chain.writableBytes);
          if (taken > 200) break; // a ring that our own answers rewrite may go on; it must not go on by itself
        }
        const after = memory.read(0x1000, 0x2000);
        expect(after.findIndex((byte, i) => byte !== before[i] && allowed[i] === 0)).toBe(-1);
        expect(memory.guardsIntact()).toBe(true);
        expect(driver.failures.every((error) => error instanceof ProtocolError)).toBe(true);
        expect(driver.failures.length).toBeLessThanOrEqual(1);
      },
    ), { numRuns: 200 });
  });
});
