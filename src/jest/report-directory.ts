// Where a run's report is written and what is kept of it, agreed between the reporter and the workers through
// environment variables: workers inherit those of the process that forks them.
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { UsageError } from '../errors.ts';

/** Where: a path from the project's root, or `off`. Set by people, and by the reporter for its workers, absolute. */
export const REPORT_VARIABLE = 'ROOTPORT_REPORT';
/** Which attempts get a folder: `failures`, `always`, `never`. */
export const KEEP_VARIABLE = 'ROOTPORT_KEEP';
/** How often a test that failed is tried again. */
export const RETRIES_VARIABLE = 'ROOTPORT_RETRIES';
/** Of how many machines of failed attempts the state is kept, in a run. */
export const STATES_VARIABLE = 'ROOTPORT_KEEP_STATES';
/** The folder of this run below the report's, where one command runs Jest several times. */
export const RUN_VARIABLE = 'ROOTPORT_REPORT_RUN';
/** Set by the reporter for its workers: their own directory in the report's. */
const PARTS_VARIABLE = 'ROOTPORT_REPORT_PARTS';

export const DEFAULT_REPORT = 'rootport-report';
export const REPORT_FILE = 'report.json';
export const PAGE_FILE = 'index.html';
export const FAILURES = 'failures';
const PARTS = '.parts-';
const STATES = 'states';
const DEFAULT_STATES = 1;

/** More would be no test. */
export const RETRIES_MAX = 999;
/** Of some 100 MiB each. */
export const STATES_MAX = 999;

export type Keep = 'failures' | 'always' | 'never';

/** The directory that is asked for, absolute; undefined: no report. */
export function chosenDirectory(rootDir: string, option: string | false | undefined, env: NodeJS.ProcessEnv = process.env): string | undefined {
  const chosen = env[REPORT_VARIABLE] || (option === false ? 'off' : option) || DEFAULT_REPORT;
  return chosen === 'off' ? undefined : resolve(rootDir, chosen, env[RUN_VARIABLE] ?? '.');
}

/** @throws UsageError for another word */
export function chosenKeep(env: NodeJS.ProcessEnv = process.env): Keep {
  const word = env[KEEP_VARIABLE] || 'failures';
  if (word !== 'failures' && word !== 'always' && word !== 'never') throw new UsageError(`${KEEP_VARIABLE} is ${JSON.stringify(word)}`, { hint: 'it is failures, always or never' });
  return word;
}

/** @throws UsageError for what is no number */
export function chosenRetries(env: NodeJS.ProcessEnv = process.env): number {
  return numberIn(env, RETRIES_VARIABLE, 0, RETRIES_MAX);
}

/** @throws UsageError for what is no number */
export function chosenStates(env: NodeJS.ProcessEnv = process.env): number {
  return numberIn(env, STATES_VARIABLE, DEFAULT_STATES, STATES_MAX);
}

function numberIn(env: NodeJS.ProcessEnv, variable: string, unset: number, most: number): number {
  const text = env[variable] || `${unset}`;
  if (!/^\d+$/.test(text) || Number(text) > most) throw new UsageError(`${variable} is ${JSON.stringify(text)}`, { hint: `it is a number from 0 to ${most}` });
  return Number(text);
}

export interface ReportChoices {
  readonly retries?: number;
  readonly keep?: string;
  readonly keepStates?: number;
}

/** What a command that runs Jest tells it of the report; `run`: which of several runs this is, for a folder of its own. */
export function reportEnv({ retries, keep, keepStates }: ReportChoices, run: number | undefined): Record<string, string> {
  return {
    ...(retries === undefined ? {} : { [RETRIES_VARIABLE]: `${retries}` }),
    ...(keep === undefined ? {} : { [KEEP_VARIABLE]: keep }),
    ...(keepStates === undefined ? {} : { [STATES_VARIABLE]: `${keepStates}` }),
    ...(run === undefined ? {} : { [RUN_VARIABLE]: `run-${run}` }),
  };
}

/**
 * An empty directory for this run's workers; what earlier runs left of the report is removed, unless another run goes on
 * here: then it keeps its parts and its folders, and the last to end has its report there. Git ignores all of it.
 */
export function beginReport(directory: string): void {
  mkdirSync(directory, { recursive: true });
  writeFileSync(join(directory, '.gitignore'), '*\n');
  const mine = `${PARTS}${runId(process.pid)}`;
  const others = readdirSync(directory).filter((name) => name.startsWith(PARTS));
  const stale = others.filter((name) => name === mine || name !== `${PARTS}${runId(parseInt(name.slice(PARTS.length)))}`);
  const shared = stale.length < others.length;
  for (const name of [REPORT_FILE, PAGE_FILE, ...(shared ? [] : [FAILURES]), ...stale]) rmSync(join(directory, name), { recursive: true, force: true });
  mkdirSync(statesDirectory(join(directory, mine)), { recursive: true });
  process.env[PARTS_VARIABLE] = join(directory, mine);
}

/** Of a process that runs: its id, and when it started, for the id alone is given again. */
function runId(pid: number): string | undefined {
  try {
    // proc(5): the 22nd field, counted from behind the name, which may hold anything.
    return `${pid}-${readFileSync(`/proc/${pid}/stat`, 'utf8').replace(/^.*\) /s, '').split(' ')[19]}`;
  } catch {
    return undefined;
  }
}

/** Where the workers of a run keep machines until their test's folder is there, and how many of them. */
export function statesDirectory(parts: string): string {
  return join(parts, STATES);
}

export interface ReportPaths {
  readonly directory: string;
  /** Where the workers of this run put what they know. */
  readonly parts: string;
}

/** For a run without a report below one that has: its workers are not to write into that. */
export function forgetReport(): void {
  delete process.env[PARTS_VARIABLE];
}

/** For a worker, and the reporter after `beginReport`; undefined when nobody gathers a report. */
export function currentReport(): ReportPaths | undefined {
  const parts = process.env[PARTS_VARIABLE];
  return parts === undefined ? undefined : { directory: dirname(parts), parts };
}
