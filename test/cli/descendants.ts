// Processes started by a process, and theirs: what must be gone when it is.
import { readdirSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import pRetry from 'p-retry';

/** Pids of all processes below `pid` now. A leash is left out: it ends itself, after what it holds. */
export function descendants(pid: number): number[] {
  const parents = new Map<number, number>();
  for (const entry of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    const parent = /^PPid:\s*(\d+)/m.exec(read(`/proc/${entry}/status`))?.[1];
    if (parent !== undefined) parents.set(Number(entry), Number(parent));
  }
  const below = (one: number): number[] => [...parents].filter(([, parent]) => parent === one).flatMap(([child]) => [child, ...below(child)]);
  return below(pid);
}

/** The command line of a process, words separated by spaces; empty when it is gone. */
export function commandOf(pid: number): string {
  return read(`/proc/${pid}/cmdline`).replaceAll('\0', ' ');
}

/** Directories of machines that these processes booted: their names carry the process id. */
export function machineDirectoriesOf(pids: readonly number[]): string[] {
  return readdirSync(tmpdir()).filter((name) => pids.some((pid) => name.startsWith(`rootport--${pid}-`)));
}

/** Resolves when none of the processes runs and none of their machines' directories is there; rejects after two seconds. */
export async function allGone(pids: readonly number[]): Promise<void> {
  await pRetry(() => {
    const left = pids.filter((pid) => { const status = read(`/proc/${pid}/status`); return status !== '' && !/^State:\s*Z/m.test(status); });
    if (left.length > 0) throw new Error(`still running: ${left.map((pid) => `${pid} ${commandOf(pid)}`).join('\n')}`);
    const directories = machineDirectoriesOf(pids);
    if (directories.length > 0) throw new Error(`still there: ${directories.join(', ')}`);
  }, { retries: 40, minTimeout: 50, factor: 1 });
}

function read(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}
