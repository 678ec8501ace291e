import { expect, test } from '@jest/globals';
import fc from 'fast-check';
import { transferAll } from '../../../src/devices/virtio-blk/file-storage.ts';

test('calls that do less than asked for are gone on from, with no byte lost, doubled or out of place', async () => {
  await fc.assert(fc.asyncProperty(
    fc.array(fc.integer({ min: 1, max: 30 }), { maxLength: 8 }),
    fc.array(fc.integer({ min: 1, max: 50 }), { minLength: 1, maxLength: 6 }),
    async (lengths, portions) => {
      const disk = Buffer.from(Array.from({ length: 400 }, (_, i) => i & 0xff));
      const spans = lengths.map((length) => new Uint8Array(length));
      let calls = 0;
      await transferAll(async (some, position) => {
        let left = portions[calls++ % portions.length];
        let done = 0;
        for (const span of some) {
          const count = Math.min(left, span.length);
          disk.copy(span, 0, position + done, position + done + count);
          done += count;
          left -= count;
        }
        return done;
      }, spans, 100);
      const total = lengths.reduce((sum, length) => sum + length, 0);
      expect(Buffer.concat(spans).equals(disk.subarray(100, 100 + total))).toBe(true);
    },
  ));
});

test('no call is given more buffers than one system call takes', async () => {
  const counts: number[] = [];
  await transferAll(async (some) => {
    counts.push(some.length);
    return some.length;
  }, Array.from({ length: 2500 }, () => new Uint8Array(1)), 0);
  expect(counts).toEqual([1024, 1024, 452]);
});
