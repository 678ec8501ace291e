import { readFileSync } from 'node:fs';
import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { ProtocolError, UsageError } from '../../src/errors.ts';
import { barOffset, decodeBar, decodeBars, parseResourceFile, readBars, sizeBars } from '../../src/pci/bar.ts';
import { configOf } from '../../src/pci/config-space.ts';
import { dumpNames, lspci } from './lspci.ts';
import type { LspciRegion } from './lspci.ts';
import { SimulatedFunction } from './simulated-function.ts';

const countOf = (name: string): 2 | 6 => (name.includes('root-port') ? 2 : 6);

describe('BARs that lspci has read too', () => {
  test.each(dumpNames)('%s: kind, prefetch and address are what lspci says', async (name) => {
    const { config, regions } = lspci(name);
    expect(regions.length).toBeGreaterThan(0);
    const expected = regions.map(({ sizeBytes: _, ...bar }) => bar);
    expect(await readBars(configOf(config), countOf(name))).toEqual(expected);
  });

  test.each(dumpNames)('%s: sizing finds the sizes that lspci says, and leaves config space as it was', async (name) => {
    const dump = lspci(name);
    const fn = new SimulatedFunction(dump);
    expect(await sizeBars(fn, countOf(name))).toEqual(dump.regions);
    expect(fn.config).toEqual(dump.config);
  });
});

describe('sizeBars', () => {
  const region = (over: Partial<LspciRegion>): LspciRegion => ({ index: 0, kind: 'mem32', prefetchable: false, address: 0n, sizeBytes: 4096n, ...over });
  const functionWith = (...regions: LspciRegion[]): SimulatedFunction => {
    const config = lspci('qemu10.0-edu').config.slice();
    config.fill(0, 0x10, 0x28);
    const view = new DataView(config.buffer);
    for (const { index, kind, prefetchable, address } of regions) {
      view.setUint32(barOffset(index), Number(address & 0xffffffffn) | (kind === 'io' ? 1 : kind === 'mem64' ? 4 : 0) | (prefetchable ? 8 : 0), true);
      if (kind === 'mem64') view.setUint32(barOffset(index + 1), Number(address >> 32n), true);
    }
    return new SimulatedFunction({ config, regions });
  };

  test('a 64-bit BAR of 8 GiB above 4 GiB has its size in the upper half', async () => {
    const big = region({ index: 2, kind: 'mem64', prefetchable: true, address: 0x3800000000n, sizeBytes: 2n ** 33n });
    expect(await sizeBars(functionWith(big))).toEqual([big]);
  });

  test('a BAR without an address yet is found all the same', async () => {
    const unset = region({ index: 5, sizeBytes: 16n });
    expect(await sizeBars(functionWith(unset))).toEqual([unset]);
  });

  test('decoding is off while BARs hold ones, and the command register is put back last', async () => {
    const fn = functionWith(region({}));
    await sizeBars(fn);
    expect(fn.writes[0]).toBe('4/2=100');
    expect(fn.writes.at(-1)).toBe('4/2=103');
    expect(fn.writes.filter((write) => write.startsWith('10/'))).toEqual(['10/4=ffffffff', '10/4=0']);
  });

  test('an access that fails leaves no BAR changed and decoding as it was', async () => {
    // Per BAR: read, write ones, read back. The fourth access puts the BAR back: when that fails, nothing can.
    for (const failAt of [3, 4, 5, 7, 8, 9]) {
      const fn = functionWith(region({ address: 0xfe000000n }), region({ index: 1, kind: 'io', address: 0xc000n, sizeBytes: 32n }));
      const before = fn.config.slice();
      fn.failAt = failAt;
      await expect(sizeBars(fn)).rejects.toThrow('the access failed');
      expect(fn.config).toEqual(before);
    }
  });

  test('a function that is gone is a ProtocolError, and nothing is written', async () => {
    const fn = functionWith();
    fn.config.fill(0xff);
    await expect(sizeBars(fn)).rejects.toBeInstanceOf(ProtocolError);
    expect(fn.writes).toEqual([]);
  });

  test('any set of BARs that fits is sized as it is', async () => {
    const layout = fc.array(fc.record({ kind: fc.constantFrom('io', 'mem32', 'mem64', undefined), order: fc.integer({ min: 4, max: 31 }), prefetchable: fc.boolean(), at: fc.nat(0xffffffff) }), { maxLength: 6 });
    await fc.assert(fc.asyncProperty(layout, async (wanted) => {
      const regions: LspciRegion[] = [];
      let index = 0;
      for (const { kind, order, prefetchable, at } of wanted) {
        if (index + (kind === 'mem64' ? 2 : 1) > 6) break;
        const sizeBytes = 2n ** BigInt(kind === 'io' ? Math.min(order, 8) : order);
        const address = BigInt(at) & ~(sizeBytes - 1n) & 0xffffffffn;
        if (kind !== undefined) regions.push(region({ index, kind, prefetchable: kind !== 'io' && prefetchable, sizeBytes, address }));
        index += kind === 'mem64' ? 2 : 1;
      }
      const fn = functionWith(...regions);
      const before = fn.config.slice();
      expect(await sizeBars(fn)).toEqual(regions);
      expect(fn.config).toEqual(before);
    }), { numRuns: 50 });
  });
});

describe('decodeBar and decodeBars', () => {
  test('high addresses are not taken for negative numbers', () => {
    expect(decodeBar(0, 0xfffffff0 | 0, undefined).address).toBe(0xfffffff0n);
    expect(decodeBar(0, 0xf000000c | 0, 0xffffffff | 0)).toEqual({ index: 0, kind: 'mem64', prefetchable: true, address: 0xfffffffff0000000n });
  });

  test('a 64-bit BAR in the last register, a lie of the device, is read as 32 bits', () => {
    expect(decodeBars([0, 0, 0, 0, 0, 0xfe00000c])).toEqual([{ index: 5, kind: 'mem32', prefetchable: true, address: 0xfe000000n }]);
  });

  test('BAR 6 is a UsageError', () => {
    expect(() => barOffset(6)).toThrow(UsageError);
  });
});

describe('parseResourceFile', () => {
  const recorded = (name: string): string => readFileSync(new URL(`../fixtures/guest/resource-${name}.txt`, import.meta.url), 'utf8');

  test("edu's BAR as Linux has it", () => {
    expect(parseResourceFile(recorded('edu'))).toEqual([{ index: 0, kind: 'mem32', prefetchable: false, address: 0xfe400000n, sizeBytes: 0x100000n, assigned: true }]);
  });

  test("virtio-rng's BARs 1 and 4", () => {
    expect(parseResourceFile(recorded('virtio-rng'))).toEqual([
      { index: 1, kind: 'mem32', prefetchable: false, address: 0xfe200000n, sizeBytes: 0x1000n, assigned: true },
      { index: 4, kind: 'mem64', prefetchable: true, address: 0xfe800000n, sizeBytes: 0x4000n, assigned: true },
    ]);
  });

  test("an I/O BAR, and a port's windows left out", () => {
    expect(parseResourceFile(recorded('ahci'))[0]).toEqual({ index: 4, kind: 'io', prefetchable: false, address: 0xc040n, sizeBytes: 32n, assigned: true });
    expect(parseResourceFile(recorded('root-port')).map(({ index }) => index)).toEqual([0]);
  });

  test('a BAR that the kernel could not place has its size and is not assigned', () => {
    expect(parseResourceFile('0x0000000000000000 0x00000000000fffff 0x0000000020040200\n')).toMatchObject([{ sizeBytes: 0x100000n, assigned: false }]);
  });

  test('any text is taken without an error', () => {
    fc.assert(fc.property(fc.string(), (text) => expect(Array.isArray(parseResourceFile(text))).toBe(true)));
  });
});
