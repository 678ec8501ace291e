// What a machine may leave on the host: processes by their -name, and directories.
import { readdirSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';

/** Pids of QEMU processes whose -name is one of ours and whose parent is `parent` (or any). */
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

export function machineDirectories(): string[] {
  return readdirSync(tmpdir()).filter((name) => /^rootport-/.test(name) && !name.startsWith('rootport-apt-'));
}
