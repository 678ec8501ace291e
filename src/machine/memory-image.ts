// A guest's memory in a file: the pieces that are not all zero, one after the other, and where they belong. Packed
// and not sparse, so that its size vouches for it and no copy of it fills the holes.
import { open, type FileHandle } from 'node:fs/promises';
import { ProtocolError } from '../errors.ts';

/** A piece that is not all zero: where in the memory, and how long, bytes. */
export type Extent = readonly [position: number, length: number];

/** Small enough to find the holes, large enough for few system calls. */
const PIECE_BYTES = 64 * 1024;
/** No extent is longer. */
const BUFFER_BYTES = 4 * 2 ** 20;

export class MemoryImage {
  readonly #file: FileHandle;
  readonly #extents: readonly Extent[];

  private constructor(file: FileHandle, extents: readonly Extent[]) {
    this.#file = file;
    this.#extents = extents;
  }

  /** Copy `source`, which nobody writes any more, into a new file at `path`. */
  static async save(source: string, path: string): Promise<Extent[]> {
    const extents: Extent[] = [];
    const from = await open(source, 'r');
    const to = await open(path, 'wx', 0o600);
    try {
      const buffer = Buffer.allocUnsafe(BUFFER_BYTES), zeros = Buffer.alloc(PIECE_BYTES);
      for (let position = 0, written = 0; ;) {
        const { bytesRead } = await from.read(buffer, 0, BUFFER_BYTES, position);
        if (bytesRead === 0) break;
        for (const [start, length] of filled(buffer.subarray(0, bytesRead), zeros)) {
          await writeWhole(to, buffer, start, length, written);
          extents.push([position + start, length]);
          written += length;
        }
        position += bytesRead;
      }
    } finally {
      await from.close();
      await to.close();
    }
    return extents;
  }

  /**
   * @param memoryBytes the guest's memory
   * @throws ProtocolError when file and extents do not belong together
   */
  static async open(path: string, extents: readonly Extent[], memoryBytes: number): Promise<MemoryImage> {
    let end = 0;
    for (const [position, length] of extents) {
      if (position < end || length <= 0 || length > BUFFER_BYTES || position + length > memoryBytes) {
        throw new ProtocolError(`the saved memory has a piece of ${length} bytes at ${position}, which cannot be`);
      }
      end = position + length;
    }
    const file = await open(path, 'r');
    const image = new MemoryImage(file, extents);
    const { size } = await file.stat();
    if (size === image.usedBytes) return image;
    await file.close();
    throw new ProtocolError(`the saved memory has ${size} bytes and should have ${image.usedBytes}`);
  }

  /** What the file holds. */
  get usedBytes(): number {
    return this.#extents.reduce((sum, [, length]) => sum + length, 0);
  }

  /** Write it to an empty memory file. */
  async load(fd: number): Promise<void> {
    // Through its path: a second FileHandle of the number would close it.
    const to = await open(`/proc/self/fd/${fd}`, 'r+');
    try {
      const buffer = Buffer.allocUnsafe(BUFFER_BYTES);
      let from = 0;
      for (const batch of batches(this.#extents)) {
        const length = batch.reduce((sum, [, one]) => sum + one, 0);
        const { bytesRead } = await this.#file.read(buffer, 0, length, from);
        if (bytesRead !== length) throw new ProtocolError(`the saved memory ends after ${from + bytesRead} bytes`);
        let at = 0;
        await Promise.all(batch.map(([position, one]) => {
          const start = at;
          at += one;
          return writeWhole(to, buffer, start, one, position);
        }));
        from += length;
      }
    } finally {
      await to.close();
    }
  }

  close(): Promise<void> {
    return this.#file.close();
  }
}

/** All of it: write(2) may take less, of a disk that fills up. */
async function writeWhole(to: FileHandle, buffer: Buffer, start: number, length: number, position: number): Promise<void> {
  for (let done = 0; done < length;) {
    done += (await to.write(buffer, start + done, length - done, position + done)).bytesWritten;
  }
}

/** As many extents at a time as the buffer holds. */
function* batches(extents: readonly Extent[]): Generator<Extent[]> {
  let batch: Extent[] = [], bytes = 0;
  for (const extent of extents) {
    if (bytes + extent[1] > BUFFER_BYTES) {
      yield batch;
      batch = [];
      bytes = 0;
    }
    batch.push(extent);
    bytes += extent[1];
  }
  if (batch.length > 0) yield batch;
}

/** Runs of pieces of `bytes` that are not all zero. */
function filled(bytes: Buffer, zeros: Buffer): Extent[] {
  const runs: [position: number, length: number][] = [];
  for (let position = 0; position < bytes.length; position += PIECE_BYTES) {
    const piece = bytes.subarray(position, position + PIECE_BYTES);
    if (piece.equals(zeros.subarray(0, piece.length))) continue;
    const last = runs.at(-1);
    if (last !== undefined && last[0] + last[1] === position) last[1] += piece.length;
    else runs.push([position, piece.length]);
  }
  return runs;
}
