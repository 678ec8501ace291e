// The test environment of the preset: Node's, plus three things that a machine in a test needs.
//  - A worker whose Jest was killed (SIGKILL runs no teardown: jest#6029) ends at once, and its machines
//    with it: they are on a leash to this process.
//  - Symbol.asyncDispose in the sandbox, for `await using`.
//  - The running test's name and errors, for useMachine (current-test.ts); and what they know of it, for the report.
// It boots nothing. Source: Jest docs, "Test environment"; jest-circus event types.
import { TestEnvironment } from 'jest-environment-node';
import { setCurrentTest, type TestRecord } from './current-test.ts';
import { noEvidence } from './evidence.ts';
import { currentReport } from './report-directory.ts';
import { writePart } from './report-parts.ts';

/** What is used of jest-circus' events; each carries more. */
interface TestEntry {
  readonly name: string;
  readonly parent?: TestEntry;
  /** An error, or an error with the one that knows where it was thrown. */
  readonly errors?: readonly unknown[];
  /** From 1: a retry counts. */
  readonly invocations?: number;
}
interface TestEvent {
  readonly name: string;
  readonly test?: TestEntry;
}

let leashed = false;

/** Once a process: `disconnect` comes when the Jest that started this worker is gone. */
function endWithParent(): void {
  if (leashed || process.send === undefined) return;
  leashed = true;
  const end = (): void => process.exit(1);
  process.once('disconnect', end);
  // The listener holds the channel open, and with it this process: let go when Jest ends the worker, which
  // takes its own listener off.
  process.on('removeListener', (event) => {
    if (event === 'message' && process.listenerCount('message') === 0) process.off('disconnect', end);
  });
}

export default class RootportEnvironment extends TestEnvironment {
  readonly #file: string;
  #record: TestRecord | undefined;
  #startedAtMs = 0;

  constructor(...[config, context]: ConstructorParameters<typeof TestEnvironment>) {
    super(config, context);
    this.#file = context.testPath;
  }

  override async setup(): Promise<void> {
    await super.setup();
    endWithParent();
    const symbols = this.global.Symbol as unknown as Record<string, unknown>;
    for (const name of ['asyncDispose', 'dispose'] as const) {
      if (symbols[name] === undefined) {
        Object.defineProperty(this.global.Symbol, name, { value: Symbol[name] ?? Symbol.for(`nodejs.${name}`) });
      }
    }
  }

  handleTestEvent(event: TestEvent): void {
    const { test } = event;
    if (test === undefined) return;
    if (event.name === 'test_start') {
      this.#startedAtMs = performance.now();
      this.#record = {
        name: titleOf(test),
        get errors() {
          return (test.errors ?? []).map((one) => (Array.isArray(one) ? (one as unknown[])[0] : one));
        },
        evidence: noEvidence(),
      };
      setCurrentTest(this.global, this.#record);
    } else if (event.name === 'test_done') {
      this.#tell(test);
      setCurrentTest(this.global, undefined);
    }
  }

  /** To the reporter, which hears of a test's verdict only. */
  #tell({ invocations = 1 }: TestEntry): void {
    const report = currentReport();
    if (report === undefined || this.#record === undefined) return;
    const { name, errors, evidence } = this.#record;
    writePart(report, { file: this.#file, name, attempt: invocations, errors, evidence, startedAtMs: this.#startedAtMs });
  }
}

function titleOf(test: TestEntry): string {
  const names: string[] = [];
  for (let at: TestEntry | undefined = test; at !== undefined; at = at.parent) names.unshift(at.name);
  return names.filter((name) => name !== 'ROOT_DESCRIBE_BLOCK').join(' > ');
}
