// Frames of a kernel report to file and line, by the debug information of modules that buildModule made.
// binutils' addr2line reads the DWARF: who can build a module has it. A .ko is relocatable, so an address is
// one of a section (ELF-64 object file format 1.5, symbol table).
// Not here: the kernel itself. Debian's come without debug information; its frames stay symbol and offset.
import { readFile } from 'node:fs/promises';
import { basename } from 'node:path';
import { execa } from 'execa';
import type { BuiltModule } from '../image/index.ts';
import { formatFrame, type KernelFrame } from './kernel-frames.ts';

export interface SourcePlace {
  readonly function: string;
  /** Relative to the module's directory where it is of it. */
  readonly file: string;
  readonly line: number;
}

export interface SymbolisedFrame extends KernelFrame {
  /** The place of the code, then the functions that it is inlined into; empty when it is not known. */
  readonly places: readonly SourcePlace[];
  /** The first of them in the module's own source, or the first: `refcount_inc` of a header is nobody's line. */
  readonly place: SourcePlace | undefined;
  /** Why there is no place. */
  readonly unknown: string | undefined;
}

const SHT_SYMTAB = 2, STT_FUNC = 2;
const ADDR2LINE_MS = 20_000;

/** Never rejects for a frame that cannot be resolved: `unknown` says why. */
export async function symbolise(frames: readonly KernelFrame[], modules: readonly Pick<BuiltModule, 'unstripped'>[]): Promise<SymbolisedFrame[]> {
  // Of modules with one name the one that was loaded last.
  const files = new Map(modules.flatMap(({ unstripped }) => unstripped).map((path) => [basename(path).replace(/\.ko$/, '').replaceAll('-', '_'), path]));
  const tables = new Map<string, Promise<readonly FunctionSymbol[]>>();
  return Promise.all(frames.map(async (frame): Promise<SymbolisedFrame> => {
    const unresolved = (unknown: string): SymbolisedFrame => ({ ...frame, places: [], place: undefined, unknown });
    if (frame.module === undefined) return unresolved('the kernel has no debug information');
    const file = files.get(frame.module.replaceAll('-', '_'));
    if (file === undefined) return unresolved(`${frame.module} is no module that was built here`);
    let table = tables.get(file);
    if (table === undefined) tables.set(file, table = readFile(file).then(functionSymbols));
    try {
      // A return address stands after the call, which may be the last of its line.
      const offset = frame.returned && frame.offset > 0 ? frame.offset - 1 : frame.offset;
      const found = (await table).filter(({ name, size }) => name === frame.symbol && offset < Math.max(size, 1));
      const [symbol] = found;
      if (symbol === undefined) return unresolved(`${basename(file)} has no ${frame.symbol} of more than ${offset} bytes`);
      if (found.length > 1) return unresolved(`${basename(file)} has ${found.length} functions ${frame.symbol}`);
      const places = await placesOf(file, symbol.section, symbol.value + offset);
      return places.length === 0 ? unresolved(`${basename(file)} has no debug information for it`) : { ...frame, places, place: places.find(({ file: path }) => !isHeader(path)) ?? places[0], unknown: undefined };
    } catch (error) {
      return unresolved((error as NodeJS.ErrnoException).code === 'ENOENT' ? 'addr2line is not on the PATH (Debian: apt-get install binutils)' : (error as Error).message.split('\n')[0] ?? '');
    }
  }));
}

/** `f+0x47/0x60 [module] at driver.c:24`; with `(in g)` where a function g was inlined into f. */
export function formatSymbolised(frame: SymbolisedFrame): string {
  const { place } = frame;
  if (place === undefined) return formatFrame(frame);
  return `${formatFrame(frame)} at ${place.file}:${place.line}${place.function === frame.function ? '' : ` (in ${place.function})`}`;
}

interface FunctionSymbol {
  readonly name: string;
  readonly section: string;
  readonly value: number;
  readonly size: number;
}

/** Of a little-endian ELF64 file; empty for what is none. */
export function functionSymbols(bytes: Buffer): FunctionSymbol[] {
  if (bytes.length < 64 || bytes.readUInt32BE(0) !== 0x7f454c46 || bytes[4] !== 2 || bytes[5] !== 1) return [];
  const at = Number(bytes.readBigUInt64LE(40)), entry = bytes.readUInt16LE(58), count = bytes.readUInt16LE(60), nameIndex = bytes.readUInt16LE(62);
  if (entry < 64 || at + entry * count > bytes.length) return [];
  const sections = Array.from({ length: count }, (_, i) => at + i * entry).map((header) => ({
    name: bytes.readUInt32LE(header), type: bytes.readUInt32LE(header + 4), link: bytes.readUInt32LE(header + 40),
    offset: Number(bytes.readBigUInt64LE(header + 24)), size: Number(bytes.readBigUInt64LE(header + 32)),
  }));
  const text = (table: number, offset: number): string => {
    const strings = sections[table];
    if (strings === undefined) return '';
    const start = strings.offset + offset, end = bytes.indexOf(0, start);
    return start < bytes.length && end >= 0 ? bytes.toString('latin1', start, end) : '';
  };
  const symbols: FunctionSymbol[] = [];
  for (const table of sections.filter(({ type }) => type === SHT_SYMTAB)) {
    const end = Math.min(table.offset + table.size, bytes.length);
    for (let symbol = table.offset; symbol + 24 <= end; symbol += 24) {
      const home = sections[bytes.readUInt16LE(symbol + 6)];
      if ((bytes.readUInt8(symbol + 4) & 0xf) !== STT_FUNC || home === undefined) continue;
      symbols.push({
        name: text(table.link, bytes.readUInt32LE(symbol)), section: text(nameIndex, home.name),
        value: Number(bytes.readBigUInt64LE(symbol + 8)), size: Number(bytes.readBigUInt64LE(symbol + 16)),
      });
    }
  }
  return symbols;
}

async function placesOf(file: string, section: string, address: number): Promise<SourcePlace[]> {
  const { stdout } = await execa('addr2line', ['-f', '-i', '-e', file, '-j', section, `0x${address.toString(16)}`], { timeout: ADDR2LINE_MS, env: { LC_ALL: 'C' } });
  const lines = stdout.split('\n');
  const places: SourcePlace[] = [];
  for (let i = 0; i + 1 < lines.length; i += 2) {
    const match = /^(.+):(\d+)(?: \(discriminator \d+\))?$/.exec(lines[i + 1] ?? '');
    if (match === null || match[1] === '??' || match[2] === '0') continue;
    places.push({ function: lines[i] ?? '', file: ownPath(match[1] ?? ''), line: Number(match[2]) });
  }
  return places;
}

/** buildModule works on a copy in the cache (src/image/module-build.ts): the path below is the user's own. A kernel header's is that in the kernel. */
export function ownPath(path: string): string {
  return path.replace(/^.*\/(?:modules-[^/]+\/source|usr\/src\/linux-headers-[^/]+)\//, '');
}

/** The kernel's, or an absolute path: not of the module's directory. */
function isHeader(path: string): boolean {
  return path.startsWith('/') || /^(?:arch\/\w+\/)?include\//.test(path);
}
