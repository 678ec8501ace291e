// Where a run's report is written and what is kept of it, agreed between the reporter and the workers through
// environment variables: workers inherit those of the process that forks them.
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
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
/** Set by the reporter: the directory as its workers see it. */
const PARTS_VARIABLE = 'ROOTPORT_REPORT_PARTS';

export const DEFAULT_REPORT = 'rootport-report';
export const REPORT_FILE = 'report.json';
export const PAGE_FILE = 'index.html';
export const FAILURES = 'failures';
const PARTS = '.parts';
const STATES = '.states';
const DEFAULT_STATES = 1;

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
  return numberIn(env, RETRIES_VARIABLE, 0);
}

/** @throws UsageError for what is no number */
export function chosenStates(env: NodeJS.ProcessEnv = process.env): number {
  return numberIn(env, STATES_VARIABLE, DEFAULT_STATES);
}

function numberIn(env: NodeJS.ProcessEnv, variable: string, unset: number): number {
  const text = env[variable] || `${unset}`;
  if (!/^\d{1,3}$/.test(text)) throw new UsageError(`${variable} is ${JSON.stringify(text)}`, { hint: 'it is a number from 0 to 999' });
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

/** An empty directory for this run's workers; what an earlier run left of the report is removed. Git ignores all of it. */
export function beginReport(directory: string): void {
  mkdirSync(directory, { recursive: true });
  writeFileSync(join(directory, '.gitignore'), '*\n');
  for (const name of [REPORT_FILE, PAGE_FILE, FAILURES, PARTS, STATES]) rmSync(join(directory, name), { recursive: true, force: true });
  for (const name of [PARTS, STATES]) mkdirSync(join(directory, name), { recursive: true });
  process.env[PARTS_VARIABLE] = directory;
}

/** For a worker: the report's directory; undefined when nobody gathers one. */
export function reportOfWorker(): string | undefined {
  return process.env[PARTS_VARIABLE];
}

/** Where workers keep machines until their test's folder is there, and how many of them. */
export function statesDirectory(directory: string): string {
  return join(directory, STATES);
}

/** Where workers put what they know. */
export function partsDirectory(directory: string): string {
  return join(directory, PARTS);
}
