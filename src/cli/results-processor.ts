// Jest's testResultsProcessor of `rootport run`: hands what the suites came to back to it through a pipe.
// Runs inside Jest; not the reporter, which a project may replace.
// Source: Jest docs, "testResultsProcessor".
import { writeSync } from 'node:fs';
import { outcomesOf, RESULTS_FD, type JestResults } from './run-results.ts';

export default function hand<T extends JestResults>(results: T): T {
  const bytes = Buffer.from(JSON.stringify([...outcomesOf(results)]));
  for (let at = 0; at < bytes.length;) at += writeSync(RESULTS_FD, bytes, at);
  return results;
}
