import { describe, expect, test } from '@jest/globals';
import { boundTests, eventCharsOf, surplusOf, surplusText } from '../../src/report/event-bound.ts';
import { renderForTerminal } from '../../src/report/terminal.ts';
import { attempt, failedAttempt, report, testOf } from './sample-report.ts';

const events = Array.from({ length: 10 }, (_, atMs) => ({ atMs, lane: 'test' as const, text: 'something' }));
const at = (minute: number): string => `2026-11-21T20:0${minute}:00.000Z`;
const CHARS = eventCharsOf({ events });

describe('the bound of a report', () => {
  const tests = [
    testOf('new', { attempts: [attempt({ events, startedAt: at(3) })] }),
    testOf('shaky', { status: 'flaky', attempts: [failedAttempt('no', { events, startedAt: at(0) }), attempt({ events, startedAt: at(2), eventsDropped: 5 })] }),
    testOf('old', { attempts: [attempt({ events, startedAt: at(1) })] }),
  ];
  const kept = (charsMax: number): string[] => boundTests(tests, charsMax).flatMap(({ name, attempts }) => attempts.flatMap((one) => (one.events.length === 0 ? [] : [`${name} ${one.outcome}`])));

  test('leaves a report alone that is within it', () => {
    expect(boundTests(tests, 4 * CHARS)).toBe(tests);
    expect(surplusText({ tests })).toBeUndefined();
  });

  test('takes the events of the oldest passed attempts first, and then of the oldest others', () => {
    expect(kept(4 * CHARS - 1)).toEqual(['new passed', 'shaky failed', 'shaky passed']);
    expect(kept(3 * CHARS - 1)).toEqual(['new passed', 'shaky failed']);
    expect(kept(CHARS)).toEqual(['shaky failed']);
    expect(kept(CHARS - 1)).toEqual([]);
  });

  test('counts what is left out, and says so', () => {
    const bounded = report(boundTests(tests, 2 * CHARS));
    expect(bounded.tests.flatMap(({ attempts }) => attempts.map(({ eventsDropped }) => eventsDropped))).toEqual([0, 0, 15, 10]);
    expect(renderForTerminal(bounded)).toContain('the report is bounded: the events of 2 attempts are left out, of the oldest passed ones first');
  });

  test('strips no attempt twice: one without events frees nothing', () => {
    const weighed = [{ outcome: 'passed' as const, startedAt: at(0), eventChars: 0 }, { outcome: 'passed' as const, startedAt: at(1), eventChars: 5 }];
    expect(surplusOf(weighed, 4)).toEqual([weighed[1]]);
  });
});
