// What a case came to, as the corpus keeps it.

export interface CaseOutcome {
  /** Calls into the code under test, or messages sent to it. */
  readonly steps: number;
  /** Equal words mean that the same was met. */
  readonly outcome: string;
}

/** The first line of an error, less its numbers. */
export function outcomeOf(error: Error): string {
  return (error.message.split('\n', 1)[0] ?? '').replaceAll(/0x[0-9a-f]+|\d+/g, 'N');
}
