// Memory that takes no more than was written to, for BARs of any size.
const PAGE_BYTES = 4096;

export class SparseMemory {
  readonly #pages = new Map<number, Uint8Array>();

  /** What was never written is 0. */
  read(offset: number, into: Uint8Array): void {
    for (const { page, inPage, at, count } of pieces(offset, into.length)) {
      const found = this.#pages.get(page);
      if (found === undefined) into.fill(0, at, at + count);
      else into.set(found.subarray(inPage, inPage + count), at);
    }
  }

  write(offset: number, bytes: Uint8Array): void {
    for (const { page, inPage, at, count } of pieces(offset, bytes.length)) {
      let found = this.#pages.get(page);
      if (found === undefined) this.#pages.set(page, found = new Uint8Array(PAGE_BYTES));
      found.set(bytes.subarray(at, at + count), inPage);
    }
  }
}

/** A range cut at the pages' ends. `at`: where in the range a piece begins. */
function pieces(offset: number, lengthBytes: number): { page: number; inPage: number; at: number; count: number }[] {
  const all = [];
  for (let at = 0; at < lengthBytes;) {
    const inPage = (offset + at) % PAGE_BYTES;
    const count = Math.min(PAGE_BYTES - inPage, lengthBytes - at);
    all.push({ page: Math.floor((offset + at) / PAGE_BYTES), inPage, at, count });
    at += count;
  }
  return all;
}
