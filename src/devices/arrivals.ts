// Things that come from the guest and are taken by a test, in order: each waits until it is asked for, and who asks
// waits, with a deadline, until one comes. What comes unasked is bounded: a guest can send for ever.
import { within } from '../wait.ts';

export interface WaitOptions {
  /** Default 10,000. */
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
}

export class Arrivals<T> {
  readonly #limit: number;
  #kept: T[] = [];
  #askers: ((item: T) => void)[] = [];
  /** Those that nobody had asked for when there was no more room: the oldest of what was kept. */
  dropped = 0;

  constructor(limit = 10_000) {
    this.#limit = limit;
  }

  /** Arrived, and not asked for yet. */
  get waiting(): readonly T[] {
    return this.#kept;
  }

  push(item: T): void {
    const asker = this.#askers.shift();
    if (asker !== undefined) return asker(item);
    this.#kept.push(item);
    if (this.#kept.length <= this.#limit) return;
    this.#kept.shift();
    this.dropped += 1;
  }

  /** The next one. DeadlineError ("waited 10 s for `what`") when none comes. */
  async next(what: string, { timeoutMs = 10_000, signal }: WaitOptions = {}): Promise<T> {
    if (this.#kept.length > 0) return this.#kept.shift() as T;
    let asker: (item: T) => void = () => undefined;
    const arrival = new Promise<T>((resolve) => { asker = resolve; });
    this.#askers.push(asker);
    try {
      return await within(arrival, { timeoutMs, what, ...(signal === undefined ? {} : { signal }) });
    } finally {
      this.#askers = this.#askers.filter((other) => other !== asker);
    }
  }

  /** Forget what nobody asked for. */
  clear(): void {
    this.#kept = [];
  }
}
