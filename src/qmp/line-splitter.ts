// Bytes in chunks of any size -> whole lines of UTF-8. Splits at the byte 0x0a before it decodes, so a
// character cut by a chunk's end stays whole. Not here: what the lines mean.
import { ProtocolError } from '../errors.ts';

const LINE_FEED = 0x0a;
/** The longest honest answer (query-qmp-schema) has some 0.3 MB. */
const LINE_BYTES_MAX = 32 * 2 ** 20;

export class LineSplitter {
  #parts: Uint8Array[] = [];
  #partBytes = 0;
  readonly #lineBytesMax: number;

  constructor(lineBytesMax = LINE_BYTES_MAX) {
    this.#lineBytesMax = lineBytesMax;
  }

  /**
   * The lines that this chunk ends, without CR and LF; blank ones are left out.
   * Throws a ProtocolError when a line is longer than the bound: the peer is not speaking lines.
   */
  push(chunk: Uint8Array): string[] {
    const lines: string[] = [];
    let start = 0;
    for (;;) {
      const end = chunk.indexOf(LINE_FEED, start);
      if (end < 0) break;
      const line = this.#take(chunk.subarray(start, end));
      if (line !== '') lines.push(line);
      start = end + 1;
    }
    if (start < chunk.length) {
      this.#parts.push(chunk.subarray(start));
      this.#partBytes += chunk.length - start;
    }
    if (this.#partBytes > this.#lineBytesMax) {
      throw new ProtocolError(`the peer sent ${this.#partBytes} bytes without ending a line`);
    }
    return lines;
  }

  /** What came after the last line end. */
  get rest(): string {
    return Buffer.concat(this.#parts).toString('utf8');
  }

  #take(tail: Uint8Array): string {
    const bytes = this.#parts.length === 0 ? Buffer.from(tail.buffer, tail.byteOffset, tail.byteLength) : Buffer.concat([...this.#parts, tail]);
    this.#parts = [];
    this.#partBytes = 0;
    return bytes.toString('utf8').trim();
  }
}
