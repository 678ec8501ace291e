// What the test environment knows of the running test, for hooks inside the sandbox: its name and what it
// has failed with so far; and what they know of it for the environment. Jest tells environments, not hooks; the two
// share this record through the sandbox's global object. It holds no machine.
import type { Evidence } from './evidence.ts';

export interface TestRecord {
  /** Describe blocks and title, joined by ' > '. */
  readonly name: string;
  /** Errors so far, as they were thrown; Jest prints their `stack`. */
  readonly errors: readonly unknown[];
  readonly evidence: Evidence;
}

const KEY = Symbol.for('rootport.current-test');
type Holder = Record<symbol, TestRecord | undefined>;

/** For the environment: the record that hooks of this global object see. */
export function setCurrentTest(global: object, record: TestRecord | undefined): void {
  (global as Holder)[KEY] = record;
}

/** For hooks: the running test; undefined outside of one, or in another test environment. */
export function currentTest(): TestRecord | undefined {
  return (globalThis as unknown as Holder)[KEY];
}
