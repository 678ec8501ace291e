// The config space of a function of the test's own, as src/pci reads it, and what it refuses to be.
import { describe, expect, test } from '@jest/globals';
import { FunctionConfig, type FunctionShape } from '../../../src/devices/pci-device/function-config.ts';
import { readMsixCapability } from '../../../src/pci/msix.ts';
import type { ConfigReader } from '../../../src/pci/config-space.ts';

const IDS = { vendorId: 0x1234, deviceId: 0x5678 };
const MSIX: FunctionShape = {
  ...IDS, bars: { 0: { kind: 'mem32', sizeBytes: 4096 }, 2: { kind: 'mem64', sizeBytes: 65536, prefetchable: true } },
  msix: { vectors: 190, table: { bar: 2, offset: 0x1000 }, pba: { bar: 0, offset: 0x800 } },
};

const word = (config: FunctionConfig, offset: number, width = 4): number => {
  const bytes = Buffer.alloc(width);
  config.read(offset, bytes);
  return bytes.readUIntLE(0, width);
};
const readerOf = (config: FunctionConfig): ConfigReader => ({ configRead: async (offset, width) => word(config, offset, width) });

test('the MSI-X capability reads back as it was asked for', async () => {
  expect(await readMsixCapability(readerOf(new FunctionConfig(MSIX)))).toEqual({
    offset: 0x40, tableSize: 190, enabled: false, functionMasked: false, tableBar: 2, tableOffset: 0x1000, pbaBar: 0, pbaOffset: 0x800,
  });
  expect(await readMsixCapability(readerOf(new FunctionConfig(IDS)))).toBeUndefined();
});

test('BARs say their kind: memory, 64-bit and prefetchable, ports', () => {
  const config = new FunctionConfig({ ...IDS, bars: { 0: { kind: 'mem32', sizeBytes: 4096 }, 1: { kind: 'io', sizeBytes: 4 }, 4: { kind: 'mem64', sizeBytes: 2 ** 40, prefetchable: true } } });
  expect([0x10, 0x14, 0x18, 0x1c, 0x20, 0x24].map((offset) => word(config, offset))).toEqual([0, 1, 0, 0, 0xc, 0]);
});

test('a guest writes what PCI lets it write: COMMAND, cache line, latency, interrupt line, MSI-X control; a reset takes it back', () => {
  const config = new FunctionConfig({ ...MSIX, classCode: 0x020000, revisionId: 3 });
  const before = Buffer.alloc(256);
  config.read(0, before);
  config.write(0, Buffer.alloc(256, 0xff));
  const after = Buffer.alloc(256);
  config.read(0, after);
  const changed = [...after.entries()].filter(([i, byte]) => byte !== before[i]).map(([i, byte]) => [i, byte ^ (before[i] as number)]);
  expect(changed).toEqual([[0x04, 0x47], [0x05, 0x05], [0x0c, 0xff], [0x0d, 0xff], [0x3c, 0xff], [0x43, 0xc0]]);
  expect(config.msixControl).toEqual({ enabled: true, functionMasked: true });
  config.reset();
  config.read(0, after);
  expect(after).toEqual(before);
});

describe('what PCI has not is a UsageError', () => {
  const bars = { 0: { kind: 'mem32', sizeBytes: 4096 } } as const;
  const place = { bar: 0, offset: 0 };
  test.each<[string, Partial<FunctionShape>, RegExp]>([
    ['a BAR of 5000 bytes', { bars: { 0: { kind: 'mem32', sizeBytes: 5000 } } }, /BAR0 of 5000 bytes[^]*a power of two from 4096/],
    ['512 ports', { bars: { 0: { kind: 'io', sizeBytes: 512 } } }, /BAR0 of 512 bytes[^]*from 4 to 256/],
    ['a BAR in the upper half of another', { bars: { 0: { kind: 'mem64', sizeBytes: 4096 }, 1: { kind: 'io', sizeBytes: 4 } } }, /BAR1 is the upper half/],
    ['a 64-bit BAR5', { bars: { 5: { kind: 'mem64', sizeBytes: 4096 } } }, /BARs are 0 to 5; 6 is none/],
    ['no vector', { bars, msix: { vectors: 0, table: place, pba: { bar: 0, offset: 2048 } } }, /MSI-X with 0 vectors/],
    ['2049 vectors', { bars: { 0: { kind: 'mem32', sizeBytes: 65536 } }, msix: { vectors: 2049, table: place, pba: { bar: 0, offset: 0xf000 } } }, /MSI-X with 2049 vectors/],
    ['a table in no BAR', { bars, msix: { vectors: 1, table: { bar: 1, offset: 0 }, pba: place } }, /the MSI-X table in BAR1, which is none of this function/],
    ['a PBA among ports', { bars: { ...bars, 1: { kind: 'io', sizeBytes: 64 } }, msix: { vectors: 1, table: place, pba: { bar: 1, offset: 0 } } }, /the PBA in BAR1, which is a BAR of ports/],
    ['a table over the BAR\'s end', { bars, msix: { vectors: 256, table: { bar: 0, offset: 8 }, pba: place } }, /the MSI-X table at 0x8 of BAR0[^]*it takes 4096 bytes/],
    ['a PBA at an odd place', { bars, msix: { vectors: 1, table: place, pba: { bar: 0, offset: 0x804 } } }, /the PBA at 0x804/],
    ['table and PBA in each other', { bars, msix: { vectors: 2, table: place, pba: { bar: 0, offset: 16 } } }, /the PBA lies in the MSI-X table/],
  ])('%s', (_, shape, words) => {
    expect(() => new FunctionConfig({ ...IDS, ...shape })).toThrow(words);
  });
});
