// Waiting until something of a device is so: who changes it tells, who waits looks again. A deadline as everywhere.
import { DeadlineError } from '../errors.ts';
import { within } from '../wait.ts';

export interface UntilOptions {
  /** Default 10,000. */
  readonly timeoutMs?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

export class Changes {
  readonly #waiters = new Set<() => void>();

  /** Something changed: everyone who waits looks again. */
  tell(): void {
    for (const tell of this.#waiters) tell();
    this.#waiters.clear();
  }

  /** Resolves when `done()`. DeadlineError ("waited 10 s for `what`"; `saidMs`, when this is a part of a longer wait). */
  async until(done: () => boolean, what: string, { timeoutMs = 10_000, signal }: UntilOptions = {}, saidMs = timeoutMs): Promise<void> {
    const deadline = performance.now() + timeoutMs;
    while (!done()) {
      const leftMs = deadline - performance.now();
      if (leftMs <= 0) throw new DeadlineError(what, saidMs);
      let tell: () => void = () => undefined;
      const change = new Promise<void>((resolve) => { tell = resolve; });
      this.#waiters.add(tell);
      try {
        await within(change, { timeoutMs: leftMs, what, signal });
      } catch (error) {
        throw error instanceof DeadlineError ? new DeadlineError(what, saidMs) : error;
      } finally {
        this.#waiters.delete(tell);
      }
    }
  }
}
