import { expect, test } from '@jest/globals';
import { explore } from './explore.ts';
import { ringCase } from './ring-case.ts';

test('rings: no case throws, hangs or reaches outside of guest memory', async () => {
  const { cases, failures } = await explore('rings', ringCase);
  expect(failures).toEqual([]);
  expect(cases).toBeGreaterThan(0);
});
