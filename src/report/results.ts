// What a run came to, test by test, with failed and errored kept apart. Pure: it reads what Jest says of a
// failure, the stack, whose first words are the error's class (src/errors.ts).

/**
 * `failed`: an assertion, or a GuestFault: what is under test is wrong. `errored`: anything else: the test did
 * not get as far as telling.
 */
export type TestOutcome = 'passed' | 'failed' | 'errored' | 'skipped';

/** `flaky`: it failed, and a retry passed. It is counted as neither passed nor failed. */
export type TestStatus = TestOutcome | 'flaky';

export interface TestRecordEntry {
  /** The test file. */
  readonly file: string;
  /** Describe blocks and title, joined by ' > '; empty for a file that could not be run. */
  readonly test: string;
  readonly outcome: TestStatus;
  readonly durationMs: number;
  /** The first lines of what it failed with (a flaky one before it passed), with the error's class where that is known. */
  readonly errors: readonly { readonly name: string; readonly summary: string }[];
}

export interface RunRecord {
  readonly startedAt: string;
  readonly counts: Readonly<Record<TestStatus, number>>;
  readonly tests: readonly TestRecordEntry[];
}

const COLOUR = /\x1b\[[0-9;]*m/g;
/** Errors of the tree that are the fault of neither the test's subject nor its claims. */
const CLASS = /^(?:thrown: )?([A-Z]\w*(?:Error|Fault)|Error)(?: \[[A-Z_]+\])?: /;

export function withoutColours(text: string): string {
  return text.replace(COLOUR, '');
}

/** One failure's text, without colours: its error's class and its first line. */
export function failureOf(stack: string): { name: string; summary: string; outcome: 'failed' | 'errored' } {
  const text = withoutColours(stack).trimStart();
  const name = CLASS.exec(text)?.[1] ?? 'Error';
  const [first = '', ...more] = text.replace(CLASS, '').split('\n').filter((line) => line.trim() !== '');
  const assertion = name === 'AssertionError' || /^expect[.(]/.test(first);
  // A matcher's first line only repeats the call.
  const summary = /^expect[.(]/.test(first) && more[0] !== undefined && !/^ {4}at /.test(more[0]) ? `${first}: ${more[0].trim()}` : first;
  return { name: assertion ? 'AssertionError' : name, summary, outcome: assertion || name === 'GuestFault' ? 'failed' : 'errored' };
}

/** Of a test with these failures. One failed claim is a finding, whatever went wrong besides. */
export function outcomeOf(stacks: readonly string[]): 'failed' | 'errored' {
  return stacks.some((stack) => failureOf(stack).outcome === 'failed') ? 'failed' : 'errored';
}

export function recordOf(startedAt: Date, tests: readonly TestRecordEntry[]): RunRecord {
  const count = (outcome: TestStatus): number => tests.filter((one) => one.outcome === outcome).length;
  return {
    startedAt: startedAt.toISOString(),
    counts: { passed: count('passed'), failed: count('failed'), errored: count('errored'), flaky: count('flaky'), skipped: count('skipped') },
    tests,
  };
}
