// What this process has open, as the kernel lists it: the witness that nothing leaks.
import { readdirSync, readlinkSync } from 'node:fs';

/** Every open descriptor and what it is: `7 -> anon_inode:[eventfd]`. Sorted by descriptor. */
export function openDescriptors(): string[] {
  const listed: [number, string][] = [];
  for (const name of readdirSync('/proc/self/fd')) {
    try {
      listed.push([Number(name), readlinkSync(`/proc/self/fd/${name}`)]);
    } catch {
      // the directory's own descriptor, closed by now
    }
  }
  return listed.sort(([a], [b]) => a - b).map(([fd, target]) => `${fd} -> ${target}`);
}
