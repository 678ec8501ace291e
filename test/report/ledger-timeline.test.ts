import { describe, expect, test } from '@jest/globals';
import { renderTimeline, type Timeline, type TimelineEvent } from '../../src/report/ledger-timeline.ts';

const notes = { device: 'exact', VMM: 'the trace', guest: 'within 0.5 ms' };
const timeline = (events: readonly TimelineEvent[], more: Partial<Timeline> = {}): Timeline =>
  ({ title: 'vector 1 of 0000:01:00.0', events, wrong: new Map(), notes, ...more });

/** Tags in order, each closed, attributes quoted, nothing stray: what it takes to be well-formed, less entities. */
function checkWellFormed(svg: string): void {
  const open: string[] = [];
  const rest = svg.replace(/<(\/?)([a-z]+)((?: [a-z0-9A-Z:-]+="[^"<]*")*)(\/?)>/g, (_, closes: string, name: string, __, empty: string) => {
    if (closes === '/') expect(open.pop()).toBe(name);
    else if (empty === '') open.push(name);
    return '';
  });
  expect(open).toEqual([]);
  expect(rest).not.toMatch(/[<>]/);
  expect(rest.replace(/&(amp|lt|gt|quot);/g, '')).not.toContain('&');
}

const drawn = (svg: string): string[] => [...svg.matchAll(/class="event".*?<title>(.*?)<\/title>/g)].map(([, words = '']) => words);

describe('the timeline of a ledger', () => {
  const events: TimelineEvent[] = [
    { lane: 'device', vector: 1, timeMs: 1 }, { lane: 'VMM', vector: 1, timeMs: 1.2 }, { lane: 'guest', vector: 1, timeMs: 1.35, cpu: 3 },
    { lane: 'device', vector: 7, timeMs: 12 },
  ];

  test('has every event, in its lane, at its time and with its CPU', () => {
    const svg = renderTimeline(timeline(events));
    checkWellFormed(svg);
    expect(drawn(svg)).toEqual(['vector 1 fired at 1 ms', 'vector 1 sent at 1.2 ms', 'vector 1 handled at 1.35 ms on CPU 3', 'vector 7 fired at 12 ms']);
    const at = [...svg.matchAll(/class="event" cx="([\d.]+)" cy="([\d.]+)"/g)].map(([, x, y]) => [Number(x), Number(y)] as const);
    const [fired, sent, handled, other] = at as [readonly [number, number], readonly [number, number], readonly [number, number], readonly [number, number]];
    expect(sent[0]).toBeGreaterThan(fired[0]);
    expect(handled[0]).toBeGreaterThan(sent[0]);
    expect(other[0] - fired[0]).toBeCloseTo(11 / 0.15 * (handled[0] - sent[0]), 0); // one scale
    expect(sent[1] - fired[1]).toBe(handled[1] - sent[1]); // lanes of one height
    expect(other[1]).toBeGreaterThan(fired[1]); // a line a vector
  });

  test('joins a message to its fire and a handler to its message, and a fire that went nowhere to nothing', () => {
    const lines = [...renderTimeline(timeline(events)).matchAll(/stroke-opacity/g)];
    expect(lines).toHaveLength(2);
  });

  test('shows how unsure a time is as a bar that stays inside the drawing', () => {
    const svg = renderTimeline(timeline([{ lane: 'guest', vector: 1, timeMs: 5, uncertaintyMs: 1 }, { lane: 'guest', vector: 1, timeMs: 10, uncertaintyMs: 100 }]));
    checkWellFormed(svg);
    const bars = [...svg.matchAll(/x1="([\d.]+)" y1="[\d.]+" x2="([\d.]+)"[^>]*stroke-width="3"/g)].map(([, from, to]) => [Number(from), Number(to)]);
    expect(bars).toEqual([[468.4, 637.6], [130, 976]]);
  });

  test('marks what is wrong, and says how well each lane\'s times are known', () => {
    const svg = renderTimeline(timeline(events, { wrong: new Map([[7, ['fired, and never sent']]]) }));
    expect(svg).toContain('vector 7: fired, and never sent');
    expect(svg).toMatch(/class="event"[^>]*fill="#c62828"><title>vector 7/);
    for (const note of ['device: exact', 'VMM: the trace', 'guest: within 0.5 ms']) expect(svg).toContain(`>${note}<`);
  });

  test('with no event, a single one, or some before it began is still a drawing inside its bounds', () => {
    for (const some of [[], events.slice(0, 1), [{ lane: 'VMM', vector: 0, timeMs: -3 } as const], [{ lane: 'VMM', vector: 0, timeMs: 0 } as const]]) {
      const svg = renderTimeline(timeline(some));
      checkWellFormed(svg);
      expect(svg).not.toMatch(/NaN|Infinity/);
      expect(drawn(svg)).toHaveLength(some.length);
      for (const [, x] of svg.matchAll(/ c?x[12]?="([-\d.]+)"/g)) {
        expect(Number(x)).toBeGreaterThanOrEqual(0);
        expect(Number(x)).toBeLessThanOrEqual(1000);
      }
    }
  });

  test('of very many vectors draws those that are wrong first, and says how many it leaves out', () => {
    const many = Array.from({ length: 190 }, (_, vector): TimelineEvent => ({ lane: 'device', vector, timeMs: vector }));
    const svg = renderTimeline(timeline(many, { wrong: new Map([[150, ['fired, and never sent']]]) }));
    checkWellFormed(svg);
    expect(drawn(svg)).toHaveLength(16);
    expect(drawn(svg)).toContain('vector 150 fired at 150 ms');
    expect(svg).toContain('174 more vectors moved and are not drawn');
  });

  test('keeps text of any kind from being markup', () => {
    const svg = renderTimeline(timeline([], { title: '<b> & "x" \u0007' }));
    checkWellFormed(svg);
    expect(svg).toContain('&lt;b&gt; &amp; &quot;x&quot; ?');
  });
});
