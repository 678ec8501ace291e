import { expect, test } from '@jest/globals';
import { explore } from './explore.ts';
import { messageTarget } from './message-target.ts';

test.each([
  ['messages', { packed: false }],
  ['packed-messages', { packed: true }],
])('%s: no front end brings the back end down, or leaves a descriptor or a mapping behind', async (name, options) => {
  const target = messageTarget(options);
  const { cases, failures } = await explore(name, (seed) => target.run(seed));
  expect(failures).toEqual([]);
  expect(cases).toBeGreaterThan(0);
  await target.close();
});
