// The loop at a desk with a suite: for every round the suite runs, in a Jest of its own, against the module as it was saved
// last; its results, and what the guests' consoles said under each test, are what is told. Jest is started ahead and
// waits (WaitingJest), and the module is built beside its last steps: the suite's own buildModule finds it in the cache.
import { readFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { RootportError } from '../errors.ts';
import { buildModule, type Kernel } from '../image/index.ts';
import { DEFAULT_REPORT, REPORT_FILE, REPORT_VARIABLE } from '../jest/report-directory.ts';
import { parseReport, type ReportedTest } from '../report/run-report.ts';
import type { Round, Rounds } from './dev-loop.ts';
import { startWaitingJest, type WaitingJest } from './jest-child.ts';
import { worst } from './run-results.ts';
import type { SuiteProject } from './suite-project.ts';

export interface DevSuiteOptions {
  /** Of the module. */
  readonly directory: string;
  /** What the module is built for, before the suite asks for it: its words are told once, and no test is run when it does not compile. */
  readonly kernel: Kernel;
  readonly project: SuiteProject;
  /** Absolute. */
  readonly files: readonly string[];
  readonly testNamePattern?: string | undefined;
  readonly env: Readonly<Record<string, string>>;
  /** Where Jest's words go, as they come. */
  readonly say: (stream: 'stdout' | 'stderr', text: string) => void;
}

export class DevSuite implements Rounds {
  readonly #options: DevSuiteOptions;
  readonly #report: string | undefined;
  #next: WaitingJest;
  #closed = false;

  constructor(options: DevSuiteOptions) {
    this.#options = options;
    const asked = process.env[REPORT_VARIABLE] || DEFAULT_REPORT;
    this.#report = asked === 'off' ? undefined : resolve(options.project.root, asked);
    this.#next = this.#start();
  }

  async round(cancelled: AbortSignal): Promise<Round | undefined> {
    const { directory, kernel, say } = this.#options;
    const jest = this.#next;
    // Its words wait for the compiler's verdict.
    let mayTell = (): void => {};
    const built = new Promise<void>((tell) => { mayTell = tell; });
    const cancel = (): void => void jest.end();
    cancelled.addEventListener('abort', cancel, { once: true });
    try {
      const running = jest.run((stream, text) => void built.then(() => say(stream, text)));
      running.catch(() => undefined);
      const { warnings } = await buildModule(directory, kernel);
      if (cancelled.aborted) return undefined;
      mayTell();
      const { exitCode, outcomes } = await running;
      if (cancelled.aborted || this.#closed) return undefined;
      if (outcomes === undefined) return { passed: false, text: `Jest exited with ${exitCode} before it had results\n` };
      const passed = exitCode === 0 && outcomes.size > 0 && worst(outcomes.values()) === 'passed';
      return { passed, text: [...(warnings === '' ? [] : [`${warnings}\n`]), await this.#log()].join('') };
    } catch (error) {
      if (!(error instanceof RootportError) || error.name === 'EnvironmentError') throw error;
      return cancelled.aborted || this.#closed ? undefined : { passed: false, text: `${error.message}\n` };
    } finally {
      cancelled.removeEventListener('abort', cancel);
      await jest.end();
      if (!this.#closed) this.#next = this.#start();
    }
  }

  async close(): Promise<void> {
    this.#closed = true;
    await this.#next.end();
  }

  #start(): WaitingJest {
    const { project, files, testNamePattern, env } = this.#options;
    const pattern = testNamePattern === undefined ? [] : [`--testNamePattern=${testNamePattern}`];
    return startWaitingJest(project, [...pattern, '--runTestsByPath', ...files], {
      ...(process.stdout.isTTY ? { FORCE_COLOR: '1' } : {}), ...env, [REPORT_VARIABLE]: this.#report ?? 'off', ROOTPORT_MACHINE_SAID: '1',
    });
  }

  /** Of the tests that passed: a failed one has its kernel log in its failure. */
  async #log(): Promise<string> {
    if (this.#report === undefined) return '';
    const path = join(this.#report, REPORT_FILE);
    return parseReport(await readFile(path, 'utf8'), path).tests.map(consoleOf).filter((text) => text !== '').join('');
  }
}

/** What a restore and the marks of tests leave in a guest's log. */
const OURS = /\] (rootport: |random: crng reseeded due to virtual machine fork)/;

/** Under the test's name what its guests' kernels said, from their restore on; empty when they said nothing. */
export function consoleOf({ name, status, attempts }: ReportedTest): string {
  const lines = status !== 'passed' ? [] : attempts.flatMap(({ events }) => events)
    .filter(({ lane, text }) => lane === 'console' && !OURS.test(text)).map(({ text }) => text);
  return lines.length === 0 ? '' : `${name}:\n${lines.map((line) => `  ${line}\n`).join('')}`;
}
