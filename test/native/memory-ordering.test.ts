// The store-buffer litmus over shared mappings: two threads each store a word of their own, then load the
// other's. That both load an old value loses a virtqueue's wakeup. Atomics on a mapped, non-shared
// ArrayBuffer must forbid it: V8 does so, and the language does not promise it, hence this test.
//
// The sides run free, each counting up in its own word and noting what it saw of the other's. Round i
// of one and round j of the other are a bad pair when neither saw the other: a load before the store
// that it stands behind. No step is waited for, so a busy machine costs rounds, not time.
import { availableParallelism } from 'node:os';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { closeFd, createMemfd, mapFile, unmapFile } from '../../src/native/index.ts';
import { within } from '../../src/wait.ts';

const ADDON = fileURLToPath(new URL('../../src/native/build/Release/rootport.node', import.meta.url));
const MEMORY_BYTES = 4096;
/** Word indices, each in a cache line of its own. */
const FLAGS = [64, 96] as const;
/** Some tens of milliseconds: many time slices of a busy machine, in some of which both sides run. */
const ROUNDS = 3_000_000;

const SIDE = `
  const { parentPort, workerData: { me, fd, sizeBytes, flags, atomic, rounds, seen, gate } } = require('node:worker_threads');
  const u32 = new Uint32Array(require(${JSON.stringify(ADDON)}).map(fd, 0, sizeBytes));
  const mine = flags[me], other = flags[1 - me];
  const throughAtomics = () => { for (let i = 1; i <= rounds; i++) { Atomics.store(u32, mine, i); seen[i] = Atomics.load(u32, other); } };
  const plain = () => { for (let i = 1; i <= rounds; i++) { u32[mine] = i; seen[i] = u32[other]; } };
  if (Atomics.add(gate, 0, 1) === 1) Atomics.notify(gate, 0);
  else Atomics.wait(gate, 0, 1, 2000);
  (atomic ? throughAtomics : plain)();
  parentPort.postMessage('done');
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

/** How often the sides saw each other move, and how many of side 0's rounds have a bad partner. */
async function litmus(atomic: boolean): Promise<{ moves: number; bad: number }> {
  new Uint32Array(memory).fill(0);
  const gate = new Int32Array(new SharedArrayBuffer(4));
  const seen = [0, 1].map(() => new Uint32Array(new SharedArrayBuffer(4 * (ROUNDS + 2))));
  const ends = seen.map((own, me) => new Promise<void>((resolve, reject) => {
    new Worker(SIDE, { eval: true, workerData: { me, fd, sizeBytes: MEMORY_BYTES, flags: FLAGS, atomic, rounds: ROUNDS, seen: own, gate } })
      .once('error', reject).once('exit', () => resolve());
  }));
  await within(Promise.all(ends), { timeoutMs: 10_000, what: 'both sides of the litmus to end' });
  const [first, second] = seen as [Uint32Array, Uint32Array];
  let moves = 0;
  let bad = 0;
  for (let i = 1; i <= ROUNDS; i++) {
    if (first[i] !== first[i - 1]) moves += 1;
    // The first round of the other that this one did not see: what that saw is the least of all of them.
    const j = (first[i] as number) + 1;
    if (j <= ROUNDS && (second[j] as number) < i) bad += 1;
  }
  return { moves, bad };
}

/** Until the sides met often enough to tell, or something bad was seen. */
async function enough(atomic: boolean): Promise<{ moves: number; bad: number }> {
  const sum = { moves: 0, bad: 0 };
  const end = performance.now() + 10_000;
  while (sum.moves < 3000 && sum.bad === 0 && performance.now() < end) {
    const { moves, bad } = await litmus(atomic);
    sum.moves += moves;
    sum.bad += bad;
  }
  return sum;
}

describe('store, then load the other’s word', () => {
  test('through Atomics, no two rounds both see an old value', async () => {
    const { moves, bad } = await enough(true);
    expect(bad).toBe(0);
    if (availableParallelism() > 1) expect(moves).toBeGreaterThan(1000);
  }, 25_000);

  test('through plain loads and stores they do, which shows that this litmus can tell', async () => {
    const { bad } = await enough(false);
    if (availableParallelism() > 1) expect(bad).toBeGreaterThan(0);
    else expect(bad).toBeGreaterThanOrEqual(0);
  }, 25_000);
});
