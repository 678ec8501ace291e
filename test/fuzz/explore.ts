// Runs cases of a target for a time, says how far it is, and keeps in the corpus the first seed that met each
// outcome, and every seed that failed.
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { outcomeOf, type CaseOutcome } from './case-outcome.ts';

const CORPUS = join(import.meta.dirname, 'corpus');

/** Outcome -> the seed of the first case that met it. `failed: ...` are cases that broke an invariant once. */
export type Corpus = Record<string, number>;

export function readCorpus(target: string): Corpus {
  const path = join(CORPUS, `${target}.json`);
  return existsSync(path) ? JSON.parse(readFileSync(path, 'utf8')) as Corpus : {};
}

export interface Exploration {
  readonly cases: number;
  readonly steps: number;
  readonly failures: readonly string[];
}

/**
 * ROOTPORT_FUZZ_SECONDS (60), ROOTPORT_FUZZ_SEED (the clock: printed, so that a run can be repeated) and
 * ROOTPORT_FUZZ_CASE (one seed, and no more) say what is run.
 */
export async function explore(target: string, run: (seed: number) => CaseOutcome | Promise<CaseOutcome>): Promise<Exploration> {
  const { ROOTPORT_FUZZ_SECONDS = '60', ROOTPORT_FUZZ_SEED = `${Date.now() % 2 ** 32}`, ROOTPORT_FUZZ_CASE } = process.env;
  if (ROOTPORT_FUZZ_CASE !== undefined) {
    const { steps, outcome } = await run(Number(ROOTPORT_FUZZ_CASE));
    say(`${target}: case ${ROOTPORT_FUZZ_CASE}: ${outcome}, ${steps} steps`);
    return { cases: 1, steps, failures: [] };
  }
  const corpus = readCorpus(target);
  const known = Object.keys(corpus).length;
  const endMs = Date.now() + Number(ROOTPORT_FUZZ_SECONDS) * 1000;
  const first = Number(ROOTPORT_FUZZ_SEED);
  say(`${target}: seed ${first}, ${ROOTPORT_FUZZ_SECONDS} s, ${known} outcomes known`);
  const failures: string[] = [];
  // A stack for every broken ring takes more time than breaking it; a failure is run again with one.
  const { stackTraceLimit } = Error;
  Error.stackTraceLimit = 0;
  let cases = 0, steps = 0, sayAtMs = Date.now() + 10_000;
  for (; Date.now() < endMs && failures.length < 10; cases += 1) {
    const seed = (first + cases) >>> 0;
    let outcome: string;
    try {
      const result = await run(seed);
      steps += result.steps;
      ({ outcome } = result);
    } catch (error) {
      outcome = `failed: ${outcomeOf(error as Error)}`;
      failures.push(`ROOTPORT_FUZZ_CASE=${seed}: ${(error as Error).message}`);
    }
    corpus[outcome] ??= seed;
    if (Date.now() > sayAtMs) {
      say(`${target}: ${cases} cases, ${steps} steps, ${Object.keys(corpus).length} outcomes, ${failures.length} failures`);
      sayAtMs = Date.now() + 10_000;
    }
  }
  Error.stackTraceLimit = stackTraceLimit;
  mkdirSync(CORPUS, { recursive: true });
  const sorted = Object.fromEntries(Object.entries(corpus).sort(([a], [b]) => (a < b ? -1 : 1)));
  writeFileSync(join(CORPUS, `${target}.json`), `${JSON.stringify(sorted, undefined, 2)}\n`);
  say(`${target}: ${cases} cases, ${steps} steps, ${Object.keys(corpus).length - known} new outcomes, ${failures.length} failures`);
  return { cases, steps, failures };
}

/** Jest keeps console lines until a file has ended: a run of minutes says how far it is at once. */
function say(text: string): void {
  process.stderr.write(`fuzz: ${text}\n`);
}
