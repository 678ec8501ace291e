// The events of one QMP connection: waits, listeners, and a bounded record with times.
// Not here: the connection itself (client.ts) and what the events mean (QEMU's qapi/*.json).
import { within } from '../wait.ts';
import type { QmpEvent } from './message.ts';

export interface ExpectEventOptions {
  readonly timeoutMs: number;
  /** Completes "waited 5 s for ..."; the event's name when left out. */
  readonly what?: string;
  /** Gives the wait up. */
  readonly signal?: AbortSignal | undefined;
}

/** An event with the time it came, milliseconds on this process's performance.now() clock. */
export interface QmpEventRecord extends QmpEvent {
  readonly receivedAtMs: number;
}

interface Wait {
  readonly name: string;
  matches(event: QmpEvent): boolean;
  resolve(event: QmpEvent): void;
  reject(error: Error): void;
}

/** How many events are kept; older ones are counted only. */
const RECORD_MAX = 1000;

export class QmpEvents {
  readonly #waits = new Set<Wait>();
  readonly #listeners = new Map<string, Set<(event: QmpEvent) => void>>();
  readonly #record: QmpEventRecord[] = [];
  #dropped = 0;
  #failure: Error | undefined;

  get record(): readonly QmpEventRecord[] {
    return this.#record;
  }

  get dropped(): number {
    return this.#dropped;
  }

  /** See QmpClient.expectEvent. */
  expect(name: string, predicate: (event: QmpEvent) => boolean, options: ExpectEventOptions): Promise<QmpEvent> {
    let wait: Wait | undefined;
    const seen = new Promise<QmpEvent>((resolve, reject) => {
      if (this.#failure !== undefined) return reject(this.#failure);
      wait = { name, matches: predicate, resolve, reject };
      this.#waits.add(wait);
    });
    const outcome = within(seen, {
      timeoutMs: options.timeoutMs,
      what: options.what ?? `the QMP event ${name}`,
      signal: options.signal,
    }).finally(() => wait !== undefined && this.#waits.delete(wait));
    // Heard here too, so that a wait whose command failed is no unhandled rejection.
    seen.catch(() => undefined);
    outcome.catch(() => undefined);
    return outcome;
  }

  on(name: string, listener: (event: QmpEvent) => void): () => void {
    const listeners = this.#listeners.get(name) ?? new Set();
    this.#listeners.set(name, listeners.add(listener));
    return () => void listeners.delete(listener);
  }

  occurred(event: QmpEvent): void {
    this.#record.push({ ...event, receivedAtMs: performance.now() });
    if (this.#record.length > RECORD_MAX) {
      this.#record.shift();
      this.#dropped += 1;
    }
    for (const wait of [...this.#waits]) {
      if (wait.name !== event.event) continue;
      try {
        if (!wait.matches(event)) continue;
        wait.resolve(event);
      } catch (error) {
        wait.reject(error as Error);
      }
      this.#waits.delete(wait);
    }
    for (const listener of this.#listeners.get(event.event) ?? []) listener(event);
  }

  /** Every wait, and every later one, rejects with this error. */
  fail(error: Error): void {
    this.#failure = error;
    for (const { reject } of this.#waits) reject(error);
    this.#waits.clear();
  }
}
