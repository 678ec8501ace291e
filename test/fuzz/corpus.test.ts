// What the fuzz targets met, run again: a case that failed once must not fail now. A seed may come to another outcome
// than it did when the code says more or less than before; that the corpus still reaches far is asked for.
import { expect, test } from '@jest/globals';
import type { CaseOutcome } from './case-outcome.ts';
import { readCorpus } from './explore.ts';
import { messageTarget } from './message-target.ts';
import { ringCase } from './ring-case.ts';

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

test('rings: every case that met something new holds', async () => {
  await replay('rings', ringCase);
});

test('messages: every case that met something new holds, and nothing is left open', async () => {
  const target = messageTarget();
  await replay('messages', (seed) => target.run(seed));
  await target.close();
});
