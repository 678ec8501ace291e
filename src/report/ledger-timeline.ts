// An interrupt ledger in time, as an SVG: what the device fired, the VMM sent and the guest handled in three lanes,
// a line a vector in each, milliseconds across. Pure. What is not known is said below, not drawn.

export const TIMELINE_LANES = ['device', 'VMM', 'guest'] as const;
export type TimelineLane = (typeof TIMELINE_LANES)[number];

export interface TimelineEvent {
  readonly lane: TimelineLane;
  readonly vector: number;
  /** Since the timeline began. */
  readonly timeMs: number;
  /** Who handled it. */
  readonly cpu?: number;
  /** The time is right to this much, either way; drawn as a bar. */
  readonly uncertaintyMs?: number;
}

export interface Timeline {
  readonly title: string;
  readonly events: readonly TimelineEvent[];
  /** Vectors whose ledger is wrong, and why. */
  readonly wrong: ReadonlyMap<number, readonly string[]>;
  /** By lane: how well its times are known, or why it has none. */
  readonly notes: Readonly<Record<TimelineLane, string>>;
}

const VERBS: Readonly<Record<TimelineLane, string>> = { device: 'fired', VMM: 'sent', guest: 'handled' };
const WIDTH = 1000;
const LEFT = 130;
const RIGHT = 24;
const TOP = 44;
const ROW = 16;
const LANE_GAP = 14;
const TICK_LABEL = 22;
const LINE = 17;
/** Told apart by eye; vectors share them beyond. */
const COLOURS = ['#1f6fb4', '#2f8f46', '#8a5fbf', '#b8741a', '#17868f', '#7a5a45', '#c2478f', '#5c6b73'];
const WRONG = '#c62828';
/** Vectors with a line of their own, those that are wrong first. */
const VECTORS_MAX = 16;
const EVENTS_MAX = 3000;

/** The SVG's text, UTF-8, without an XML declaration. */
export function renderTimeline({ title, events, wrong, notes }: Timeline): string {
  const moved = [...new Set([...wrong.keys(), ...events.map(({ vector }) => vector)])];
  const vectors = moved.sort((a, b) => Number(wrong.has(b)) - Number(wrong.has(a)) || a - b).slice(0, VECTORS_MAX).sort((a, b) => a - b);
  const inLines = events.filter(({ vector }) => vectors.includes(vector)).sort((a, b) => a.timeMs - b.timeMs);
  const drawn = inLines.slice(0, EVENTS_MAX);
  const firstMs = Math.min(0, drawn[0]?.timeMs ?? 0);
  const ticks = ticksOf(firstMs, Math.max(firstMs + 1, drawn.at(-1)?.timeMs ?? 0));
  const startMs = ticks[0] ?? firstMs;
  const endMs = ticks.at(-1) ?? startMs + 1;
  const x = (timeMs: number): number => round(LEFT + (WIDTH - LEFT - RIGHT) * (timeMs - startMs) / (endMs - startMs));
  const laneHeight = Math.max(1, vectors.length) * ROW;
  const laneTop = (lane: TimelineLane): number => TOP + TIMELINE_LANES.indexOf(lane) * (laneHeight + LANE_GAP);
  const y = ({ lane, vector }: Pick<TimelineEvent, 'lane' | 'vector'>): number => laneTop(lane) + vectors.indexOf(vector) * ROW + ROW / 2;
  const bottom = laneTop('guest') + laneHeight;
  const colour = (vector: number): string => (wrong.has(vector) ? WRONG : COLOURS[vectors.indexOf(vector) % COLOURS.length] ?? WRONG);
  const below = [
    ...[...wrong].map(([vector, why]) => ({ text: `vector ${vector}: ${why.join('; ')}`, fill: WRONG })),
    ...TIMELINE_LANES.map((lane) => ({ text: `${lane}: ${notes[lane]}`, fill: '#444' })),
    ...(moved.length > vectors.length ? [{ text: `${moved.length - vectors.length} more vectors moved and are not drawn`, fill: '#444' }] : []),
    ...(inLines.length > drawn.length ? [{ text: `${inLines.length - drawn.length} later events are not drawn`, fill: '#444' }] : []),
  ];
  const height = bottom + TICK_LABEL + LINE * (below.length + 1);
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${height}" viewBox="0 0 ${WIDTH} ${height}" font-family="sans-serif" font-size="12" role="img" aria-label="${escape(title)}">`,
    `<rect width="${WIDTH}" height="${height}" fill="#fff"/>`,
    `<text x="12" y="24" font-size="15" font-weight="bold">${escape(title)}</text>`,
    ...TIMELINE_LANES.flatMap((lane) => [
      `<rect x="${LEFT}" y="${laneTop(lane)}" width="${WIDTH - LEFT - RIGHT}" height="${laneHeight}" fill="#f3f5f7"/>`,
      `<text x="12" y="${laneTop(lane) + 12}" font-weight="bold">${lane}</text>`,
      `<text x="12" y="${laneTop(lane) + 26}" fill="#666">${VERBS[lane]}</text>`,
      ...vectors.map((vector) => `<text x="${LEFT - 8}" y="${y({ lane, vector }) + 4}" text-anchor="end" font-size="11" fill="${colour(vector)}">${vector}</text>`),
    ]),
    ...ticks.flatMap((tick) => [
      `<line x1="${x(tick)}" y1="${TOP}" x2="${x(tick)}" y2="${bottom}" stroke="#d5dade"/>`,
      `<text x="${x(tick)}" y="${bottom + 15}" text-anchor="middle" fill="#666">${round(tick)}${tick === endMs ? ' ms' : ''}</text>`,
    ]),
    ...ways(drawn).map(([from, to]) => `<line x1="${x(from.timeMs)}" y1="${y(from)}" x2="${x(to.timeMs)}" y2="${y(to)}" stroke="${colour(to.vector)}" stroke-opacity="0.45"/>`),
    ...drawn.filter(({ uncertaintyMs = 0 }) => uncertaintyMs > 0).map((event) => {
      const { timeMs, vector, uncertaintyMs = 0 } = event;
      const [from, to] = [Math.max(startMs, timeMs - uncertaintyMs), Math.min(endMs, timeMs + uncertaintyMs)];
      return `<line x1="${x(from)}" y1="${y(event)}" x2="${x(to)}" y2="${y(event)}" stroke="${colour(vector)}" stroke-width="3" stroke-opacity="0.25"/>`;
    }),
    ...drawn.map((event) => {
      const { lane, vector, timeMs, cpu } = event;
      const words = `vector ${vector} ${VERBS[lane]} at ${round(timeMs)} ms${cpu === undefined ? '' : ` on CPU ${cpu}`}`;
      return `<circle class="event" cx="${x(timeMs)}" cy="${y(event)}" r="4" fill="${colour(vector)}"><title>${escape(words)}</title></circle>`;
    }),
    ...below.map(({ text, fill }, index) => `<text x="12" y="${bottom + TICK_LABEL + LINE * (index + 1)}" fill="${fill}">${escape(text)}</text>`),
    '</svg>',
    '',
  ].join('\n');
}

/** From each message to what it came of, as far as the order tells: the last fire before it, and the last message before a handler. */
function ways(events: readonly TimelineEvent[]): [TimelineEvent, TimelineEvent][] {
  const last = new Map<string, TimelineEvent>();
  const found: [TimelineEvent, TimelineEvent][] = [];
  for (const event of events) {
    const before = TIMELINE_LANES[TIMELINE_LANES.indexOf(event.lane) - 1];
    const cause = before === undefined ? undefined : last.get(`${before} ${event.vector}`);
    if (cause !== undefined) found.push([cause, event]);
    last.set(`${event.lane} ${event.vector}`, event);
  }
  return found;
}

/** Round numbers of milliseconds, some eight of them, that enclose the times. */
function ticksOf(firstMs: number, lastMs: number): number[] {
  const rough = (lastMs - firstMs) / 8;
  const decade = 10 ** Math.floor(Math.log10(rough));
  const step = decade * ([1, 2, 5, 10].find((factor) => factor * decade >= rough) ?? 10);
  const from = Math.floor(firstMs / step);
  return Array.from({ length: Math.ceil(lastMs / step) - from + 1 }, (_, index) => (from + index) * step);
}

function round(value: number): number {
  return Math.round(value * 1000) / 1000;
}

function escape(text: string): string {
  return text.replace(/&/g, '&amp;').replace(/</g, '&lt;').replace(/>/g, '&gt;').replace(/"/g, '&quot;').replace(/[^\x20-\uffff]/g, '?');
}
