// The addon's ends: a process or a worker that stops with polls open and memory mapped. Run in children,
// which load the compiled addon themselves: what is asserted is how they end.
import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from '@jest/globals';

const ADDON = fileURLToPath(new URL('../../src/native/build/Release/rootport.node', import.meta.url));

/** Lines that leave a polled eventfd, a polled socket and a mapping behind, and signal the eventfd. */
const LEAVE_OPEN = `
  const addon = require(${JSON.stringify(ADDON)});
  const event = addon.createEventfd();
  const pair = new Int32Array(2);
  addon.socketPair(pair);
  const memory = addon.memfd('left', 1 << 20);
  const view = new Uint8Array(addon.map(memory, 0, 1 << 20));
  let signals = 0;
  if (addon.poll(event, 1, true, () => { signals += 1; }) <= 0) throw new Error('no poll');
  if (addon.poll(pair[0], 1, false, () => undefined) <= 0) throw new Error('no poll');
  addon.signalEventfd(event);
`;

interface Outcome {
  readonly code: number | null;
  readonly signal: string | null;
  readonly stdout: string;
  readonly stderr: string;
}

function run(script: string): Promise<Outcome> {
  return new Promise((resolve) => {
    const child = execFile(process.execPath, ['-e', script], { timeout: 20_000, env: { PATH: process.env['PATH'] } }, (_error, stdout, stderr) => {
      resolve({ code: child.exitCode, signal: child.signalCode, stdout: stdout.trim(), stderr: stderr.trim() });
    });
  });
}

const clean = (stdout: string): Outcome => ({ code: 0, signal: null, stdout, stderr: '' });

describe('a process with polls open and memory mapped', () => {
  test('ends by process.exit, with its exit code', async () => {
    expect(await run(`${LEAVE_OPEN} setTimeout(() => { console.log(signals, view.length); process.exit(7); }, 10);`)).toEqual({ ...clean('1 1048576'), code: 7 });
  });

  test('ends from inside a poll’s callback', async () => {
    expect(await run(`${LEAVE_OPEN}
      addon.poll(pair[1], 1, false, () => process.exit(0));
      addon.send(pair[0], new Uint8Array(1), new Int32Array(0));`)).toEqual(clean(''));
  });

  test('is kept alive by a poll, and ends by itself when the last is stopped', async () => {
    expect(await run(`
      const addon = require(${JSON.stringify(ADDON)});
      const event = addon.createEventfd();
      const id = addon.poll(event, 1, true, (count) => { console.log('count', count); addon.unpoll(id); });
      addon.signalEventfd(event);
      process.on('exit', () => console.log('done'));`)).toEqual(clean('count 1\ndone'));
  });

  test('ends with the error that a callback threw, as an uncaught exception', async () => {
    const outcome = await run(`${LEAVE_OPEN}
      addon.poll(pair[1], 1, false, () => { throw new Error('thrown in a poll'); });
      addon.send(pair[0], new Uint8Array(1), new Int32Array(0));`);
    expect(outcome.code).toBe(1);
    expect(outcome.stderr).toContain('Error: thrown in a poll');
  });
});

describe('a worker with polls open and memory mapped', () => {
  const worker = (body: string, main: string): string => `
    const { Worker } = require('node:worker_threads');
    const worker = new Worker(${JSON.stringify(`const { parentPort } = require('node:worker_threads'); ${LEAVE_OPEN} ${body}`)}, { eval: true });
    const mapped = () => require('node:fs').readFileSync('/proc/self/maps', 'utf8').includes('memfd:left');
    ${main}`;

  test('is terminated cleanly, and its memory is unmapped', async () => {
    const script = worker(`setTimeout(() => parentPort.postMessage(signals), 10);`, `
      worker.on('message', async (signals) => {
        console.log('signals', signals, 'mapped', mapped());
        console.log('exit', await worker.terminate(), 'mapped', mapped());
      });`);
    expect(await run(script)).toEqual(clean('signals 1 mapped true\nexit 1 mapped false'));
  });

  test('is terminated while its callbacks run', async () => {
    const script = worker(`
      const busy = addon.createEventfd();
      addon.poll(busy, 1, true, () => { addon.signalEventfd(busy); });
      addon.signalEventfd(busy);
      parentPort.postMessage('busy');`, `
      worker.on('message', async () => console.log('exit', await worker.terminate()));`);
    expect(await run(script)).toEqual(clean('exit 1'));
  });

  test('ends by process.exit of its own', async () => {
    const script = worker(`setTimeout(() => process.exit(3), 10);`, `worker.on('exit', (code) => console.log('exit', code, 'mapped', mapped()));`);
    expect(await run(script)).toEqual(clean('exit 3 mapped false'));
  });

  test('leaves the main thread’s polls alone', async () => {
    const script = `${LEAVE_OPEN} ${worker(`parentPort.postMessage('up');`, `
      worker.on('message', async () => {
        await worker.terminate();
        const before = signals;
        addon.signalEventfd(event);
        setTimeout(() => { console.log(signals - before, view[0]); process.exit(0); }, 10);
      });`)}`;
    expect(await run(script)).toEqual(clean('1 0'));
  });
});
