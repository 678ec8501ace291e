// What the fuzz targets met, run again: a case that failed once must not fail now. A seed may come to another outcome
// than it did when the code says more or less than before; that the corpus still reaches far is asked for.
import { expect, test } from '@jest/globals';
import type { CaseOutcome } from './case-outcome.ts';
import { readCorpus } from './explore.ts';
import { messageTarget } from './message-target.ts';
import { packedRingCase } from './packed-ring-case.ts';
import { splitRingCase } from './split-ring-case.ts';

/** Some hundred sessions, on a machine that may have much else to do. */
const REPLAY_TIMEOUT_MS = 60_000;

async function replay(target: string, run: (seed: number) => CaseOutcome | Promise<CaseOutcome>): Promise<void> {
  const corpus = Object.entries(readCorpus(target));
  const met = new Set<string>();
  for (const [outcome, seed] of corpus) {
    try {
      met.add((await run(seed)).outcome);
    } catch (error) {
      throw new Error(`${target}, seed ${seed}, once "${outcome}"`, { cause: error });
    }
  }
  expect(met.size).toBeGreaterThan(corpus.length / 2);
}

test.each([
  ['rings', splitRingCase],
  ['packed-rings', packedRingCase],
])('%s: every case that met something new holds', async (name, run) => {
  await replay(name, run);
}, REPLAY_TIMEOUT_MS);

test.each([
  ['messages', { packed: false }],
  ['packed-messages', { packed: true }],
])('%s: every case that met something new holds, and nothing is left open', async (name, options) => {
  const target = messageTarget(options);
  await replay(name, (seed) => target.run(seed));
  await target.close();
}, REPLAY_TIMEOUT_MS);
