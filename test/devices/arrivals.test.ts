import { expect, test } from '@jest/globals';
import { Arrivals } from '../../src/devices/arrivals.ts';

test('what arrived before it was asked for is given first, in order', async () => {
  const arrivals = new Arrivals<number>();
  arrivals.push(1);
  arrivals.push(2);
  expect(arrivals.waiting).toEqual([1, 2]);
  expect([await arrivals.next('one'), await arrivals.next('two')]).toEqual([1, 2]);
});

test('those who ask first are given theirs in turn', async () => {
  const arrivals = new Arrivals<number>();
  const asked = [arrivals.next('one'), arrivals.next('two')];
  arrivals.push(1);
  arrivals.push(2);
  expect(await Promise.all(asked)).toEqual([1, 2]);
});

test('a wait that ended takes nothing', async () => {
  const arrivals = new Arrivals<number>();
  await expect(arrivals.next('a thing', { timeoutMs: 1 })).rejects.toThrow('waited 1 ms for a thing');
  arrivals.push(1);
  expect(await arrivals.next('one')).toBe(1);
});

test('no more than the limit is kept: the oldest are dropped, and counted', async () => {
  const arrivals = new Arrivals<number>(2);
  for (let i = 0; i < 5; i += 1) arrivals.push(i);
  expect([arrivals.waiting, arrivals.dropped]).toEqual([[3, 4], 3]);
  arrivals.clear();
  expect(arrivals.waiting).toEqual([]);
});
