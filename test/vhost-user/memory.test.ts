import { readFileSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { ProtocolError } from '../../src/errors.ts';
import { closeFd, createMemfd, mapFile, unmapFile } from '../../src/native/index.ts';
import type { RegionDescription } from '../../src/vhost-user/codec.ts';
import { MemoryMap } from '../../src/vhost-user/memory.ts';

const FILE_BYTES = 0x20000;
let fd = -1;
let map: MemoryMap;
let file: Uint8Array;
let mapping: ArrayBuffer;

beforeEach(() => {
  fd = createMemfd('ram', FILE_BYTES);
  mapping = mapFile(fd, 0, FILE_BYTES);
  file = new Uint8Array(mapping);
  map = new MemoryMap();
});
afterEach(() => {
  map.clear();
  unmapFile(mapping);
  closeFd(fd);
  expect(mappings()).toBe(0);
});

function mappings(): number {
  return readFileSync('/proc/self/maps', 'utf8').split('\n').filter((line) => /memfd:(ram|large)/.test(line)).length;
}

const region = (guestAddress: number, size: number, userAddress: number, mmapOffset: number): RegionDescription =>
  ({ guestAddress: BigInt(guestAddress), size: BigInt(size), userAddress: BigInt(userAddress), mmapOffset: BigInt(mmapOffset) });

function use(...regions: RegionDescription[]): void {
  map.prepare(regions, regions.map(() => fd)).commit();
}

describe('a range', () => {
  test('is held only when every byte of it is in one region', () => {
    use(region(0x10000, 0x1000, 0x9000, 0), region(0x11000, 0x1000, 0x90000, 0x1000));
    expect(map.region(0x10000, 0x1000)?.guestAddress).toBe(0x10000);
    expect(map.region(0x10fff, 1)?.guestAddress).toBe(0x10000);
    expect(map.region(0x11000, 1)?.guestAddress).toBe(0x11000);
    for (const [address, length] of [[0xffff, 1], [0xffff, 2], [0x10fff, 2], [0x10001, 0x1000], [0x12000, 1], [0x10000, 0], [0x10000, -1], [Number.MAX_SAFE_INTEGER, 8], [-1, 4]] as const) {
      expect(map.region(address, length)).toBeUndefined();
    }
  });

  test('that crosses into the next region is given as spans, in order', () => {
    use(region(0x11000, 0x1000, 0x90000, 0x8000), region(0x10000, 0x1000, 0x9000, 0));
    file[0xfff] = 1;
    file[0x8000] = 2;
    expect(map.spans(0x10fff, 2)?.map((span) => Array.from(span))).toEqual([[1], [2]]);
    expect(map.spans(0x11fff, 2)).toBeUndefined();
    expect(map.spans(0x10000, 0)).toBeUndefined();
  });

  test('in any layout, region() and spans() hold exactly the bytes that are mapped', () => {
    const block = 0x1000;
    fc.assert(fc.property(fc.subarray([0, 1, 2, 3, 4, 5], { minLength: 1 }), fc.nat(7 * block), fc.nat(2 * block), (blocks, at, length) => {
      use(...blocks.map((i) => region(i * block, block, 0x100000 + i * 2 * block, i * block)));
      const inside = length > 0 && Array.from({ length: Math.ceil((at + length) / block) - Math.floor(at / block) }, (_, i) => Math.floor(at / block) + i).every((i) => blocks.includes(i));
      const spans = map.spans(at, length);
      expect(spans !== undefined).toBe(inside);
      expect(spans?.reduce((sum, span) => sum + span.length, 0) ?? length).toBe(length);
      expect(map.region(at, length) !== undefined).toBe(inside && Math.floor(at / block) === Math.floor((at + length - 1) / block));
    }), { numRuns: 100 });
  });
});

describe('a region', () => {
  test('that starts within a page of its file shows the file from there', () => {
    use(region(0x10000, 0x1008, 0x9000, 0x2008));
    file.set([7, 8, 9, 10], 0x2008);
    file[0x300f] = 11;
    const held = map.region(0x10000, 0x1008);
    expect([held?.u8[0], held?.u16[0], held?.u32[0], held?.u8[0x1007]]).toEqual([7, 0x807, 0x0a090807, 11]);
    expect([held?.u8.length, held?.u16.length, held?.u32.length]).toEqual([0x1008, 0x804, 0x402]);
  });

  test('the front end’s addresses become the guest’s', () => {
    use(region(0x10000, 0x1000, 0x7f0000001000, 0), region(0x4000, 0x1000, 0x7f0000000000, 0x1000));
    expect(map.fromUserAddress(0x7f0000001010n)).toBe(0x10010);
    expect(map.fromUserAddress(0x7f0000000000n)).toBe(0x4000);
    expect(map.fromUserAddress(0x7f0000002000n)).toBeUndefined();
    expect(map.fromUserAddress(0x10000n)).toBeUndefined();
    expect(map.fromUserAddress(2n ** 64n - 1n)).toBeUndefined();
  });

  test('of over 4 GiB whose file ends in its second half is refused, and its first half unmapped', () => {
    const large = createMemfd('large', 2 ** 32 + 4096);
    expect(() => map.prepare([region(0, 2 ** 32 + 8192, 0x1000, 0)], [large])).toThrow(/SET_MEM_TABLE cannot be mapped: mmap .* ENXIO/);
    closeFd(large);
    expect(mappings()).toBe(1);
  });
});

describe('a new table', () => {
  test('keeps what it shares with the old one, and unmaps the rest', () => {
    const a = region(0, 0x1000, 0x1000, 0);
    const b = region(0x1000, 0x1000, 0x2000, 0x1000);
    use(a, b);
    const [first, second] = [map.region(0, 1), map.region(0x1000, 1)];
    const c = region(0x2000, 0x1000, 0x3000, 0x2000);
    const change = map.prepare([a, c], [fd, fd]);
    expect(change.removes).toBe(true);
    expect(map.region(0x1000, 1)).toBe(second); // until it is in force
    change.commit();
    expect(map.region(0, 1)).toBe(first);
    expect(map.region(0x1000, 1)).toBeUndefined();
    expect(map.region(0x2000, 1)?.u8.length).toBe(0x1000);
    expect(second?.u8.length).toBe(0);
    expect(map.regionCount).toBe(2);
    const more = map.prepare([a, c, b], [fd, fd, fd]);
    expect(more.removes).toBe(false);
    more.abandon();
  });

  test('of the same addresses over another file is another mapping', () => {
    const a = region(0, 0x1000, 0x1000, 0);
    use(a);
    const other = createMemfd('ram', FILE_BYTES);
    const before = map.region(0, 1);
    map.prepare([a], [other]).commit();
    closeFd(other);
    expect(map.region(0, 1)).not.toBe(before);
    expect(before?.u8.length).toBe(0);
  });

  test('abandoned leaves the old one as it was', () => {
    use(region(0, 0x1000, 0x1000, 0));
    const count = mappings();
    map.prepare([region(0x5000, 0x1000, 0x9000, 0)], [fd]).abandon();
    expect(mappings()).toBe(count);
    expect(map.region(0, 1)?.u8.length).toBe(0x1000);
    expect(map.region(0x5000, 1)).toBeUndefined();
  });

  test('with one bad region maps none of the others', () => {
    const count = mappings();
    expect(() => map.prepare([region(0, 0x1000, 0x1000, 0), region(0x800, 0x1000, 0x9000, 0)], [fd, fd])).toThrow(ProtocolError);
    expect(() => map.prepare([region(0, 0x1000, 0x1000, 0), region(0x1000, 0, 0x9000, 0)], [fd, fd])).toThrow(ProtocolError);
    expect(mappings()).toBe(count);
    expect(map.regionCount).toBe(0);
  });
});
