// The store-buffer litmus over shared mappings: two threads each store a word of their own, then load the
// other's. That both load the old value loses a virtqueue's wakeup. Atomics on a mapped, non-shared
// ArrayBuffer must forbid it: V8 does so, and the language does not promise it, hence this test.
import { availableParallelism } from 'node:os';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { closeFd, createMemfd, mapFile, unmapFile } from '../../src/native/index.ts';
import { within } from '../../src/wait.ts';

const ADDON = fileURLToPath(new URL('../../src/native/build/Release/rootport.node', import.meta.url));
const MEMORY_BYTES = 4096;
/** Word indices, each in a cache line of its own; side 0 and side 1. */
const WORD = { turn: [0, 32], flag: [64, 96], seen: [128, 160], bad: 192, rounds: 224 } as const;

/**
 * One side. Rounds are kept in step by `turn`; odd and even rounds use opposite flag values, so that
 * nothing has to be cleared. Side 0 judges the round before both go on.
 */
const SIDE = `
  const { workerData } = require('node:worker_threads');
  const { me, fd, sizeBytes, word, atomic, timeMs, rounds } = workerData;
  const u32 = new Uint32Array(require(${JSON.stringify(ADDON)}).map(fd, 0, sizeBytes));
  const other = 1 - me;
  const [myTurn, itsTurn, myFlag, itsFlag, mySeen] = [word.turn[me], word.turn[other], word.flag[me], word.flag[other], word.seen[me]];
  const meet = (step) => {
    Atomics.store(u32, myTurn, step);
    while (Atomics.load(u32, itsTurn) < step) if (performance.now() > giveUp) throw new Error('the other side is gone');
  };
  const throughAtomics = (value) => { Atomics.store(u32, myFlag, value); return Atomics.load(u32, itsFlag); };
  const plain = (value) => { u32[myFlag] = value; return u32[itsFlag]; };
  const exchange = atomic ? throughAtomics : plain;
  const end = performance.now() + timeMs;
  const giveUp = end + 10000;
  let bad = 0;
  let round = 1;
  for (; round <= rounds; round++) {
    meet(2 * round);
    Atomics.store(u32, mySeen, exchange(round));
    meet(2 * round + 1);
    // Seen less than this round's value: the old one.
    if (Atomics.load(u32, word.seen[0]) < round && Atomics.load(u32, word.seen[1]) < round) bad++;
    // Time is up: the other side may be in the next round already, so that is the last one.
    if (me === 0 && Atomics.load(u32, word.rounds) === 0 && performance.now() > end) Atomics.store(u32, word.rounds, round + 1);
    const last = Atomics.load(u32, word.rounds);
    if (last !== 0 && round >= last) break;
  }
  if (me === 0) { u32[word.bad] = bad; }
`;

let fd = -1;
let memory: ArrayBuffer;
beforeEach(() => {
  fd = createMemfd('litmus', MEMORY_BYTES);
  memory = mapFile(fd, 0, MEMORY_BYTES);
});
afterEach(() => {
  unmapFile(memory);
  closeFd(fd);
});

async function litmus(options: { atomic: boolean; rounds: number; timeMs: number }): Promise<number> {
  const sides = [0, 1].map((me) => new Worker(SIDE, { eval: true, workerData: { me, fd, sizeBytes: MEMORY_BYTES, word: WORD, ...options } }));
  const ends = sides.map((worker) => new Promise<void>((resolve, reject) => worker.once('error', reject).once('exit', () => resolve())));
  await within(Promise.all(ends), { timeoutMs: 15_000, what: 'both sides of the litmus to end' });
  return new Uint32Array(memory)[WORD.bad] as number;
}

describe('store, then load the other’s word', () => {
  test('through Atomics, no round has both sides see the old value', async () => {
    expect(await litmus({ atomic: true, rounds: 200_000, timeMs: 700 })).toBe(0);
    // Both went through a good number of rounds: the machine may be busy, but not that busy.
    expect(new Uint32Array(memory)[WORD.turn[1]]).toBeGreaterThan(2_000);
  });

  test('through plain loads and stores they do, which shows that this litmus can tell', async () => {
    const bad = await litmus({ atomic: false, rounds: 200_000, timeMs: 700 });
    if (availableParallelism() > 1) expect(bad).toBeGreaterThan(0);
    else expect(bad).toBeGreaterThanOrEqual(0);
  });
});
