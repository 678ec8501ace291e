// The shared libraries that an ELF64 program asks for: its interpreter and DT_NEEDED names, and their
// closure over one library directory. Reads what it needs and no more (ELF-64 object file format 1.5).
import { existsSync } from 'node:fs';
import { readFile, realpath } from 'node:fs/promises';
import { basename, join } from 'node:path';

const PT_LOAD = 1, PT_DYNAMIC = 2, DT_NEEDED = 1n, DT_STRTAB = 5n;

export function isElf(bytes: Uint8Array): boolean {
  return bytes[0] === 0x7f && bytes[1] === 0x45 && bytes[2] === 0x4c && bytes[3] === 0x46;
}

/** DT_NEEDED of a little-endian ELF64 file; empty for a static one or for no ELF at all. */
export function neededLibraries(bytes: Buffer): string[] {
  if (bytes.length < 64 || !isElf(bytes) || bytes[4] !== 2) return [];
  const headers = Number(bytes.readBigUInt64LE(32)), size = bytes.readUInt16LE(54), count = bytes.readUInt16LE(56);
  const segments = Array.from({ length: count }, (_, i) => headers + i * size).map((at) => ({
    type: bytes.readUInt32LE(at),
    offset: Number(bytes.readBigUInt64LE(at + 8)),
    address: bytes.readBigUInt64LE(at + 16),
    fileSize: Number(bytes.readBigUInt64LE(at + 32)),
  }));
  const dynamic = segments.find((segment) => segment.type === PT_DYNAMIC);
  if (dynamic === undefined) return [];
  const needed: bigint[] = [];
  let strings = 0n;
  for (let at = dynamic.offset; at + 16 <= dynamic.offset + dynamic.fileSize; at += 16) {
    const tag = bytes.readBigUInt64LE(at), value = bytes.readBigUInt64LE(at + 8);
    if (tag === DT_NEEDED) needed.push(value);
    if (tag === DT_STRTAB) strings = value;
  }
  const home = segments.find(({ type, address, fileSize }) =>
    type === PT_LOAD && strings >= address && strings < address + BigInt(fileSize));
  if (home === undefined) return [];
  const base = Number(strings - home.address) + home.offset;
  return needed.map((value) => {
    const start = base + Number(value);
    return bytes.toString('latin1', start, bytes.indexOf(0, start));
  });
}

/** Real paths of every library that the programs need, found in `directory`, by the name asked for. */
export async function libraryClosure(programs: readonly string[], directory: string): Promise<Map<string, string>> {
  const found = new Map<string, string>();
  const queue = [...programs];
  for (let path = queue.pop(); path !== undefined; path = queue.pop()) {
    for (const name of neededLibraries(await readFile(path))) {
      const library = join(directory, basename(name));
      if (found.has(name) || !existsSync(library)) continue;
      found.set(name, await realpath(library));
      queue.push(library);
    }
  }
  return found;
}
