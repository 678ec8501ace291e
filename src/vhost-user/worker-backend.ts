// A back end in a thread of its own: what the test's event loop does, however long, does not delay the device.
// This is the test's side of it; worker-main.ts is the thread's. A device there is made by a module, from what can
// be sent to a thread, and no test can steer it: gates work in the test's own thread.
import { Worker } from 'node:worker_threads';
import { EnvironmentError, ProtocolError } from '../errors.ts';
import { within } from '../wait.ts';
import { counted } from './backend.ts';

// src/ and dist/ lie equally deep in the package; a thread has no loader for TypeScript.
const THREAD = new URL('../../dist/vhost-user/worker-main.js', import.meta.url);

export interface WorkerBackendOptions {
  /** Where to listen; at most 107 bytes. */
  readonly path: string;
  /** A module that exports `make` (DeviceMaker of worker-main.ts). */
  readonly module: URL;
  /** What `make` is given: anything that structuredClone takes, and SharedArrayBuffer. */
  readonly deviceOptions: unknown;
  readonly queueCount: number;
  /** The back end or its device failed, or the thread ended. */
  readonly onError: (error: Error) => void;
  readonly log: (line: string) => void;
  /** What the device said by `tell`. */
  readonly onTold?: (what: unknown) => void;
}

/** What the thread is started with. */
export interface WorkerOrder extends Pick<WorkerBackendOptions, 'path' | 'deviceOptions'> {
  readonly module: string;
  readonly firedCounts: Uint32Array;
}

/** What the thread says. */
export type WorkerReport =
  | { readonly kind: 'listening' }
  | { readonly kind: 'log'; readonly line: string }
  | { readonly kind: 'told'; readonly what: unknown }
  | { readonly kind: 'error'; readonly error: SentError };

/** An error as it crosses from thread to thread: its class and hint would be lost on the way. */
export interface SentError {
  readonly name: string;
  readonly summary: string;
  readonly hint: string | undefined;
}

const START_TIMEOUT_MS = 30_000;
const CLOSE_TIMEOUT_MS = 15_000;

export class WorkerBackend {
  readonly #options: WorkerBackendOptions;
  readonly #worker: Worker;
  readonly #fired: Uint32Array;
  readonly #listening: Promise<void>;
  readonly #ended: Promise<void>;
  #started: () => void = () => undefined;
  #failed: (error: Error) => void = () => undefined;
  #closing = false;
  #closed: Promise<void> | undefined;

  /** Resolves when the thread listens. Rejects with what kept it from that: SystemCallError's text, the device's own. */
  static async listen(options: WorkerBackendOptions): Promise<WorkerBackend> {
    const backend = new WorkerBackend(options);
    await backend.#listening;
    return backend;
  }

  private constructor(options: WorkerBackendOptions) {
    this.#options = options;
    this.#fired = new Uint32Array(new SharedArrayBuffer(options.queueCount * Uint32Array.BYTES_PER_ELEMENT));
    const order: WorkerOrder = { path: options.path, module: options.module.href, deviceOptions: options.deviceOptions, firedCounts: this.#fired };
    this.#worker = new Worker(THREAD, { workerData: order, execArgv: [] });
    this.#ended = new Promise((resolve) => {
      this.#worker.once('exit', () => {
        if (!this.#closing) this.#failed(new EnvironmentError(`the thread of the back end at ${options.path} ended`));
        resolve();
      });
    });
    this.#worker.on('error', (cause: Error) => this.#failed(new ProtocolError(`the back end at ${options.path} failed in its thread: ${cause.message}`, { cause })));
    this.#worker.on('message', (report: WorkerReport) => this.#hear(report));
    const started = new Promise<void>((resolve, reject) => {
      this.#started = resolve;
      this.#failed = reject;
    });
    this.#listening = within(started, { timeoutMs: START_TIMEOUT_MS, what: `the thread of the back end at ${options.path} to listen` })
      .then(() => { this.#failed = options.onError; }, async (error: unknown) => {
        this.#closing = true;
        await this.#worker.terminate();
        throw error;
      });
  }

  /** Interrupts that the device fired, by queue: its own claim. */
  fired(): ReadonlyMap<number, number> {
    return counted(this.#fired);
  }

  /** Drain the device, stop listening and end the thread. Idempotent, and does not reject. */
  close(): Promise<void> {
    return (this.#closed ??= this.#close());
  }

  async #close(): Promise<void> {
    this.#closing = true;
    this.#worker.postMessage('close');
    try {
      await within(this.#ended, { timeoutMs: CLOSE_TIMEOUT_MS, what: `the thread of the back end at ${this.#options.path} to end` });
    } catch (error) {
      this.#options.log(`vhost-user: ${(error as Error).message}: it is terminated`);
      await this.#worker.terminate();
    }
  }

  #hear(report: WorkerReport): void {
    switch (report.kind) {
      case 'listening': return this.#started();
      case 'log': return this.#options.log(report.line);
      case 'told': return this.#options.onTold?.(report.what);
      case 'error': return this.#failed(received(report.error));
    }
  }
}

function received({ name, summary, hint }: SentError): Error {
  const Kind = /EnvironmentError|SystemCallError/.test(name) ? EnvironmentError : ProtocolError;
  return new Kind(summary, hint === undefined ? {} : { hint });
}
