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
import { ringFeatures } from '../../src/virtio/features.ts';
import { PACKED_BASE } from '../../src/virtio/packed-virtqueue.ts';
import { PackedMockDriver } from '../virtio/packed-mock-driver.ts';
import { EchoDevice } from './echo-device.ts';
import { FrontEnd, GUEST_BASE, MEMORY_BYTES } from './front-end.ts';

const ADDON = fileURLToPath(new URL('../../src/native/build/Release/rootport.node', import.meta.url));

/** Drivers with one request at a time and EVENT_IDX. Of the split one descriptors 0 and 1 are there already. */
const DRIVERS = { split: `
  const { parentPort, workerData: { fd, sizeBytes, avail, used, size, kickFd, rounds } } = require('node:worker_threads');
  const addon = require(${JSON.stringify(ADDON)});
  const u16 = new Uint16Array(addon.map(fd, 0, sizeBytes));
  const availIndex = avail / 2 + 1, usedIndex = used / 2 + 1, availEvent = used / 2 + 2 + 4 * size, usedEvent = avail / 2 + 2 + size;
  let index = 0, kicks = 0, lost = false, left = rounds;
  let turn = 0;
  while (!lost && left-- > 0) {
    // A little later each time, over and over: the device goes idle at some moment of these.
    for (let spin = (turn += 37) % 4001; spin > 0; spin--) Atomics.load(u16, usedIndex);
    u16[avail / 2 + 2 + (index % size)] = 0;
    u16[usedEvent] = (index - 2) & 0xffff; // no interrupts wanted: this driver polls
    const before = index;
    index = (index + 1) & 0xffff;
    Atomics.store(u16, availIndex, index);
    const event = Atomics.load(u16, availEvent);
    if (((index - event - 1) & 0xffff) < ((index - before) & 0xffff)) { kicks++; addon.signalEventfd(kickFd); }
    const patience = performance.now() + 5000;
    while (Atomics.load(u16, usedIndex) !== index) if (performance.now() > patience) { lost = true; break; }
  }
  parentPort.postMessage({ lost, kicks });
`, packed: `
  const { parentPort, workerData: { fd, sizeBytes, desc, driver, device, data, size, kickFd, rounds } } = require('node:worker_threads');
  const addon = require(${JSON.stringify(ADDON)});
  const mapping = addon.map(fd, 0, sizeBytes), u16 = new Uint16Array(mapping), u32 = new Uint32Array(mapping);
  u32[driver / 4] = 1 << 16; // no interrupts wanted: this driver polls
  let index = 0, wrap = true, used = 0, usedWrap = true, kicks = 0, lost = false, turn = 0, left = rounds;
  while (!lost && left-- > 0) {
    const first = index;
    let firstFlags = 0;
    for (const part of [0, 1]) {
      u32[desc / 4 + 4 * index] = data + 16 * part;
      u32[desc / 4 + 4 * index + 1] = 0;
      u32[desc / 4 + 4 * index + 2] = 4;
      u16[desc / 2 + 8 * index + 6] = 1;
      const flags = (part === 0 ? 1 : 2) | (wrap ? 1 << 7 : 1 << 15);
      if (part === 0) firstFlags = flags; else u16[desc / 2 + 8 * index + 7] = flags;
      if (++index === size) { index = 0; wrap = !wrap; }
    }
    for (let spin = (turn += 37) % 4001; spin > 0; spin--) Atomics.load(u32, device / 4);
    Atomics.store(u16, desc / 2 + 8 * first + 7, firstFlags);
    const wish = Atomics.load(u32, device / 4), flags = wish >>> 16;
    const event = (wish & 0x7fff) - (((wish >> 15 & 1) === 1) === wrap ? 0 : size);
    if (flags === 0 || (flags === 2 && event >= index - 2 && event < index)) { kicks++; addon.signalEventfd(kickFd); }
    const patience = performance.now() + 5000, bits = usedWrap ? 0x8080 : 0;
    while ((Atomics.load(u16, desc / 2 + 8 * used + 7) & 0x8080) !== bits) if (performance.now() > patience) { lost = true; break; }
    used += 2;
    if (used >= size) { used -= size; usedWrap = !usedWrap; }
  }
  parentPort.postMessage({ lost, kicks });
` };

/** So many, whatever they take: on a busy host the two threads wait for each other's turn. */
const ROUNDS = 2000;

let directory = '';
let device: EchoDevice;
let backend: VhostUserBackend;
let frontEnd: FrontEnd;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'vhost-'));
  device = new EchoDevice();
  backend = VhostUserBackend.listen({ path: join(directory, 's'), device });
  frontEnd = new FrontEnd(backend.path);
});
afterEach(async () => {
  frontEnd.close();
  await backend.close();
  rmSync(directory, { recursive: true });
});

/** Run the driver in a worker against the ring that was started; whether it was ever left waiting. */
async function drive(source: string, workerData: Record<string, number>): Promise<{ lost: boolean; kicks: number }> {
  const worker = new Worker(source, { eval: true, workerData: { fd: frontEnd.memory.fd, sizeBytes: MEMORY_BYTES, rounds: ROUNDS, ...workerData } });
  const end = new Promise<{ lost: boolean; kicks: number }>((resolve, reject) => worker.once('message', resolve).once('error', reject));
  const result = await within(end, { timeoutMs: 40_000, what: 'the driver to end' });
  await worker.terminate();
  return result;
}

function expectServed({ lost, kicks }: { lost: boolean; kicks: number }): void {
  expect(lost).toBe(false);
  expect(backend.queue(0)?.broken).toBeUndefined();
  expect(backend.queue(0)?.counts.completed).toBe(ROUNDS);
  expect(kicks).toBeGreaterThan(50);
  expect(backend.queue(0)?.counts.notified).toBe(0);
}

test('a driver of a split ring that submits while the device goes idle is always served', async () => {
  const ring = await frontEnd.start({ eventIdx: true });
  const data = GUEST_BASE + 0x80000;
  ring.driver.descriptor(0, { addr: data, len: 4, flags: 1, next: 1 });
  ring.driver.descriptor(1, { addr: data + 16, len: 4, flags: 2 });
  const { avail, used, size } = ring.driver;
  expectServed(await drive(DRIVERS.split, { avail: avail - GUEST_BASE, used: used - GUEST_BASE, size, kickFd: ring.kickFd }));
}, 60_000);

test('a driver of a packed ring that submits while the device goes idle is always served', async () => {
  const driver = new PackedMockDriver({ memory: frontEnd.memory, base: GUEST_BASE, eventIdx: true, size: 7 });
  device.ringFeatures = ringFeatures({ packed: true });
  await frontEnd.negotiate(driver.features);
  await frontEnd.shareMemory();
  const ring = frontEnd.prepareDriver(0, driver, PACKED_BASE);
  await frontEnd.startRing(ring);
  const at = { desc: driver.desc - GUEST_BASE, driver: driver.driverArea - GUEST_BASE, device: driver.deviceArea - GUEST_BASE };
  expectServed(await drive(DRIVERS.packed, { ...at, data: GUEST_BASE + 0x80000, size: 7, kickFd: ring.kickFd }));
}, 60_000);
