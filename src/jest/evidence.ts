// What is known of a test besides its verdict: what its machines recorded, the tables of claims that did not hold, and
// where it all is kept. Hooks and matchers in the sandbox add to it; the environment reads it when the test is over.
import type { Recorder, Recording } from '../recorder.ts';
import type { ReportedTable, WitnessTable } from '../report/run-report.ts';

/** What is kept of a machine for `rootport shell --from`, until its test's folder is there; or why nothing is. */
export type KeptState =
  | { readonly directory: string; readonly bytes: number; readonly lacks: readonly string[] }
  | { readonly why: string };

/** One machine of a test. It is read when the test is over and the machine may be gone: memory only. */
export interface MachineEvidence {
  readonly description: string;
  readonly repro: string;
  /** Steps of the test are told to it. */
  readonly recorder: Recorder;
  pciTree?: string;
  /** The kernel's log since the test began, asked of the guest; absent when it was not asked or did not answer. */
  kernelLog?: readonly string[];
  /** Of a test that failed. */
  state?: KeptState;
  /** What it recorded since the last test that ran on it. */
  recording(): Recording;
  /** Texts for the folder of a failure, by file name. */
  files(): Readonly<Record<string, string>>;
}

export interface Evidence {
  readonly machines: MachineEvidence[];
  readonly witnesses: WitnessTable[];
  /** A ledger, say. */
  readonly tables: ReportedTable[];
}

export function noEvidence(): Evidence {
  return { machines: [], witnesses: [], tables: [] };
}
