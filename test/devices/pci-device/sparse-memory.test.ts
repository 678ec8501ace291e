// Memory of a BAR without code: what was written reads back, across pages and at any offset; the rest is 0.
import { expect, test } from '@jest/globals';
import { SparseMemory } from '../../../src/devices/pci-device/sparse-memory.ts';

const read = (memory: SparseMemory, offset: number, lengthBytes: number): number[] => {
  const into = new Uint8Array(lengthBytes).fill(0xee);
  memory.read(offset, into);
  return [...into];
};

test.each([0, 4095, 2 ** 32 - 3, 2 ** 40 - 8])('eight bytes at %i', (offset) => {
  const memory = new SparseMemory();
  expect(read(memory, offset, 8)).toEqual([0, 0, 0, 0, 0, 0, 0, 0]);
  memory.write(offset, Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8));
  memory.write(offset + 6, Uint8Array.of(9));
  expect(read(memory, offset, 8)).toEqual([1, 2, 3, 4, 5, 6, 9, 8]);
  expect(read(memory, offset + 4, 6)).toEqual([5, 6, 9, 8, 0, 0]);
});
