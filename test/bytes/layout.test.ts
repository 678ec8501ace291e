import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { bytes, layout, u16, u32, u64, u8 } from '../../src/bytes/layout.ts';
import { UsageError } from '../../src/errors.ts';

const sample = layout('sample', 24, {
  small: u8(0),
  medium: u16(2, 'at 2, a hole before it'),
  large: u32(4),
  huge: u64(8),
  tail: bytes(16, 8),
});

describe('a layout', () => {
  test('encodes each field little-endian at its offset and leaves holes zero', () => {
    const encoded = sample.encode({ small: 0x11, medium: 0x2233, large: 0x44556677, huge: 0x8899aabbccddeeffn, tail: new Uint8Array([1, 2]) });
    expect(Buffer.from(encoded).toString('hex')).toBe('1100332277665544ffeeddccbbaa99880102000000000000');
  });

  test('decodes what it encoded, at any offset', () => {
    fc.assert(fc.property(
      fc.record({
        small: fc.integer({ min: 0, max: 0xff }),
        medium: fc.integer({ min: 0, max: 0xffff }),
        large: fc.integer({ min: 0, max: 0xffffffff }),
        huge: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
        tail: fc.uint8Array({ minLength: 8, maxLength: 8 }),
      }),
      fc.nat(32),
      (values, offset) => {
        const target = new Uint8Array(offset + sample.sizeBytes + 3);
        target.set(sample.encode(values), offset);
        expect(sample.decode(target, offset)).toEqual(values);
      },
    ));
  });

  test('refuses to decode fewer bytes than it has, and says how many there are', () => {
    expect(() => sample.decode(new Uint8Array(30), 8)).toThrow('sample is 24 bytes, and 22 are there');
  });

  test.each([
    ['a number too wide', { small: 256 }],
    ['a negative number', { medium: -1 }],
    ['a fraction', { large: 0.5 }],
    ['a bigint over 64 bits', { huge: 2n ** 64n }],
    ['bytes too long', { tail: new Uint8Array(9) }],
  ])('refuses to encode %s', (_, values) => {
    expect(() => sample.encode(values)).toThrow(UsageError);
  });

  test('is refused when a field lies outside it or cuts into another', () => {
    expect(() => layout('short', 3, { a: u32(0) })).toThrow('short.a lies outside');
    expect(() => layout('crossed', 8, { a: u32(0), b: u16(2) })).toThrow('overlaps');
    expect(layout('union', 4, { a: u32(0), b: bytes(0, 4) }).sizeBytes).toBe(4);
  });
});
