// What is known of one interrupt vector of a function, by who counts it. Facts alone: whose they are stands in
// machine/interrupt-ledger.ts, what they look like in report/ledger-table.ts.

export interface VectorCounts {
  readonly vector: number;
  /** Counts since the ledger began; undefined: this witness does not know. */
  readonly fired: number | undefined;
  readonly sent: number | undefined;
  readonly handled: number | undefined;
  readonly probed: number | undefined;
  /** `handled` by CPU; CPUs that handled none are left out. */
  readonly handledOn: readonly { readonly cpu: number; readonly times: number }[];
  readonly pending: boolean | undefined;
  /** The mask bit of its table entry. */
  readonly masked: boolean | undefined;
  /** Where its message goes now. */
  readonly cpu: number | undefined;
}
