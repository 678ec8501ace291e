// lspci's hex dump: written as `lspci -x`, `-xxx` and `-xxxx` do, and read as `lspci -F` does.
// Source: pciutils, lspci(8). Text between the lines of a dump is passed over.
import { ConfigImage } from '../config-image.ts';
import { CONFIG_BYTES, CONFIG_HEADER_BYTES, EXTENDED_CONFIG_BYTES } from '../config-space.ts';
import { type LspciFunction, parseAddress } from './function.ts';
import { hex } from './text.ts';

/** The bytes that `-x` (1) to `-xxxx` (4) shows of a config space that has so many. */
export function dumpedBytes(level: number, sizeBytes: number): number {
  const wanted = level >= 4 ? EXTENDED_CONFIG_BYTES : level === 3 ? CONFIG_BYTES : CONFIG_HEADER_BYTES;
  const there = [EXTENDED_CONFIG_BYTES, CONFIG_BYTES, CONFIG_HEADER_BYTES].find((size) => size <= sizeBytes) ?? 0;
  return Math.min(wanted, there);
}

/** `00: f4 1a ...`, sixteen bytes a line, and no line after them. */
export function formatDump(bytes: Uint8Array): string {
  let text = '';
  for (let at = 0; at < bytes.length; at += 16) {
    text += `${hex(at, 2)}: ${Array.from(bytes.subarray(at, at + 16), (byte) => hex(byte, 2)).join(' ')}\n`;
  }
  return text;
}

/** The functions of a dump, in its order. Bytes that a dump leaves out read ones. */
export function parseDump(text: string): LspciFunction[] {
  const found: { address: NonNullable<ReturnType<typeof parseAddress>>; bytes: Uint8Array; end: number }[] = [];
  for (const line of text.split(/\r?\n/)) {
    const address = parseAddress(/^([0-9a-f:]+\.[0-7])(?= |$)/i.exec(line)?.[1] ?? '');
    if (address !== undefined) {
      found.push({ address, bytes: new Uint8Array(EXTENDED_CONFIG_BYTES).fill(0xff), end: 0 });
      continue;
    }
    const row = /^([0-9a-f]{2,3}):((?: [0-9a-f]{2}){1,16})\s*$/i.exec(line);
    const current = found.at(-1);
    if (row === null || current === undefined) continue;
    const at = Number.parseInt(row[1] ?? '', 16);
    const bytes = (row[2] ?? '').trim().split(' ').map((byte) => Number.parseInt(byte, 16));
    if (at + bytes.length > EXTENDED_CONFIG_BYTES) continue;
    current.bytes.set(bytes, at);
    current.end = Math.max(current.end, at + bytes.length);
  }
  return found.map(({ address, bytes, end }) => ({ address, config: new ConfigImage(bytes.subarray(0, end)) }));
}
