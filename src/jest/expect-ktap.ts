// expectKtap: the outcome of KTAP output as one assertion, whose message names every subtest that failed.
import { AssertionError } from 'node:assert';
import { formatKtapFailures, parseKtap, type KtapResult } from '../guest/ktap.ts';

/**
 * Passes when the output is whole and no test in it failed; gives what was parsed.
 * @throws AssertionError with the failed subtests and their diagnostics; for output that is truncated; and, with
 * its reason, for one that was skipped as a whole
 */
export function expectKtap(text: string): KtapResult {
  const result = parseKtap(text);
  if (result.ok) return result;
  const { passed, failed, skipped } = result.counts;
  const why = result.skipped === undefined ? formatKtapFailures(result) : `skipped as a whole: ${result.skipped || 'no reason given'}`;
  throw new AssertionError({ message: `KTAP: ${passed} passed, ${failed} failed, ${skipped} skipped\n${why}` });
}
