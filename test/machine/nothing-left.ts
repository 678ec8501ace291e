// What a machine may leave on the host: processes by their -name, and directories.
import { readdirSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';

/** How the machines of a process are named: by its pid, so that parallel workers do not see each other's. */
export const machineName = (ownerPid: number): string => `rootport--${ownerPid}-`;

/** Pids of QEMU processes whose -name begins so. */
export function machineProcesses(name = 'rootport-'): number[] {
  return readdirSync('/proc').filter((entry) => /^\d+$/.test(entry)).filter((pid) => {
    try {
      const words = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0');
      const at = words.indexOf('-name');
      return at >= 0 && words[at + 1]?.startsWith(name) && words.some((word) => word.includes('qemu-system'));
    } catch {
      return false; // it ended while we looked
    }
  }).map(Number);
}

export function machineDirectories(name = 'rootport--'): string[] {
  return readdirSync(tmpdir()).filter((directory) => directory.startsWith(name));
}
