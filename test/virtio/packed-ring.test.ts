import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { availableFlags, needPackedEvent, packedRingParts, pvirtqDesc, pvirtqEventSuppress, usedFlags } from '../../src/virtio/packed-ring.ts';

describe('the layout of a packed ring', () => {
  test('has the offsets and sizes of virtio 1.2, 2.8.13 and 2.8.14', () => {
    const shape = ({ fields }: { fields: Record<string, { offset: number; widthBytes: number }> }): unknown[] =>
      Object.entries(fields).map(([name, { offset, widthBytes }]) => [name, offset, widthBytes]);
    expect(shape(pvirtqDesc)).toEqual([['addr', 0, 8], ['len', 8, 4], ['id', 12, 2], ['flags', 14, 2]]);
    expect(pvirtqDesc.sizeBytes).toBe(16);
    expect(shape(pvirtqEventSuppress)).toEqual([['desc', 0, 2], ['flags', 2, 2]]);
    expect(pvirtqEventSuppress.sizeBytes).toBe(4);
  });

  test('has the parts of the table in 2.8.10.1', () => {
    expect([packedRingParts.desc.sizeBytes(255), packedRingParts.driver.sizeBytes(), packedRingParts.device.sizeBytes()]).toEqual([16 * 255, 4, 4]);
    expect([packedRingParts.desc.alignment, packedRingParts.driver.alignment, packedRingParts.device.alignment]).toEqual([16, 4, 4]);
  });

  test('marks descriptors as 2.8.1 says: AVAIL and USED differ when available, and are the wrap counter when used', () => {
    expect([availableFlags(true), availableFlags(false), usedFlags(true), usedFlags(false)]).toEqual([0x80, 0x8000, 0x8080, 0]);
  });
});

describe('needPackedEvent', () => {
  test('is true exactly when the descriptor asked for is among those just moved over, under its wrap counter', () => {
    const place = fc.integer({ min: 1, max: 20 }).chain((size) => fc.record({
      size: fc.constant(size), end: fc.nat(2 * size), moved: fc.integer({ min: 1, max: size }), event: fc.nat(2 * size - 1),
    }));
    fc.assert(fc.property(place, ({ size, end, moved, event }) => {
      // Places are counted on for ever here: two laps, the first under the wrap counter 1.
      const wrapOf = (at: number): boolean => Math.floor(at / size) % 2 === 0;
      const from = 2 * size + end - moved;
      const wanted = Array.from({ length: moved }, (_, i) => from + i).some((at) => at % (2 * size) === event);
      const word = event % size | (wrapOf(event) ? 0x8000 : 0);
      expect(needPackedEvent(word, (from + moved) % size, wrapOf(from + moved), moved, size)).toBe(wanted);
    }), { numRuns: 2000 });
  });

  test('is false for a place past the end of the ring, whatever its wrap counter', () => {
    for (const wrap of [0, 0x8000]) expect(needPackedEvent(wrap | 0x7fff, 3, true, 8, 8)).toBe(false);
  });
});
