// Ends the process when a case takes far too long, and says which: no timer of the thread that hangs would.
import { Worker } from 'node:worker_threads';

/** A case takes milliseconds; on a busy machine, seconds. */
const LONGEST_MS = 60_000;

const WATCH = `
const { workerData: { shared, target, longestMs }, parentPort } = require('node:worker_threads');
const { writeSync } = require('node:fs');
const words = new Int32Array(shared);
for (;;) {
  const cases = Atomics.load(words, 0);
  if (Atomics.wait(words, 2, 0, longestMs) !== 'timed-out') break;
  if (Atomics.load(words, 0) !== cases) continue;
  writeSync(2, 'fuzz: ' + target + ': ROOTPORT_FUZZ_CASE=' + (Atomics.load(words, 1) >>> 0) + ' hangs\\n');
  process.kill(process.pid, 'SIGABRT');
}
`;

export class HangGuard {
  /** Cases begun, the seed of the last, and 1 when there are no more. */
  readonly #words = new Int32Array(new SharedArrayBuffer(12));
  readonly #worker: Worker;

  constructor(target: string) {
    this.#worker = new Worker(WATCH, { eval: true, workerData: { shared: this.#words.buffer, target, longestMs: LONGEST_MS } });
  }

  begin(seed: number): void {
    Atomics.store(this.#words, 1, seed | 0);
    Atomics.add(this.#words, 0, 1);
  }

  async end(): Promise<void> {
    Atomics.store(this.#words, 2, 1);
    Atomics.notify(this.#words, 2);
    await new Promise((resolve) => this.#worker.once('exit', resolve));
  }
}
