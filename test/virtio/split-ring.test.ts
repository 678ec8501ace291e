import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { needEvent, splitRingParts, virtqDesc, virtqUsedElem } from '../../src/virtio/split-ring.ts';

const index = fc.integer({ min: 0, max: 0xffff });

describe('the layout of a split ring', () => {
  test('has the offsets and sizes of virtio 1.2, 2.7.5 and 2.7.8', () => {
    const offsets = Object.entries(virtqDesc.fields).map(([name, { offset, widthBytes }]) => [name, offset, widthBytes]);
    expect(offsets).toEqual([['addr', 0, 8], ['len', 8, 4], ['flags', 12, 2], ['next', 14, 2]]);
    expect(virtqDesc.sizeBytes).toBe(16);
    const used = Object.entries(virtqUsedElem.fields).map(([name, { offset, widthBytes }]) => [name, offset, widthBytes]);
    expect(used).toEqual([['id', 0, 4], ['len', 4, 4]]);
    expect(virtqUsedElem.sizeBytes).toBe(8);
  });

  test('has the part sizes of the table in 2.7 for 256 entries', () => {
    expect(splitRingParts.desc.sizeBytes(256)).toBe(4096);
    expect(splitRingParts.avail.sizeBytes(256)).toBe(6 + 512);
    expect(splitRingParts.used.sizeBytes(256)).toBe(6 + 2048);
  });
});

describe('needEvent', () => {
  test('is true exactly when the event index is among the entries just added, over the 16-bit wrap', () => {
    fc.assert(fc.property(index, fc.integer({ min: 0, max: 300 }), index, (before, added, event) => {
      const after = (before + added) & 0xffff;
      const entries = new Set(Array.from({ length: added }, (_, i) => (before + i) & 0xffff));
      expect(needEvent(event, after, before)).toBe(entries.has(event));
    }));
  });

  test.each([
    { event: 0xffff, after: 0, before: 0xffff, wanted: true },
    { event: 0, after: 0, before: 0xffff, wanted: false },
    { event: 5, after: 5, before: 5, wanted: false },
    { event: 4, after: 5, before: 4, wanted: true },
  ])('event $event, index from $before to $after: $wanted', ({ event, after, before, wanted }) => {
    expect(needEvent(event, after, before)).toBe(wanted);
  });
});
