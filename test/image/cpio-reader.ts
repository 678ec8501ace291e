// The newc format read back, as the kernel's buffer-format.rst words it.
import { expect } from '@jest/globals';

export interface CpioEntry { name: string; mode: number; content: string; links: number; device: [number, number] }

export function parseCpio(archive: Buffer): CpioEntry[] {
  const entries: CpioEntry[] = [];
  for (let at = 0; at < archive.length;) {
    expect(archive.toString('latin1', at, at + 6)).toBe('070701');
    const field = (index: number): number => Number.parseInt(archive.toString('latin1', at + 6 + index * 8, at + 14 + index * 8), 16);
    const nameEnd = at + 110 + field(11), start = (nameEnd - at + 3 & ~3) + at;
    entries.push({
      name: archive.toString('utf8', at + 110, nameEnd - 1), mode: field(1), links: field(4),
      content: archive.toString('utf8', start, start + field(6)), device: [field(9), field(10)],
    });
    at = start + ((field(6) + 3) & ~3);
  }
  return entries;
}
