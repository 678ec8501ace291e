// A guest's memory in a file: pieces that are all zero are holes, and are not read back.
import { open } from 'node:fs/promises';

/** A piece that is not all zero, bytes. */
interface Extent {
  readonly position: number;
  readonly length: number;
}

/** Small enough to find the holes, large enough for few system calls. */
const PIECE_BYTES = 64 * 1024;
const BUFFER_BYTES = 4 * 2 ** 20;

export class MemoryImage {
  readonly #path: string;
  readonly #extents: readonly Extent[];

  private constructor(path: string, extents: readonly Extent[]) {
    this.#path = path;
    this.#extents = extents;
  }

  /** What the file holds beside holes. */
  get usedBytes(): number {
    return this.#extents.reduce((sum, { length }) => sum + length, 0);
  }

  /** Copy `source`, which nobody writes any more, into a file at `path`. */
  static async save(source: string, path: string): Promise<MemoryImage> {
    const extents: Extent[] = [];
    const from = await open(source, 'r');
    const to = await open(path, 'w', 0o600);
    try {
      const buffer = Buffer.allocUnsafe(BUFFER_BYTES), zeros = Buffer.alloc(PIECE_BYTES);
      for (let position = 0; ;) {
        const { bytesRead } = await from.read(buffer, 0, BUFFER_BYTES, position);
        if (bytesRead === 0) break;
        for (const { position: start, length } of filled(buffer.subarray(0, bytesRead), zeros)) {
          await to.write(buffer, start, length, position + start);
          extents.push({ position: position + start, length });
        }
        position += bytesRead;
      }
    } finally {
      await from.close();
      await to.close();
    }
    return new MemoryImage(path, extents);
  }

  /** Write it to an empty memory file. */
  async load(fd: number): Promise<void> {
    const from = await open(this.#path, 'r');
    // Through its path: a second FileHandle of the number would close it.
    const to = await open(`/proc/self/fd/${fd}`, 'r+');
    try {
      const buffer = Buffer.allocUnsafe(BUFFER_BYTES);
      for (const { position, length } of this.#extents) {
        await from.read(buffer, 0, length, position);
        await to.write(buffer, 0, length, position);
      }
    } finally {
      await from.close();
      await to.close();
    }
  }
}

/** Runs of pieces of `bytes` that are not all zero. */
function filled(bytes: Buffer, zeros: Buffer): Extent[] {
  const runs: { position: number; length: number }[] = [];
  for (let position = 0; position < bytes.length; position += PIECE_BYTES) {
    const piece = bytes.subarray(position, position + PIECE_BYTES);
    if (piece.equals(zeros.subarray(0, piece.length))) continue;
    const last = runs.at(-1);
    if (last !== undefined && last.position + last.length === position) last.length += piece.length;
    else runs.push({ position, length: piece.length });
  }
  return runs;
}
