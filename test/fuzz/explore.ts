// Runs cases of a target for a time or so many steps, says how far it is, and writes down the first seed that met each
// outcome that the corpus does not know, and every seed that failed: beside the corpus, unless that is to grow.
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { openDescriptors } from '../native/open-descriptors.ts';
import { outcomeOf, type CaseOutcome } from './case-outcome.ts';
import { HangGuard } from './hang-guard.ts';

const CORPUS = join(import.meta.dirname, 'corpus');
/** What a run found goes here; Git ignores it. */
const FOUND = join(import.meta.dirname, 'found');

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
 * ROOTPORT_FUZZ_SECONDS (60) or ROOTPORT_FUZZ_STEPS, ROOTPORT_FUZZ_SEED (the clock: printed, so that a run can be
 * repeated) and ROOTPORT_FUZZ_CASE (one seed, and no more) say what is run; ROOTPORT_FUZZ_KEEP=1 has what is new in the
 * corpus, else it is in test/fuzz/found.
 */
export async function explore(target: string, run: (seed: number) => CaseOutcome | Promise<CaseOutcome>): Promise<Exploration> {
  const { ROOTPORT_FUZZ_STEPS, ROOTPORT_FUZZ_SEED = `${Date.now() % 2 ** 32}`, ROOTPORT_FUZZ_CASE, ROOTPORT_FUZZ_KEEP } = process.env;
  const { ROOTPORT_FUZZ_SECONDS = ROOTPORT_FUZZ_STEPS === undefined ? '60' : `${2 ** 31}` } = process.env;
  if (ROOTPORT_FUZZ_CASE !== undefined) {
    const { steps, outcome } = await run(Number(ROOTPORT_FUZZ_CASE));
    say(`${target}: case ${ROOTPORT_FUZZ_CASE}: ${outcome}, ${steps} steps`);
    return { cases: 1, steps, failures: [] };
  }
  const corpus = readCorpus(target);
  const known = Object.keys(corpus).length;
  const found: Corpus = {};
  const stepsMax = Number(ROOTPORT_FUZZ_STEPS ?? Infinity);
  const atFirst = held();
  const endMs = Date.now() + Number(ROOTPORT_FUZZ_SECONDS) * 1000;
  const first = Number(ROOTPORT_FUZZ_SEED);
  say(`${target}: seed ${first}, ${ROOTPORT_FUZZ_STEPS === undefined ? `${ROOTPORT_FUZZ_SECONDS} s` : `${stepsMax} steps`}, ${known} outcomes known; ${describe(atFirst)}`);
  const failures: string[] = [];
  // A stack for every broken ring takes more time than breaking it; a failure is run again with one.
  const { stackTraceLimit } = Error;
  Error.stackTraceLimit = 0;
  const guard = new HangGuard(target);
  let cases = 0, steps = 0, sayAtMs = Date.now() + 10_000;
  for (; Date.now() < endMs && steps < stepsMax && failures.length < 10; cases += 1) {
    const seed = (first + cases) >>> 0;
    guard.begin(seed);
    let outcome: string;
    try {
      const result = await run(seed);
      steps += result.steps;
      ({ outcome } = result);
    } catch (error) {
      outcome = `failed: ${outcomeOf(error as Error)}`;
      failures.push(`ROOTPORT_FUZZ_CASE=${seed}: ${(error as Error).message}`);
    }
    if (corpus[outcome] === undefined) found[outcome] ??= seed;
    if (Date.now() > sayAtMs) {
      say(`${target}: ${cases} cases, ${steps} steps, ${known + Object.keys(found).length} outcomes, ${failures.length} failures`);
      sayAtMs = Date.now() + 10_000;
    }
  }
  Error.stackTraceLimit = stackTraceLimit;
  await guard.end();
  const fresh = Object.keys(found).length;
  if (fresh > 0) write(ROOTPORT_FUZZ_KEEP === '1' ? CORPUS : FOUND, target, ROOTPORT_FUZZ_KEEP === '1' ? { ...corpus, ...found } : found);
  say(`${target}: seed ${first}, ${cases} cases, ${steps} steps, ${fresh} new outcomes, ${failures.length} failures; ${describe(atFirst)} at first, ${describe(held())} now`);
  return { cases, steps, failures };
}

function write(folder: string, target: string, seeds: Corpus): void {
  mkdirSync(folder, { recursive: true });
  const path = join(folder, `${target}.json`);
  const sorted = Object.fromEntries(Object.entries(seeds).sort(([a], [b]) => (a < b ? -1 : 1)));
  writeFileSync(path, `${JSON.stringify(sorted, undefined, 2)}\n`);
  say(`${target}: what is new is in ${path}`);
}

interface Held {
  readonly descriptors: number;
  /** Of files, shared: guest memory, logs, in-flight areas. V8 maps and unmaps memory of its own all the time. */
  readonly mappings: number;
  /** The most memory that was ever resident. */
  readonly peakMiB: number;
}

function held(): Held {
  const kib = /VmHWM:\s+(\d+)/.exec(readFileSync('/proc/self/status', 'utf8'))?.[1];
  const mappings = readFileSync('/proc/self/maps', 'utf8').match(/^\S+ ...s .*memfd:/gm)?.length ?? 0;
  return { descriptors: openDescriptors().length, mappings, peakMiB: Math.round(Number(kib) / 1024) };
}

function describe({ descriptors, mappings, peakMiB }: Held): string {
  return `${descriptors} descriptors, ${mappings} shared mappings, peak ${peakMiB} MiB`;
}

/** Jest keeps console lines until a file has ended: a run of minutes says how far it is at once. */
function say(text: string): void {
  process.stderr.write(`fuzz: ${text}\n`);
}
