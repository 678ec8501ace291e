// A hex dump as `hexdump -C` prints it, for error messages and reports. Not a parser.

export interface HexDumpOptions {
  /** The address printed for the first byte. */
  readonly baseAddress?: number;
  /** Longest dump, bytes; the rest is counted, not shown. 256 unless told. */
  readonly limitBytes?: number;
}

/** Sixteen bytes a line: address, hex in two groups of eight, printable ASCII. Empty input gives ''. */
export function hexDump(source: Uint8Array, { baseAddress = 0, limitBytes = 256 }: HexDumpOptions = {}): string {
  const lines: string[] = [];
  const shown = Math.min(source.length, limitBytes);
  for (let at = 0; at < shown; at += 16) {
    const row = Array.from(source.subarray(at, Math.min(at + 16, shown)));
    const hex = row.map((byte) => byte.toString(16).padStart(2, '0'));
    const groups = [hex.slice(0, 8).join(' '), hex.slice(8).join(' ')];
    const text = row.map((byte) => (byte >= 0x20 && byte < 0x7f ? String.fromCharCode(byte) : '.')).join('');
    const address = (baseAddress + at).toString(16).padStart(8, '0');
    lines.push(`${address}  ${groups.join('  ').padEnd(48)}  |${text}|`);
  }
  if (shown < source.length) lines.push(`... ${source.length - shown} more bytes`);
  return lines.join('\n');
}
