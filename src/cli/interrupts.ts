// SIGINT, SIGTERM, SIGHUP: end what runs, in order, then exit with 130. What does not end in time is on a
// leash (src/qemu/leash.ts): QEMU does not outlive this process.
import { within } from '../wait.ts';
import { EXIT } from './exit-codes.ts';

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;
const CLEANUP_TIMEOUT_MS = 5000;

type Cleanup = (signal: NodeJS.Signals) => Promise<void> | void;
const cleanups: Cleanup[] = [];
let interrupted = false;

/** Once, at the start. A second signal exits at once. */
export function catchInterrupts(): void {
  for (const signal of SIGNALS) process.on(signal, () => void interrupt(signal));
}

/** Run `cleanup` when a signal comes, the last one added first; returns how to take it back. */
export function onInterrupt(cleanup: Cleanup): () => void {
  cleanups.push(cleanup);
  return () => {
    if (!interrupted) cleanups.splice(cleanups.indexOf(cleanup), 1);
  };
}

/** Resolves never once a signal came: the exit is under way, and nobody wants to hear what it broke. */
export function unlessInterrupted(): Promise<void> {
  return interrupted ? new Promise(() => {}) : Promise.resolve();
}

async function interrupt(signal: NodeJS.Signals): Promise<void> {
  if (interrupted) process.exit(EXIT.interrupted);
  interrupted = true;
  for (const cleanup of cleanups.reverse()) {
    const done = Promise.resolve().then(() => cleanup(signal));
    await within(done, { timeoutMs: CLEANUP_TIMEOUT_MS, what: 'the end of what was running' }).catch(() => undefined);
  }
  process.exit(EXIT.interrupted);
}
