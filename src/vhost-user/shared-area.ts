// A stretch of a front end's memory file, mapped: the dirty log's and the in-flight area's. mmap wants page
// multiples, the protocol does not: the mapping may begin before the area.
import { fstatSync } from 'node:fs';
import { ProtocolError } from '../errors.ts';
import { MAPPING_SIZE_MAX, mapFile, unmapFile } from '../native/index.ts';

export class SharedArea {
  readonly #mapping: ArrayBuffer;
  readonly u8: Uint8Array;

  /** Map `size` bytes at `offset` of the file; the descriptor stays the caller's. Throws ProtocolError naming `request`. */
  constructor(request: string, fd: number, { size, offset }: { size: bigint; offset: bigint }) {
    if (size === 0n || size > BigInt(MAPPING_SIZE_MAX) || offset + size > BigInt(Number.MAX_SAFE_INTEGER)) {
      throw new ProtocolError(`vhost-user: ${request} of ${size} bytes at ${offset}: 1 byte to 4 GiB below 2^53 is wanted`);
    }
    if (offset % 8n !== 0n) throw new ProtocolError(`vhost-user: ${request} at ${offset}, not a multiple of 8`);
    const start = Number(offset);
    try {
      const lead = start % fstatSync(fd).blksize;
      this.#mapping = mapFile(fd, start - lead, Number(size) + lead);
      this.u8 = new Uint8Array(this.#mapping, lead, Number(size));
    } catch (error) {
      throw new ProtocolError(`vhost-user: ${request} cannot be mapped: ${error instanceof Error ? error.message : String(error)}`, { cause: error });
    }
  }

  /** Every view of it has length 0 afterwards. Once. */
  close(): void {
    unmapFile(this.#mapping);
  }
}
