// The shared libraries that an ELF64 program asks for: its DT_NEEDED names, and their closure over the
// library directories of a tree. Reads what it needs and no more (ELF-64 object file format 1.5).
import { existsSync } from 'node:fs';
import { readFile, realpath } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';

const PT_LOAD = 1, PT_DYNAMIC = 2, DT_NEEDED = 1n, DT_STRTAB = 5n, DT_RPATH = 15n, DT_RUNPATH = 29n;
/** What Debian's dynamic programs name as their interpreter, in a tree. */
export const LOADER = 'usr/lib64/ld-linux-x86-64.so.2';
/** Where Debian's loader looks without being told (ld.so(8)). */
const STANDARD = ['usr/lib/x86_64-linux-gnu', 'usr/lib'];

export function isElf(bytes: Uint8Array): boolean {
  return bytes[0] === 0x7f && bytes[1] === 0x45 && bytes[2] === 0x4c && bytes[3] === 0x46;
}

interface Dynamic {
  /** DT_NEEDED. */
  readonly needed: readonly string[];
  /** Directories of DT_RUNPATH or DT_RPATH, as written. */
  readonly runPath: readonly string[];
}

/** DT_NEEDED of a little-endian ELF64 file; empty for a static one or for no ELF at all. */
export function neededLibraries(bytes: Buffer): readonly string[] {
  return dynamicOf(bytes).needed;
}

function dynamicOf(bytes: Buffer): Dynamic {
  const none = { needed: [], runPath: [] };
  if (bytes.length < 64 || !isElf(bytes) || bytes[4] !== 2 || bytes[5] !== 1) return none;
  const headers = Number(bytes.readBigUInt64LE(32)), size = bytes.readUInt16LE(54), count = bytes.readUInt16LE(56);
  const segments = Array.from({ length: count }, (_, i) => headers + i * size).map((at) => ({
    type: bytes.readUInt32LE(at),
    offset: Number(bytes.readBigUInt64LE(at + 8)),
    address: bytes.readBigUInt64LE(at + 16),
    fileSize: Number(bytes.readBigUInt64LE(at + 32)),
  }));
  const dynamic = segments.find((segment) => segment.type === PT_DYNAMIC);
  if (dynamic === undefined) return none;
  const needed: bigint[] = [], runPath: bigint[] = [];
  let strings = 0n;
  for (let at = dynamic.offset; at + 16 <= dynamic.offset + dynamic.fileSize; at += 16) {
    const tag = bytes.readBigUInt64LE(at), value = bytes.readBigUInt64LE(at + 8);
    if (tag === DT_NEEDED) needed.push(value);
    if (tag === DT_RUNPATH || tag === DT_RPATH) runPath.push(value);
    if (tag === DT_STRTAB) strings = value;
  }
  const home = segments.find(({ type, address, fileSize }) =>
    type === PT_LOAD && strings >= address && strings < address + BigInt(fileSize));
  if (home === undefined) return none;
  const base = Number(strings - home.address) + home.offset;
  const text = (value: bigint): string => {
    const start = base + Number(value);
    return bytes.toString('latin1', start, bytes.indexOf(0, start));
  };
  return { needed: needed.map(text), runPath: runPath.flatMap((value) => text(value).split(':')) };
}

/**
 * Every library that the programs need, of those that `tree` has: where the loader looks for it (a path
 * inside the tree), and the file that it is.
 */
export async function libraryClosure(programs: readonly string[], tree: string): Promise<Map<string, string>> {
  const found = new Map<string, string>();
  const root = await realpath(tree); // an absolute link would lead out of it
  const queue = [...programs];
  for (let path = queue.pop(); path !== undefined; path = queue.pop()) {
    const { needed, runPath } = dynamicOf(await readFile(path));
    const own = dirname(path).slice(tree.length);
    const directories = [...runPath.map((one) => one.replace(/\$(ORIGIN|\{ORIGIN\})/, own).replace(/^\/*(usr\/)?/, 'usr/')), ...STANDARD];
    for (const name of needed) {
      const at = directories.map((one) => join(one, basename(name))).find((one) => existsSync(join(tree, one)));
      if (at === undefined || found.has(at)) continue;
      const file = await realpath(join(tree, at));
      if (!file.startsWith(`${root}/`)) continue;
      found.set(at, file);
      queue.push(join(tree, at));
    }
  }
  return found;
}
