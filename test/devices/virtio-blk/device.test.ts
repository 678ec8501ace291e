// The block device's requests, over both storage back ends; the file is a real one.
import { mkdtemp, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { VirtioBlkDevice } from '../../../src/devices/virtio-blk/device.ts';
import { FileStorage } from '../../../src/devices/virtio-blk/file-storage.ts';
import { blkConfig } from '../../../src/devices/virtio-blk/layout.ts';
import { MemoryStorage } from '../../../src/devices/virtio-blk/memory-storage.ts';
import { BLK_FAULTS } from '../../../src/devices/virtio-blk/request.ts';
import type { Storage } from '../../../src/devices/virtio-blk/storage.ts';
import { ProtocolError } from '../../../src/errors.ts';
import { PlainMemory } from '../../virtio/plain-memory.ts';
import { BlkDriver } from './blk-driver.ts';

const [IN, OUT, FLUSH, GET_ID, DISCARD, WRITE_ZEROES, SECURE_ERASE] = [0, 1, 4, 8, 11, 13, 14];
const [OK, IOERR, UNSUPP] = [0, 1, 2];
const SECTORS = 64;
const CAPACITY = SECTORS * 512;

let directory: string;
let file: string;
let logged: string[];
let storage: Storage;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'virtio-blk-'));
  file = join(directory, 'disk');
  logged = [];
});
afterEach(async () => {
  await storage.close();
  await rm(directory, { recursive: true });
});

interface Making {
  readonly kind: 'memory' | 'file';
  readonly readOnly?: boolean;
  readonly queueCount?: number;
}

async function make({ kind, readOnly = false, queueCount = 1 }: Making): Promise<VirtioBlkDevice> {
  storage = kind === 'memory' ? new MemoryStorage(CAPACITY) : new FileStorage({ path: file, capacityBytes: CAPACITY, readOnly });
  await storage.open();
  const device = new VirtioBlkDevice({ storage, queueCount, queueSizeMax: 128, readOnly, serial: 'RP0001', log: (line) => logged.push(line) });
  device.negotiated(device.features);
  return device;
}

async function content(): Promise<Buffer> {
  return storage instanceof MemoryStorage ? storage.bytes : readFile(file);
}

const filled = (length: number, byte: number): Uint8Array => new Uint8Array(length).fill(byte);

describe.each(['memory', 'file'] as const)('a disk in %s', (kind) => {
  test('gives back what was written, whatever the buffers', async () => {
    const driver = new BlkDriver(await make({ kind }));
    await fc.assert(fc.asyncProperty(
      fc.integer({ min: 0, max: SECTORS - 8 }),
      fc.integer({ min: 1, max: 8 }),
      fc.array(fc.integer({ min: 1, max: 900 }), { maxLength: 6 }),
      fc.array(fc.integer({ min: 1, max: 900 }), { maxLength: 6 }),
      fc.boolean(),
      async (sector, sectors, outCuts, inCuts, indirect) => {
        const data = Buffer.from(Array.from({ length: sectors * 512 }, (_, i) => (i * 31 + sector) & 0xff));
        const wrote = await driver.request({ type: OUT, sector: BigInt(sector), out: cut(data.length, outCuts).map(([a, b]) => data.subarray(a, b)) }, indirect);
        expect(wrote).toMatchObject({ status: OK, usedBytes: 1 });
        const read = await driver.request({ type: IN, sector: BigInt(sector), into: cut(data.length, inCuts).map(([a, b]) => b - a) }, indirect);
        expect(read).toMatchObject({ status: OK, usedBytes: data.length + 1 });
        expect(read.data.equals(data)).toBe(true);
      },
    ), { numRuns: 40 });
    expect(driver.ring.failures).toEqual([]);
    expect(driver.ring.memory.guardsIntact()).toBe(true);
  });

  test('has the bytes where the sectors say', async () => {
    const driver = new BlkDriver(await make({ kind }));
    await driver.request({ type: OUT, sector: 3n, out: [filled(1024, 0x77)] });
    await driver.request({ type: FLUSH });
    const bytes = await content();
    expect(bytes.length).toBe(CAPACITY);
    expect([bytes[3 * 512 - 1], bytes[3 * 512], bytes[5 * 512 - 1], bytes[5 * 512]]).toEqual([0, 0x77, 0x77, 0]);
  });

  test('reads a buffer that lies in two regions of memory', async () => {
    const device = await make({ kind });
    const memory = new PlainMemory({ guestAddress: 0x10000, sizeBytes: 0x1400 }, { guestAddress: 0x11400, sizeBytes: 0x8000 });
    const driver = new BlkDriver(device, 0, { memory });
    const data = Buffer.from(Array.from({ length: 4096 }, (_, i) => i % 251));
    await driver.request({ type: OUT, sector: 1n, out: [data] });
    expect((await driver.request({ type: IN, sector: 1n, into: [4096] })).data.equals(data)).toBe(true);
    expect(driver.ring.arena).toBeLessThan(0x11400);
  });

  test('takes the last sector, and refuses what reaches past it', async () => {
    const device = await make({ kind });
    const driver = new BlkDriver(device);
    const last = BigInt(SECTORS - 1);
    expect(await driver.request({ type: OUT, sector: last, out: [filled(512, 1)] })).toMatchObject({ status: OK });
    for (const [sector, bytes] of [[last, 1024], [last + 1n, 512], [2n ** 55n, 512], [2n ** 64n - 1n, 512], [2n ** 64n - 1n, 1024]] as const) {
      expect(await driver.request({ type: IN, sector, into: [bytes] })).toMatchObject({ status: IOERR, usedBytes: 0 });
      expect(await driver.request({ type: OUT, sector, out: [filled(bytes, 2)] })).toMatchObject({ status: IOERR, usedBytes: 1 });
    }
    expect(new Set(device.refused.map(({ fault }) => fault))).toEqual(new Set(['sector-out-of-range']));
    expect(device.refused.at(-1)).toEqual({ queue: 0, fault: 'sector-out-of-range', request: `VIRTIO_BLK_T_OUT, sector ${2n ** 64n - 1n}, 1024 bytes` });
    expect((await content()).length).toBe(CAPACITY);
  });

  test('finishes each queue\'s requests before its drain resolves', async () => {
    const device = await make({ kind, queueCount: 2 });
    const drivers = [new BlkDriver(device, 0), new BlkDriver(device, 1)];
    const answers = drivers.flatMap((driver, queue) =>
      Array.from({ length: 8 }, (_, i) => driver.request({ type: OUT, sector: BigInt(queue * 8 + i), out: [filled(512, i + 1)] })));
    await Promise.all(drivers.map((driver) => driver.drain()));
    expect(drivers.map(({ queue }) => queue.counts)).toMatchObject([{ taken: 8, completed: 8, inFlight: 0 }, { taken: 8, completed: 8, inFlight: 0 }]);
    expect((await Promise.all(answers)).every(({ status }) => status === OK)).toBe(true);
    const bytes = await content();
    expect(Array.from({ length: 16 }, (_, i) => bytes[i * 512])).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4, 5, 6, 7, 8]);
  });

  test('that is read-only reads, and refuses each write', async () => {
    await writeFile(file, filled(CAPACITY, 0x11));
    const device = await make({ kind, readOnly: true });
    expect(device.features & (1n << 5n)).not.toBe(0n);
    const driver = new BlkDriver(device);
    expect(await driver.request({ type: OUT, sector: 0n, out: [filled(512, 9)] })).toMatchObject({ status: IOERR });
    expect(await driver.request({ type: IN, sector: 0n, into: [512] })).toMatchObject({ status: OK });
    expect(device.refused.map(({ fault }) => fault)).toEqual(['write-to-read-only']);
    expect((await content())[0]).toBe(kind === 'file' ? 0x11 : 0);
  });
});

describe('a request', () => {
  test('for the id gives the serial, padded with zeroes to 20 bytes', async () => {
    const driver = new BlkDriver(await make({ kind: 'memory' }));
    const { status, data, usedBytes } = await driver.request({ type: GET_ID, into: [20] });
    expect({ status, usedBytes, id: data.toString('latin1') }).toEqual({ status: OK, usedBytes: 21, id: `RP0001${'\0'.repeat(14)}` });
    expect((await driver.request({ type: GET_ID, into: [2, 2] })).data.toString()).toBe('RP00');
  });

  test.each([
    { name: 'discard', type: DISCARD, out: [filled(16, 0)] },
    { name: 'write-zeroes', type: WRITE_ZEROES, out: [filled(16, 0)] },
    { name: 'secure-erase', type: SECURE_ERASE, out: [filled(16, 0)] },
    { name: 'get-lifetime', type: 10, into: [64] },
    { name: 'a type unknown to all', type: 0xdeadbeef, into: [512] },
    { name: 'the legacy flush-out', type: 5 },
  ])('of $name is unsupported', async ({ type, out, into }) => {
    const device = await make({ kind: 'memory' });
    const answer = await new BlkDriver(device).request({ type, ...(out && { out }), ...(into && { into }) });
    expect(answer.status).toBe(UNSUPP);
    expect(device.refused.map(({ fault }) => fault)).toEqual(['unsupported-type']);
  });

  test.each([
    { name: 'a read of 511 bytes', request: { type: IN, into: [511] }, fault: 'data-not-whole-sectors' },
    { name: 'a write of 513 bytes', request: { type: OUT, out: [filled(513, 1)] }, fault: 'data-not-whole-sectors' },
    { name: 'a read with data to be written', request: { type: IN, out: [filled(512, 1)], into: [512] }, fault: 'data-in-wrong-direction' },
    { name: 'a write with room for data', request: { type: OUT, out: [filled(512, 1)], into: [512] }, fault: 'data-in-wrong-direction' },
    { name: 'a flush with data', request: { type: FLUSH, out: [filled(512, 1)] }, fault: 'data-in-wrong-direction' },
    { name: 'an id into 21 bytes', request: { type: GET_ID, into: [21] }, fault: 'id-buffer-too-long' },
  ])('for $name is an I/O error, and the fault has a name', async ({ request, fault }) => {
    const device = await make({ kind: 'memory' });
    expect(await new BlkDriver(device).request(request)).toMatchObject({ status: IOERR });
    expect(device.refused.map((refusal) => refusal.fault)).toEqual([fault]);
    expect(Object.keys(BLK_FAULTS)).toContain(fault);
    expect(logged).toEqual([expect.stringContaining(fault)]);
    expect((await content()).every((byte) => byte === 0)).toBe(true);
  });

  test.each([
    { name: 'without a status byte', readable: [filled(16, 0)], writable: [], fault: 'no-status-byte' },
    { name: 'of 15 bytes', readable: [filled(15, 0)], writable: [1], fault: 'header-too-short' },
    { name: 'without a header', readable: [], writable: [512], fault: 'header-too-short' },
  ])('$name cannot be answered: it breaks its queue, and no other', async ({ readable, writable, fault }) => {
    const device = await make({ kind: 'memory', queueCount: 2 });
    const [broken, other] = [new BlkDriver(device, 0), new BlkDriver(device, 1)];
    broken.ring.submit(readable, writable);
    broken.ring.submit([filled(16, 0)], [512, 1]);
    expect(broken.ring.failures).toEqual([expect.any(ProtocolError)]);
    expect(broken.ring.failures[0].message).toContain(fault);
    expect(broken.ring.collect()).toEqual([]);
    expect(await other.request({ type: IN, into: [512] })).toMatchObject({ status: OK });
  });

  test('of any shape at all neither throws nor writes past its buffers', async () => {
    const device = await make({ kind: 'memory' });
    const buffer = fc.oneof(fc.integer({ min: 1, max: 40 }), fc.constantFrom(512, 1024));
    fc.assert(fc.property(
      fc.oneof(fc.constantFrom(IN, OUT, FLUSH, GET_ID, DISCARD), fc.integer({ min: 0, max: 0xffffffff })),
      fc.oneof(fc.bigInt({ min: 0n, max: BigInt(SECTORS + 2) }), fc.bigInt({ min: 0n, max: 2n ** 64n - 1n })),
      fc.array(buffer, { maxLength: 4 }), fc.array(buffer, { maxLength: 4 }), fc.integer({ min: 0, max: 20 }),
      (type, sector, readable, writable, headerBytes) => {
        const driver = new BlkDriver(device, 0, { memory: new PlainMemory({ guestAddress: 0x10000, sizeBytes: 0x10000 }) });
        const header = Buffer.alloc(20);
        header.writeUInt32LE(type);
        header.writeBigUInt64LE(sector, 8);
        const buffers = [...(headerBytes > 0 ? [header.subarray(0, headerBytes)] : []), ...readable.map((length) => filled(length, 3))];
        if (buffers.length + writable.length === 0) return;
        driver.ring.submit(buffers, writable, { indirect: true });
        const answered = driver.ring.collect();
        expect(answered.length + driver.ring.failures.length).toBe(1);
        if (answered.length > 0) expect([OK, IOERR, UNSUPP]).toContain(answered[0].written.at(-1));
        expect(driver.ring.memory.guardsIntact()).toBe(true);
      },
    ), { numRuns: 200 });
  });
});

describe('a disk in a file', () => {
  test('is made with its whole capacity as a hole, and keeps what is in a file that is there', async () => {
    await writeFile(file, filled(512, 0x42));
    const driver = new BlkDriver(await make({ kind: 'file' }));
    expect((await driver.request({ type: IN, sector: 0n, into: [1024] })).data).toEqual(Buffer.concat([filled(512, 0x42), filled(512, 0)]));
    expect((await readFile(file)).length).toBe(CAPACITY);
  });

  test('that was truncated under the device answers an I/O error, and says why', async () => {
    const driver = new BlkDriver(await make({ kind: 'file' }));
    await truncate(file, 1024);
    expect(await driver.request({ type: IN, sector: 0n, into: [1024] })).toMatchObject({ status: OK });
    expect(await driver.request({ type: IN, sector: 1n, into: [1024] })).toMatchObject({ status: IOERR, usedBytes: 0 });
    expect(logged).toEqual([expect.stringContaining('ends before byte 1024')]);
  });

  test('whose descriptor is gone answers I/O errors and goes on', async () => {
    const driver = new BlkDriver(await make({ kind: 'file' }));
    await storage.close();
    for (const request of [{ type: IN, into: [512] }, { type: OUT, out: [filled(512, 1)] }, { type: FLUSH }]) {
      expect(await driver.request(request)).toMatchObject({ status: IOERR });
    }
    await storage.open();
    expect(await driver.request({ type: IN, into: [512] })).toMatchObject({ status: OK });
  });
});

describe('a driver without FLUSH', () => {
  test.each([{ late: false }, { late: true }])('hears of a write only after the storage was flushed, late $late', async ({ late }) => {
    const steps: string[] = [];
    const recording: Storage = {
      capacityBytes: CAPACITY, physicalBlockBytes: 512, open: async () => {}, close: async () => {},
      read: () => undefined,
      write: () => {
        steps.push('write');
        return late ? Promise.resolve() : undefined;
      },
      zero: () => undefined, discard: () => undefined, resize: () => undefined,
      flush: async () => { await Promise.resolve(); steps.push('flush'); },
    };
    storage = recording;
    const device = new VirtioBlkDevice({ storage: recording, queueCount: 1, queueSizeMax: 128, readOnly: false, serial: '', log: () => undefined });
    for (const [features, expected] of [[device.features, ['write']], [device.features & ~(1n << 9n), ['write', 'flush']]] as const) {
      steps.length = 0;
      device.negotiated(features);
      await new BlkDriver(device).request({ type: OUT, out: [filled(512, 1)] });
      expect(steps).toEqual(expected);
    }
  });
});

describe('config space and features', () => {
  test('say what the device does, and offer nothing more', async () => {
    const device = await make({ kind: 'file', queueCount: 4 });
    expect(blkConfig.decode(device.config())).toMatchObject({
      capacity: BigInt(SECTORS), seg_max: 126, blk_size: 512, physical_block_exp: 3, min_io_size: 8, num_queues: 4, max_discard_sectors: 0,
    });
    const bits = Array.from({ length: 64 }, (_, bit) => bit).filter((bit) => (device.features >> BigInt(bit) & 1n) === 1n);
    expect(bits).toEqual([2, 6, 9, 10, 12]); // SEG_MAX, BLK_SIZE, FLUSH, TOPOLOGY, MQ
  });

  test('seg_max segments fit in a request of a full queue', async () => {
    const driver = new BlkDriver(await make({ kind: 'memory' }));
    const into = Array.from({ length: 126 }, () => 256);
    expect(await driver.request({ type: IN, into })).toMatchObject({ status: OK, usedBytes: 126 * 256 + 1 });
  });
});

/** Ranges that cut [0, length) at the sums of `lengths`. */
function cut(length: number, lengths: readonly number[]): [number, number][] {
  const points = [...lengths.reduce<number[]>((sums, n) => [...sums, (sums.at(-1) ?? 0) + n], []).filter((at) => at < length), length];
  return points.map((end, i) => [points[i - 1] ?? 0, end]);
}
