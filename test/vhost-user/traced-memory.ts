// Memory whose stores are counted, so that a test can end a back end before any one of them. Typed arrays of the
// code under test are proxies; Atomics, which takes no proxies, is given what is behind them.
import { jest } from '@jest/globals';
import { PlainMemory } from '../virtio/plain-memory.ts';

type Words = Uint8Array | Uint16Array | Uint32Array;

const behind = new WeakMap<object, Words>();

/** The back end has died: thrown out of the middle of what it was doing. */
export class Crash extends Error {}

/** Ends whoever stores after so many stores more; undefined: nobody. */
export const fuse: { left: number | undefined } = { left: undefined };

function store(): void {
  if (fuse.left === undefined) return;
  if (fuse.left === 0) {
    fuse.left = undefined;
    throw new Crash('before a store');
  }
  fuse.left -= 1;
}

function traced<T extends Words>(words: T): T {
  const proxy = new Proxy(words, {
    set(target, key, value: number) {
      store();
      return Reflect.set(target, key, value, target);
    },
    get(target, key) {
      const value: unknown = Reflect.get(target, key, target);
      return typeof value === 'function' ? (value as (...args: unknown[]) => unknown).bind(target) : value;
    },
  });
  behind.set(proxy, words);
  return proxy;
}

/** Views of these bytes, traced. */
export function tracedViews(bytes: Uint8Array): { u8: Uint8Array; u16: Uint16Array; u32: Uint32Array } {
  const { buffer, byteOffset, length } = bytes;
  return { u8: traced(bytes), u16: traced(new Uint16Array(buffer, byteOffset, length / 2)), u32: traced(new Uint32Array(buffer, byteOffset, length / 4)) };
}

/** Guest memory whose rings are traced; what the driver's side does, and payloads, are not. */
export class TracedMemory extends PlainMemory {
  override readonly regions: PlainMemory['regions'];

  constructor(guestAddress: number, sizeBytes: number) {
    super({ guestAddress, sizeBytes });
    const [region] = new PlainMemory({ guestAddress, sizeBytes }).regions;
    const { u16, u32 } = tracedViews(region.u8);
    this.regions = [{ ...region, u16, u32 }];
  }
}

/** Have Atomics see through traced arrays, until jest.restoreAllMocks(). */
export function traceAtomics(): void {
  const { load, store: put, or } = Atomics;
  const plain = (array: unknown): Uint32Array => (behind.get(array as object) ?? array) as Uint32Array;
  jest.spyOn(Atomics, 'load').mockImplementation(((array: Words, index: number) => load(plain(array), index)) as typeof load);
  jest.spyOn(Atomics, 'store').mockImplementation(((array: Words, index: number, value: number) => {
    if (behind.has(array)) store();
    return put(plain(array), index, value);
  }) as typeof put);
  jest.spyOn(Atomics, 'or').mockImplementation(((array: Words, index: number, value: number) => or(plain(array), index, value)) as typeof or);
}
