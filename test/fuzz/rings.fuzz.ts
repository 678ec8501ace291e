import { expect, test } from '@jest/globals';
import { explore } from './explore.ts';
import { packedRingCase } from './packed-ring-case.ts';
import { splitRingCase } from './split-ring-case.ts';

test.each([
  ['rings', splitRingCase],
  ['packed-rings', packedRingCase],
])('%s: no case throws, hangs or reaches outside of guest memory', async (target, run) => {
  const { cases, failures } = await explore(target, run);
  expect(failures).toEqual([]);
  expect(cases).toBeGreaterThan(0);
});
