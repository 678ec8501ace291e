// Waiting with a deadline that says what it waited for. Every wait of rootport ends here.
import { DeadlineError } from './errors.ts';

export interface WithinOptions {
  readonly timeoutMs: number;
  /** Completes "waited 5 s for ..., and it did not happen". */
  readonly what: string;
  /** Rejects with the signal's reason as soon as it is aborted (a QEMU that exited, a guest fault). */
  readonly signal?: AbortSignal | undefined;
}

/**
 * The promise's outcome, or a DeadlineError after `timeoutMs`, or the abort signal's reason.
 * The work itself is not cancelled; give it the same signal if it can be.
 */
export function within<T>(work: PromiseLike<T>, { timeoutMs, what, signal }: WithinOptions): Promise<T> {
  return new Promise<T>((resolve, reject) => {
    const deadline = new DeadlineError(what, timeoutMs);
    const timer = setTimeout(() => settle(() => reject(deadline)), timeoutMs);
    const aborted = (): void => settle(() => reject(signal?.reason as Error));
    const settle = (end: () => void): void => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', aborted);
      end();
    };
    if (signal?.aborted) return void aborted();
    signal?.addEventListener('abort', aborted, { once: true });
    work.then(
      (value) => settle(() => resolve(value)),
      (error: unknown) => settle(() => reject(error as Error)),
    );
  });
}
