import { expect, test } from '@jest/globals';
import fc from 'fast-check';
import { UsageError } from '../../src/errors.ts';
import { AddressRange } from '../../src/qtest/address-range.ts';

const PIECE = fc.record({ size: fc.bigInt(1n, 0x1000n), alignmentBits: fc.bigInt(0n, 12n), isReleased: fc.boolean() });

test('pieces are aligned, inside, and never overlap while they are held', () => {
  fc.assert(fc.property(fc.array(PIECE, { maxLength: 40 }), (pieces) => {
    const range = new AddressRange('a range', 0x1234n, 0x8_0000n);
    const held: { base: bigint; size: bigint }[] = [];
    for (const { size, alignmentBits, isReleased } of pieces) {
      const base = range.allocate(size, 1n << alignmentBits);
      expect(base % (1n << alignmentBits)).toBe(0n);
      expect(base >= 0x1234n && base + size <= 0x8_0000n).toBe(true);
      expect(held.some((one) => base < one.base + one.size && one.base < base + size)).toBe(false);
      if (isReleased) range.release(base, size);
      else held.push({ base, size });
    }
  }));
});

test('what is given back is given again to who asks for as much', () => {
  const range = new AddressRange('a range', 0n, 0x2000n);
  const first = range.allocate(0x1000n, 0x1000n);
  range.allocate(0x1000n, 0x1000n);
  range.release(first, 0x1000n);
  expect(range.allocate(0x1000n, 0x1000n)).toBe(first);
});

test('no room is a UsageError with the range\'s name', () => {
  const range = new AddressRange('I/O space', 0n, 0x100n);
  expect(() => range.allocate(0x101n, 1n)).toThrow(UsageError);
  expect(() => range.allocate(0x101n, 1n)).toThrow('no room for 0x101 bytes in I/O space');
});
