// The newest events of one kind, with times: as many as are kept, and how many there were. Pure.

/** Times are milliseconds on this process's performance.now(). */
export interface TimedEvent<T> {
  readonly timeMs: number;
  readonly what: T;
}

export class EventLog<T> {
  readonly #kept: TimedEvent<T>[] = [];
  readonly #capacity: number;
  #count = 0;

  constructor(capacity = 8192) {
    this.#capacity = capacity;
  }

  /** All that there were; those before the newest `capacity` are forgotten. */
  get count(): number { return this.#count; }

  add(timeMs: number, what: T): void {
    this.#kept[this.#count % this.#capacity] = { timeMs, what };
    this.#count += 1;
  }

  /** Those after a time, of the ones that are kept. */
  after(timeMs: number): TimedEvent<T>[] {
    const kept = this.since(Math.max(0, this.#count - this.#capacity)) ?? [];
    return kept.filter((event) => event.timeMs > timeMs);
  }

  /** From event `first` on (0: the very first), in order; undefined when some of them are forgotten. */
  since(first: number): TimedEvent<T>[] | undefined {
    if (this.#count - first > this.#capacity) return undefined;
    return Array.from({ length: this.#count - first }, (_, at) => this.#kept[(first + at) % this.#capacity] as TimedEvent<T>);
  }
}
