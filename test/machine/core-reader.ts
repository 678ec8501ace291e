// An ELF core of a guest as a debugger would read it: its notes, and its memory by physical address. ELF-64 (gABI,
// chapter 5), as QEMU writes it with `paging: false` (dump/dump.c). For tests.
import { readFileSync } from 'node:fs';

const PT_LOAD = 1, PT_NOTE = 4;

export interface CoreNote {
  readonly name: string;
  readonly type: number;
  readonly sizeBytes: number;
}

export interface Core {
  readonly notes: readonly CoreNote[];
  /** Bytes at a physical address. Throws where there is no memory. */
  at(address: number, sizeBytes: number): Buffer;
}

export function readCore(path: string): Core {
  const bytes = readFileSync(path);
  if (bytes.toString('latin1', 0, 4) !== '\x7fELF' || bytes[4] !== 2 || bytes.readUInt16LE(16) !== 4) throw new Error(`${path} is no ELF-64 core`);
  const [table, size, count] = [Number(bytes.readBigUInt64LE(32)), bytes.readUInt16LE(54), bytes.readUInt16LE(56)];
  const segments = Array.from({ length: count }, (_, index) => table + index * size).map((head) => ({
    type: bytes.readUInt32LE(head), offset: Number(bytes.readBigUInt64LE(head + 8)), physical: Number(bytes.readBigUInt64LE(head + 24)), sizeBytes: Number(bytes.readBigUInt64LE(head + 32)),
  }));
  return {
    notes: segments.filter(({ type }) => type === PT_NOTE).flatMap(({ offset, sizeBytes }) => notesIn(bytes.subarray(offset, offset + sizeBytes))),
    at(address, sizeBytes) {
      const home = segments.find(({ type, physical, sizeBytes: whole }) => type === PT_LOAD && address >= physical && address + sizeBytes <= physical + whole);
      if (home === undefined) throw new Error(`the core has no memory at 0x${address.toString(16)}`);
      const start = home.offset + address - home.physical;
      return bytes.subarray(start, start + sizeBytes);
    },
  };
}

function notesIn(bytes: Buffer): CoreNote[] {
  const notes: CoreNote[] = [];
  const aligned = (length: number): number => (length + 3) & ~3;
  for (let at = 0; at + 12 <= bytes.length;) {
    const [nameBytes, sizeBytes, type] = [bytes.readUInt32LE(at), bytes.readUInt32LE(at + 4), bytes.readUInt32LE(at + 8)];
    notes.push({ name: bytes.toString('latin1', at + 12, at + 12 + Math.max(0, nameBytes - 1)), type, sizeBytes });
    at += 12 + aligned(nameBytes) + aligned(sizeBytes);
  }
  return notes;
}
