// One attempt of one test, from the worker that ran it to the reporter: a line of JSON in a file of the worker's own, so
// that nothing is lost with a worker, and none waits for another. Bounded: events of a passed attempt the least; and those
// of all attempts (report/event-bound.ts), of which no more are ever held.
import { appendFileSync, closeSync, existsSync, mkdirSync, openSync, readdirSync, readSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { basename, join, relative } from 'node:path';
import type { Recording } from '../recorder.ts';
import { failureOf, outcomeOf, withoutColours } from '../report/results.ts';
import { EVENT_CHARS_MAX, eventCharsOf, surplusOf, withoutEvents, type Weighed } from '../report/event-bound.ts';
import type { Attempt, ReportedEvent } from '../report/run-report.ts';
import type { Evidence, KeptState } from './evidence.ts';
import { shellWord } from '../shell-word.ts';
import { chosenKeep, FAILURES, type ReportPaths } from './report-directory.ts';

export interface Part {
  /** Absolute. */
  readonly file: string;
  readonly name: string;
  /** From 1. */
  readonly attempt: number;
  readonly result: Attempt;
}

export interface FinishedAttempt {
  readonly file: string;
  readonly name: string;
  readonly attempt: number;
  /** What it failed with, as thrown. */
  readonly errors: readonly unknown[];
  readonly startedAtMs: number;
  readonly evidence: Evidence;
}

const EVENTS_MAX = { passed: 2000, failed: 20_000 } as const;
/** Of the workers' files. */
const SUFFIX = '.jsonl';
const FILE_CHARS_MAX = 4 * 2 ** 20;
/** Of what an attempt failed with; its folder has the whole. */
const FAILURE_CHARS_MAX = 2 ** 16;
const READ_BYTES = 2 ** 20;
const FOLDERS_MAX = 100;
let folders = 0;

/** Write the part of an attempt, and its folder if it gets one. */
export function writePart({ directory, parts }: ReportPaths, finished: FinishedAttempt): void {
  const { file, name, attempt, errors, startedAtMs, evidence } = finished;
  const stacks = errors.map(stackOf);
  const passed = stacks.length === 0;
  const { events, dropped } = eventsOf(evidence, startedAtMs, passed ? EVENTS_MAX.passed : EVENTS_MAX.failed);
  const result: Attempt = {
    outcome: passed ? 'passed' : outcomeOf(stacks),
    startedAt: new Date(performance.timeOrigin + startedAtMs).toISOString(),
    durationMs: performance.now() - startedAtMs,
    failures: stacks.map((text) => {
      const { name: kind, summary } = failureOf(text);
      return { name: kind, summary, text: text.slice(0, FILE_CHARS_MAX) };
    }),
    machines: evidence.machines.map(({ description, repro, pciTree }) => ({ description, repro, ...(pciTree === undefined ? {} : { pciTree }) })),
    events, eventsDropped: dropped, witnesses: evidence.witnesses, tables: evidence.tables,
  };
  const folder = wantsFolder(passed) ? writeFolder(directory, finished, result) : undefined;
  // What moved into the folder is no longer there.
  for (const { state } of evidence.machines) if (state !== undefined && 'directory' in state) rmSync(state.directory, { recursive: true, force: true });
  const kept = folder === undefined ? result : inFolder(result, evidence, relative(directory, folder));
  const part: Part = { file, name, attempt, result: { ...kept, failures: kept.failures.map((one) => ({ ...one, text: cut(one.text) })) } };
  mkdirSync(parts, { recursive: true });
  appendFileSync(join(parts, `${process.pid}${SUFFIX}`), `${JSON.stringify(part)}\n`);
}

/** All parts, in the order in which they were written by each worker; then they are gone. */
export function takeParts(parts: string, charsMax = EVENT_CHARS_MAX): Part[] {
  const taken: (Weighed & { part: Part; eventChars: number })[] = [];
  let chars = 0;
  const bound = (): void => {
    for (const one of surplusOf(taken, charsMax)) {
      chars -= one.eventChars;
      one.eventChars = 0;
      one.part = { ...one.part, result: withoutEvents(one.part.result) };
    }
  };
  for (const name of existsSync(parts) ? readdirSync(parts).filter((one) => one.endsWith(SUFFIX)).sort() : []) {
    for (const line of linesOf(join(parts, name))) {
      const part = partOf(line);
      if (part === undefined) continue;
      const eventChars = eventCharsOf(part.result);
      taken.push({ outcome: part.result.outcome, startedAt: part.result.startedAt, part, eventChars });
      if ((chars += eventChars) > 1.5 * charsMax) bound();
    }
  }
  bound();
  rmSync(parts, { recursive: true, force: true });
  return taken.map(({ part }) => part);
}

function partOf(line: string): Part | undefined {
  try {
    return JSON.parse(line) as Part;
  } catch {
    return undefined; // a worker was killed in the middle of it
  }
}

/** Of a file that may be longer than a string can be. */
function* linesOf(path: string): Generator<string> {
  const file = openSync(path, 'r');
  try {
    const block = Buffer.alloc(READ_BYTES);
    let rest: Buffer[] = [];
    for (let size = readSync(file, block); size > 0; size = readSync(file, block)) {
      let from = 0;
      for (let end = block.indexOf(0x0a); end >= 0 && end < size; end = block.indexOf(0x0a, from)) {
        yield Buffer.concat([...rest, block.subarray(from, end)]).toString('utf8');
        rest = [];
        from = end + 1;
      }
      rest.push(Buffer.from(block.subarray(from, size)));
    }
    yield Buffer.concat(rest).toString('utf8');
  } finally {
    closeSync(file);
  }
}

function cut(text: string): string {
  return text.length <= FAILURE_CHARS_MAX ? text : `${text.slice(0, FAILURE_CHARS_MAX)}\n... ${text.length - FAILURE_CHARS_MAX} characters more ...`;
}

function stackOf(error: unknown): string {
  const thrown = error as { stack?: unknown; message?: unknown } | null | undefined;
  if (typeof thrown?.stack === 'string') return withoutColours(thrown.stack);
  return withoutColours(`thrown: ${typeof thrown?.message === 'string' ? thrown.message : JSON.stringify(error) ?? String(error)}`);
}

/** The last ones, of all machines, from the attempt's begin. */
function eventsOf({ machines }: Evidence, startedAtMs: number, most: number): { events: readonly ReportedEvent[]; dropped: number } {
  const recordings = machines.map((one): Recording => one.recording());
  const all = recordings.flatMap(({ events }, machine) => events.map((event): ReportedEvent => ({
    ...event, atMs: rounded(event.atMs - startedAtMs),
    ...(event.durationMs === undefined ? {} : { durationMs: rounded(event.durationMs) }),
    ...(machine === 0 ? {} : { machine }),
  }))).sort((one, other) => one.atMs - other.atMs);
  const events = bounded(all, most);
  return { events, dropped: recordings.reduce((sum, { dropped }) => sum + dropped, all.length - events.length) };
}

/** The last of the loud lanes go first: what a test did is few. */
function bounded(all: readonly ReportedEvent[], most: number): readonly ReportedEvent[] {
  const isLoud = ({ lane }: ReportedEvent): boolean => lane === 'ring' || lane === 'interrupt';
  let over = all.length - most;
  return all.filter((event) => over <= 0 || !isLoud(event) || (over -= 1) < 0).slice(-most);
}

function rounded(ms: number): number {
  return Math.round(ms * 1000) / 1000;
}

function wantsFolder(passed: boolean): boolean {
  const keep = chosenKeep();
  return (keep === 'always' || (keep === 'failures' && !passed)) && folders < FOLDERS_MAX;
}

function inFolder(result: Attempt, { machines }: Evidence, folder: string): Attempt {
  const kept = (index: number): boolean => 'directory' in (machines[index]?.state ?? {});
  return { ...result, folder, machines: result.machines.map((one, index) => (kept(index) ? { ...one, state: join(folder, ownFolder(index)) } : one)) };
}

/** Of a machine, in the attempt's. */
function ownFolder(index: number): string {
  return index === 0 ? '.' : `machine-${index + 1}`;
}

/** One folder an attempt: what it failed with, and for each machine what it said. */
function writeFolder(directory: string, { file, name, attempt, evidence }: FinishedAttempt, result: Attempt): string {
  folders += 1;
  const title = `${basename(file).replace(/\.suite\.m?[jt]s$/, '')}-${name}`.replace(/[^A-Za-z0-9]+/g, '-').slice(0, 100).replace(/^-|-$/g, '').toLowerCase();
  const folder = join(directory, FAILURES, `${title}-${process.pid}-${folders}${attempt > 1 ? `-retry${attempt - 1}` : ''}`);
  mkdirSync(folder, { recursive: true });
  write(folder, 'failure.txt', [`${file}\n${name}\nattempt ${attempt}: ${result.outcome}\n`, ...result.failures.map(({ text }) => text)].join('\n'));
  write(folder, 'events.json', JSON.stringify(result.events));
  for (const { title: heading, columns, rows } of result.tables) {
    write(folder, `${heading.replace(/[^A-Za-z0-9]+/g, '-').toLowerCase()}.tsv`, [columns, ...rows].map((row) => row.join('\t')).join('\n'));
  }
  for (const [index, machine] of evidence.machines.entries()) {
    const own = join(folder, ownFolder(index));
    mkdirSync(own, { recursive: true });
    for (const [fileName, text] of Object.entries(machine.files())) write(own, fileName, text);
    const traced = result.events.filter((event) => (event.machine ?? 0) === index);
    write(own, 'qmp.log', logOf(traced, ['qmp']));
    write(own, 'trace.log', logOf(traced, ['test', 'vhost-user', 'device', 'ring', 'interrupt', 'guest']));
    if (machine.pciTree !== undefined) write(own, 'pci-tree.txt', machine.pciTree);
    if (machine.state !== undefined) moveState(machine.state, own);
  }
  return folder;
}

/** The machine's state, and what there is to say of it. */
function moveState(state: KeptState, folder: string): void {
  if ('why' in state) return write(folder, 'state.txt', `The machine's state was not kept: ${state.why}`);
  renameSync(state.directory, join(folder, 'state'));
  write(folder, 'state.txt', [
    `The guest as it was, alive again (${Math.ceil(state.bytes / 2 ** 20)} MiB are kept in state/):`, '', `  rootport shell --from ${shellWord(folder)}`, '', ...state.lacks,
  ].join('\n'));
}

/** Its end, when it is too long. */
function write(folder: string, name: string, text: string): void {
  const kept = text.length <= FILE_CHARS_MAX ? text : `... ${text.length - FILE_CHARS_MAX} characters before ...\n${text.slice(-FILE_CHARS_MAX)}`;
  writeFileSync(join(folder, name), kept.endsWith('\n') ? kept : `${kept}\n`, name.endsWith('.sh') ? { mode: 0o755 } : {});
}

function logOf(events: readonly ReportedEvent[], lanes: readonly string[]): string {
  return events.filter(({ lane }) => lanes.includes(lane)).map(({ atMs, lane, text, durationMs, count, detail }) => [
    `${(atMs / 1000).toFixed(6).padStart(11)}  ${lane.padEnd(10)}  ${text}`,
    ...(count === undefined ? [] : [`x${count}`]),
    ...(durationMs === undefined ? [] : [`(${durationMs} ms)`]),
    ...(detail === undefined ? [] : [`-> ${detail.replaceAll('\n', '\n    ')}`]),
  ].join(' ')).join('\n');
}
