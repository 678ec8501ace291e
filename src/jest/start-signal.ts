// A Jest that is started ahead of its run (rootport dev): it loads itself, and waits for a byte on its standard input.
// It waits before its clock runs and its reporters are made: in the set-up of the whole run.
import { once } from 'node:events';

/** Set for a Jest that is to wait; taken out of the environment, so that no Jest that a test starts waits too. */
export const START_VARIABLE = 'ROOTPORT_START';

/** Resolves at once in a Jest that nobody told to wait, and never when its parent ends the input instead: it kills it. */
export async function startSignal(): Promise<void> {
  if (process.env[START_VARIABLE] === undefined) return;
  delete process.env[START_VARIABLE];
  await once(process.stdin, 'data');
  process.stdin.destroy(); // it would hold the process
}
