import { expect, test } from '@jest/globals';
import { explore } from './explore.ts';
import { messageTarget } from './message-target.ts';

test('messages: no front end brings the back end down, or leaves a descriptor or a mapping behind', async () => {
  const target = messageTarget();
  const { cases, failures } = await explore('messages', (seed) => target.run(seed));
  expect(failures).toEqual([]);
  expect(cases).toBeGreaterThan(0);
  await target.close();
});
