// No wakeup is lost between a driver that kicks only when asked and a device that asks only when idle:
// the real session and ring in this thread, a driver in a worker that submits the next request in the
// very moment the last one was used, which is when the device goes idle.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { VhostUserBackend } from '../../src/vhost-user/index.ts';
import { within } from '../../src/wait.ts';
import { EchoDevice } from './echo-device.ts';
import { FrontEnd, GUEST_BASE, MEMORY_BYTES } from './front-end.ts';

const ADDON = fileURLToPath(new URL('../../src/native/build/Release/rootport.node', import.meta.url));

/** A driver with one request at a time and EVENT_IDX. Descriptors 0 and 1 are there already. */
const DRIVER = `
  const { parentPort, workerData: { fd, sizeBytes, avail, used, size, kickFd, timeMs } } = require('node:worker_threads');
  const addon = require(${JSON.stringify(ADDON)});
  const u16 = new Uint16Array(addon.map(fd, 0, sizeBytes));
  const availIndex = avail / 2 + 1, usedIndex = used / 2 + 1, availEvent = used / 2 + 2 + 4 * size, usedEvent = avail / 2 + 2 + size;
  const end = performance.now() + timeMs;
  let index = 0, kicks = 0, lost = false;
  while (!lost && performance.now() < end) {
    u16[avail / 2 + 2 + (index % size)] = 0;
    u16[usedEvent] = (index - 2) & 0xffff; // no interrupts wanted: this driver polls
    const before = index;
    index = (index + 1) & 0xffff;
    Atomics.store(u16, availIndex, index);
    const event = Atomics.load(u16, availEvent);
    if (((index - event - 1) & 0xffff) < ((index - before) & 0xffff)) { kicks++; addon.signalEventfd(kickFd); }
    const patience = performance.now() + 1500;
    while (Atomics.load(u16, usedIndex) !== index) if (performance.now() > patience) { lost = true; break; }
  }
  parentPort.postMessage({ lost, kicks });
`;

let directory = '';
let backend: VhostUserBackend;
let frontEnd: FrontEnd;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'vhost-'));
  backend = VhostUserBackend.listen({ path: join(directory, 's'), device: new EchoDevice() });
  frontEnd = new FrontEnd(backend.path);
});
afterEach(async () => {
  frontEnd.close();
  await backend.close();
  rmSync(directory, { recursive: true });
});

test('a driver that submits while the device goes idle is always served', async () => {
  const ring = await frontEnd.start({ eventIdx: true });
  const data = GUEST_BASE + 0x80000;
  ring.driver.descriptor(0, { addr: data, len: 4, flags: 1, next: 1 });
  ring.driver.descriptor(1, { addr: data + 16, len: 4, flags: 2 });
  const { avail, used, size } = ring.driver;
  const worker = new Worker(DRIVER, {
    eval: true,
    workerData: { fd: frontEnd.memory.fd, sizeBytes: MEMORY_BYTES, avail: avail - GUEST_BASE, used: used - GUEST_BASE, size, kickFd: ring.kickFd, timeMs: 400 },
  });
  const end = new Promise<{ lost: boolean; kicks: number }>((resolve, reject) => worker.once('message', resolve).once('error', reject));
  const { lost, kicks } = await within(end, { timeoutMs: 4000, what: 'the driver to end' });
  await worker.terminate();
  const completed = backend.queue(0)?.counts.completed ?? 0;
  expect(lost).toBe(false);
  expect(completed).toBeGreaterThan(100);
  expect(kicks).toBeGreaterThan(50);
  expect(backend.queue(0)?.counts.notified).toBe(0);
});
