// A disk in a file: asynchronous positional I/O straight between the file and guest memory (no copy of
// ours), flush is fdatasync. The file is made, or grown with a hole, to the capacity; never shrunk. A discard
// leaves it as it is: Node has no call to punch a hole.
import { open } from 'node:fs/promises';
import type { FileHandle } from 'node:fs/promises';
import { EnvironmentError } from '../../errors.ts';
import type { DescriptorChain } from '../../virtio/virtqueue.ts';
import type { Storage, Work } from './storage.ts';

/** Most buffers that one preadv or pwritev takes (IOV_MAX of Linux). */
const IOV_MAX = 1024;

const ZEROES = new Uint8Array(64 * 1024);

export interface FileStorageOptions {
  readonly path: string;
  readonly capacityBytes: number;
  readonly readOnly: boolean;
}

export class FileStorage implements Storage {
  capacityBytes: number;
  readonly physicalBlockBytes = 4096;
  readonly #path: string;
  readonly #readOnly: boolean;
  #handle: FileHandle | undefined;

  constructor({ path, capacityBytes, readOnly }: FileStorageOptions) {
    this.capacityBytes = capacityBytes;
    this.#path = path;
    this.#readOnly = readOnly;
  }

  /** Throws EnvironmentError when the file cannot be opened or made. */
  async open(): Promise<void> {
    if (this.#handle !== undefined) return;
    try {
      // 'r+' fails for a file that is not there; 'a+' would append whatever the position.
      const handle = await open(this.#path, this.#readOnly ? 'r' : 'r+').catch(async (error: NodeJS.ErrnoException) => {
        if (error.code === 'ENOENT' && !this.#readOnly) return open(this.#path, 'w+');
        throw error;
      });
      this.#handle = handle;
      if (!this.#readOnly && (await handle.stat()).size < this.capacityBytes) await handle.truncate(this.capacityBytes);
    } catch (cause) {
      await this.close();
      throw new EnvironmentError(`the disk's file ${this.#path} cannot be opened: ${(cause as Error).message}`, {
        cause,
        hint: 'Give a regular file that this user may read and write, or readOnly: true.',
      });
    }
  }

  read(chain: DescriptorChain, positionBytes: number, lengthBytes: number): Work {
    return this.#transfer('readv', chain.writableSpans(0, lengthBytes), positionBytes);
  }

  write(chain: DescriptorChain, offset: number, positionBytes: number, lengthBytes: number): Work {
    return this.#transfer('writev', chain.readableSpans(offset, lengthBytes), positionBytes);
  }

  zero(positionBytes: number, lengthBytes: number): Work {
    const spans: Uint8Array[] = [];
    for (let left = lengthBytes; left > 0; left -= ZEROES.length) spans.push(ZEROES.subarray(0, left));
    return this.#transfer('writev', spans, positionBytes);
  }

  discard(): undefined {}

  /** Smaller, the file stays as long as it is. */
  async resize(capacityBytes: number): Promise<void> {
    if (capacityBytes > this.capacityBytes && this.#handle !== undefined && !this.#readOnly && (await this.#handle.stat()).size < capacityBytes) {
      await this.#handle.truncate(capacityBytes);
    }
    this.capacityBytes = capacityBytes;
  }

  flush(): Work {
    return this.#opened().datasync();
  }

  async close(): Promise<void> {
    const handle = this.#handle;
    this.#handle = undefined;
    await handle?.close();
  }

  #transfer(call: 'readv' | 'writev', spans: Uint8Array[], positionBytes: number): Promise<void> {
    const handle = this.#opened();
    return transferAll(async (some, position) => {
      const done = call === 'readv' ? (await handle.readv(some, position)).bytesRead : (await handle.writev(some, position)).bytesWritten;
      if (done === 0) throw new EnvironmentError(`the disk's file ${this.#path} ends before byte ${position}: was it truncated?`);
      return done;
    }, spans, positionBytes);
  }

  #opened(): FileHandle {
    if (this.#handle === undefined) throw new EnvironmentError(`the disk's file ${this.#path} is not open`);
    return this.#handle;
  }
}

/** Call until every byte of the spans is done: one call may do any number of bytes but none. */
export async function transferAll(
  call: (spans: Uint8Array[], positionBytes: number) => Promise<number>, spans: Uint8Array[], positionBytes: number,
): Promise<void> {
  let position = positionBytes;
  let left = spans;
  while (left.length > 0) {
    const done = await call(left.slice(0, IOV_MAX), position);
    position += done;
    left = rest(left, done);
  }
}

/** What is left of the spans after their first `done` bytes. */
function rest(spans: Uint8Array[], done: number): Uint8Array[] {
  let skip = done;
  let first = 0;
  while (first < spans.length && skip >= spans[first].length) {
    skip -= spans[first].length;
    first += 1;
  }
  const left = spans.slice(first);
  if (skip > 0) left[0] = left[0].subarray(skip);
  return left;
}
