// What bounds a report: its events, which are nearly all of it. The oldest passed attempts lose theirs first, then the
// oldest of the others, whole: a timeline with a hole would mislead. What they recorded stays counted in `eventsDropped`.
import type { Attempt, ReportedTest, RunReport } from './run-report.ts';

/** Of all events of a report, as JSON: what a browser still opens at once. */
export const EVENT_CHARS_MAX = 64 * 2 ** 20;

export type Weighed = Pick<Attempt, 'outcome' | 'startedAt'> & {
  /** Its events, as JSON. */
  readonly eventChars: number;
};

/** Those that are to lose their events, for the others to have no more than this in all. */
export function surplusOf<T extends Weighed>(all: readonly T[], charsMax = EVENT_CHARS_MAX): T[] {
  let over = all.reduce((sum, { eventChars }) => sum + eventChars, 0) - charsMax;
  const inOrder = [...all].sort((one, other) => Number(other.outcome === 'passed') - Number(one.outcome === 'passed') || Date.parse(one.startedAt) - Date.parse(other.startedAt));
  return inOrder.filter(({ eventChars }) => {
    if (over <= 0 || eventChars === 0) return false;
    over -= eventChars;
    return true;
  });
}

export function eventCharsOf({ events }: Pick<Attempt, 'events'>): number {
  return events.length === 0 ? 0 : JSON.stringify(events).length;
}

export function withoutEvents(attempt: Attempt): Attempt {
  return { ...attempt, events: [], eventsDropped: attempt.eventsDropped + attempt.events.length };
}

/** The same tests, with no more events than that. */
export function boundTests(tests: readonly ReportedTest[], charsMax = EVENT_CHARS_MAX): readonly ReportedTest[] {
  const weighed = tests.flatMap(({ attempts }) => attempts.map((attempt) => ({ ...attempt, attempt, eventChars: eventCharsOf(attempt) })));
  const surplus = new Set(surplusOf(weighed, charsMax).map(({ attempt }) => attempt));
  if (surplus.size === 0) return tests;
  return tests.map((test) => ({ ...test, attempts: test.attempts.map((one) => (surplus.has(one) ? withoutEvents(one) : one)) }));
}

/** For who reads it: that there was more; undefined when there was not. */
export function surplusText({ tests }: Pick<RunReport, 'tests'>): string | undefined {
  const count = tests.flatMap(({ attempts }) => attempts).filter(({ events, eventsDropped }) => events.length === 0 && eventsDropped > 0).length;
  return count === 0 ? undefined : `the report is bounded: the events of ${count} ${count === 1 ? 'attempt' : 'attempts'} are left out, of the oldest passed ones first`;
}
