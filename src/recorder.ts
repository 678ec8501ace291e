// What happens on a machine, on one clock and in lanes: a bounded ring for each lane, always on. It is told by what
// passes everything through one place (the monitor, a back end's session, the console, the guest's shell), and read
// when a test is over. It keeps and counts; what is shown of it is src/report's.

/** Where things happen. `device`: what a back end logs besides its messages. */
export const LANES = ['test', 'qmp', 'vhost-user', 'device', 'ring', 'interrupt', 'guest', 'console'] as const;
export type Lane = (typeof LANES)[number];

export interface RecordedEvent {
  /** On this process's performance.now() clock. */
  readonly atMs: number;
  readonly lane: Lane;
  readonly text: string;
  /** Of a span: from its begin to its end. Of several that were counted as one: from the first to the last. */
  readonly durationMs?: number;
  /** Times it happened, where those close together are counted as one. */
  readonly count?: number;
  /** What more is known: an answer, an error. */
  readonly detail?: string;
}

export interface Recording {
  /** In the order of their begin. */
  readonly events: readonly RecordedEvent[];
  /** Of those asked for, how many are no longer kept. */
  readonly dropped: number;
}

export interface RecorderOptions {
  /** Events kept of each lane. Default 8192. */
  readonly keptMax?: number;
}

/** Counts what comes too often to be told each time. */
export interface Tally {
  /** In the hot path, where most of it is the clock's: several hits of one moment share a reading, `atMs`. */
  hit(times: number, atMs: number): void;
}

const KEPT_MAX = 8192;
const TEXT_CHARS_MAX = 400;
const DETAIL_CHARS_MAX = 2000;
/** Hits of one tally this close to the first of them are one event. */
const TOGETHER_MS = 1;

interface Entry {
  atMs: number;
  text: string;
  /** Undefined: a moment. NaN: a span that is not over. */
  durationMs: number | undefined;
  count: number;
  detail: string | undefined;
}

/** The last events of one lane. */
class LaneRing {
  readonly #entries: Entry[] = [];
  /** Events ever put in. */
  total = 0;

  constructor(readonly lane: Lane, readonly keptMax: number) {}

  put(entry: Entry): void {
    if (this.#entries.length < this.keptMax) this.#entries.push(entry);
    else this.#entries[this.total % this.keptMax] = entry;
    this.total += 1;
  }

  /** Those put in after the first `mark`, and those of before that go on. */
  since(mark: number, nowMs: number): { events: RecordedEvent[]; dropped: number } {
    const first = Math.max(mark, this.total - this.#entries.length);
    const events: RecordedEvent[] = [];
    for (let at = first; at < this.total; at += 1) {
      const entry = this.#entries[at % this.keptMax];
      if (entry !== undefined) events.push(eventOf(this.lane, entry, nowMs));
    }
    return { events, dropped: first - mark };
  }
}

function eventOf(lane: Lane, { atMs, text, durationMs, count, detail }: Entry, nowMs: number): RecordedEvent {
  const unfinished = durationMs !== undefined && Number.isNaN(durationMs);
  const more = unfinished ? 'not over' : detail;
  return {
    atMs, lane, text,
    ...(durationMs === undefined ? {} : { durationMs: unfinished ? nowMs - atMs : durationMs }),
    ...(count === 1 ? {} : { count }),
    ...(more === undefined ? {} : { detail: more }),
  };
}

/** Where a reading is to begin. */
export type RecorderMark = Readonly<Record<Lane, number>>;

export class Recorder {
  readonly #rings: Readonly<Record<Lane, LaneRing>>;

  constructor({ keptMax = KEPT_MAX }: RecorderOptions = {}) {
    this.#rings = Object.fromEntries(LANES.map((lane) => [lane, new LaneRing(lane, keptMax)])) as Record<Lane, LaneRing>;
  }

  /** Something happened now. */
  note(lane: Lane, text: string, detail?: string): void {
    this.#put(lane, text, undefined, detail);
  }

  /** Something begins; call what is returned, once, when it is over, with what came of it. */
  begin(lane: Lane, text: string): (detail?: string) => void {
    const entry = this.#put(lane, text, NaN, undefined);
    return (detail) => {
      entry.durationMs = performance.now() - entry.atMs;
      entry.detail = cut(detail, DETAIL_CHARS_MAX);
    };
  }

  /** The whole of an action as a span; a failure is its detail. */
  async span<T>(lane: Lane, text: string, work: () => Promise<T>): Promise<T> {
    const end = this.begin(lane, text);
    try {
      const result = await work();
      end();
      return result;
    } catch (error) {
      end(firstLine(error));
      throw error;
    }
  }

  /** For what happens often; one object, kept by who counts. */
  tally(lane: Lane, text: string): Tally {
    const ring = this.#rings[lane];
    let entry: Entry | undefined;
    let number = 0;
    return {
      hit(times, atMs) {
        if (entry === undefined || atMs - entry.atMs >= TOGETHER_MS || ring.total - number > ring.keptMax) {
          number = ring.total;
          ring.put(entry = { atMs, text, durationMs: undefined, count: times, detail: undefined });
        } else {
          entry.count += times;
          entry.durationMs = atMs - entry.atMs;
        }
      },
    };
  }

  /** Give it to since() later. */
  mark(): RecorderMark {
    return Object.fromEntries(LANES.map((lane) => [lane, this.#rings[lane].total])) as Record<Lane, number>;
  }

  /** What was recorded since a mark, or since the beginning. */
  since(mark?: RecorderMark): Recording {
    const now = performance.now();
    const read = LANES.map((lane) => this.#rings[lane].since(mark?.[lane] ?? 0, now));
    return {
      events: read.flatMap(({ events }) => events).sort((one, other) => one.atMs - other.atMs),
      dropped: read.reduce((sum, { dropped }) => sum + dropped, 0),
    };
  }

  #put(lane: Lane, text: string, durationMs: number | undefined, detail: string | undefined): Entry {
    const entry: Entry = {
      atMs: performance.now(), text: cut(text, TEXT_CHARS_MAX), durationMs, count: 1, detail: cut(detail, DETAIL_CHARS_MAX),
    };
    this.#rings[lane].put(entry);
    return entry;
  }
}

/** An error as a detail. */
export function firstLine(error: unknown): string {
  return `failed: ${(error instanceof Error ? error.message : String(error)).split('\n')[0] ?? ''}`;
}

function cut(text: string, charsMax: number): string;
function cut(text: string | undefined, charsMax: number): string | undefined;
function cut(text: string | undefined, charsMax: number): string | undefined {
  return text === undefined || text.length <= charsMax ? text : `${text.slice(0, charsMax)} ... (${text.length} characters)`;
}
