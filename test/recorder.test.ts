// The recorder: lanes on one clock, bounded, spans that fail or do not end, floods counted together.
import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { LANES, Recorder, type Lane } from '../src/recorder.ts';

describe('a recorder', () => {
  test('gives what was noted, spans among it, in the order of their begin', async () => {
    const recorder = new Recorder();
    recorder.note('console', 'first');
    const end = recorder.begin('qmp', 'device_add', );
    recorder.note('vhost-user', 'dev0: SET_OWNER', '8 bytes');
    end('done');
    await expect(recorder.span('test', 'plug', () => Promise.reject(new Error('no port\nmore of it')))).rejects.toThrow('no port');
    const { events, dropped } = recorder.since();
    expect(dropped).toBe(0);
    expect(events.map(({ lane, text, detail }) => [lane, text, detail])).toEqual([
      ['console', 'first', undefined], ['qmp', 'device_add', 'done'], ['vhost-user', 'dev0: SET_OWNER', '8 bytes'], ['test', 'plug', 'failed: no port'],
    ]);
    expect(events[1]?.durationMs).toBeGreaterThanOrEqual(0);
    expect(events[0]).not.toHaveProperty('durationMs');
  });

  test('gives a span that is not over with the time it has taken, and says so', () => {
    const recorder = new Recorder();
    const end = recorder.begin('guest', 'sleep 1');
    const [open] = recorder.since().events;
    expect(open).toMatchObject({ text: 'sleep 1', detail: 'not over' });
    expect(open?.durationMs).toBeGreaterThanOrEqual(0);
    end();
    expect(recorder.since().events[0]).not.toHaveProperty('detail');
  });

  test('gives only what came after a mark', () => {
    const recorder = new Recorder();
    recorder.note('qmp', 'before');
    const mark = recorder.mark();
    recorder.note('qmp', 'after');
    expect(recorder.since(mark).events.map(({ text }) => text)).toEqual(['after']);
  });

  test('counts hits of a tally together that are less than a millisecond apart, and begins anew after it', () => {
    const recorder = new Recorder();
    const tally = recorder.tally('ring', 'dev0 queue 0: kick');
    for (const [times, atMs] of [[1, 10], [2, 10.5], [1, 10.9], [1, 11], [4, 20]] as const) tally.hit(times, atMs);
    expect(recorder.since().events.map(({ atMs, count, durationMs }) => [atMs, count, durationMs])).toEqual([
      [10, 4, 10.9 - 10], [11, undefined, undefined], [20, 4, undefined],
    ]);
  });

  test('cuts long texts, and says how long they were', () => {
    const recorder = new Recorder();
    recorder.note('console', 'x'.repeat(70_000), 'y'.repeat(70_000));
    const [event] = recorder.since().events;
    expect(event?.text).toHaveLength(400 + ' ... (70000 characters)'.length);
    expect(event?.detail).toMatch(/^y{2000} \.\.\. \(70000 characters\)$/);
  });

  test('keeps the last of each lane, and tells how many are gone, whatever comes', () => {
    const step = fc.record({ lane: fc.constantFrom(...LANES), kind: fc.constantFrom('note', 'tally'), gapMs: fc.constantFrom(0, 0.2, 3) });
    fc.assert(fc.property(fc.array(step, { maxLength: 200 }), fc.integer({ min: 1, max: 8 }), fc.nat(200), (steps, keptMax, markAt) => {
      const recorder = new Recorder({ keptMax });
      const tallies = Object.fromEntries(LANES.map((lane) => [lane, recorder.tally(lane, 'hit')])) as Record<Lane, ReturnType<Recorder['tally']>>;
      let now = 0;
      let mark = recorder.mark();
      let hits = 0;
      for (const [index, { lane, kind, gapMs }] of steps.entries()) {
        if (index === markAt) mark = recorder.mark();
        now += gapMs;
        if (kind === 'note') recorder.note(lane, `${index}`);
        else {
          tallies[lane].hit(1, now);
          hits += 1;
        }
      }
      const { events } = recorder.since();
      for (const lane of LANES) expect(events.filter((one) => one.lane === lane).length).toBeLessThanOrEqual(keptMax);
      expect(events.filter(({ text }) => text === 'hit').reduce((sum, { count = 1 }) => sum + count, 0)).toBeLessThanOrEqual(hits);
      const later = recorder.since(mark);
      const all = recorder.mark();
      const put = LANES.reduce((sum, lane) => sum + all[lane] - mark[lane], 0);
      expect(later.events.length + later.dropped).toBe(put);
    }));
  });
});
