// Bytes that came in pieces and are read in others.

export class ByteQueue {
  readonly #pieces: Uint8Array[] = [];
  #length = 0;

  get length(): number {
    return this.#length;
  }

  /** The piece is kept as it is: hand over one that nobody else writes to. */
  push(piece: Uint8Array): void {
    if (piece.length === 0) return;
    this.#pieces.push(piece);
    this.#length += piece.length;
  }

  /** Put back what was taken and not used. */
  unshift(piece: Uint8Array): void {
    if (piece.length === 0) return;
    this.#pieces.unshift(piece);
    this.#length += piece.length;
  }

  /** The first `lengthBytes`, at most `length`. */
  take(lengthBytes: number): Buffer {
    const parts: Uint8Array[] = [];
    for (let left = lengthBytes; left > 0;) {
      const [first] = this.#pieces;
      if (first.length <= left) this.#pieces.shift();
      else this.#pieces[0] = first.subarray(left);
      parts.push(first.subarray(0, left));
      left -= Math.min(left, first.length);
    }
    this.#length -= lengthBytes;
    return Buffer.concat(parts);
  }
}
