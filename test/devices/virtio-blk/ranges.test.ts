// Discard, write-zeroes (virtio 1.2, 5.2.6) and another capacity, over both storages; the file is a real one.
import { mkdtemp, readFile, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { VirtioBlkDevice, type VirtioBlkDeviceOptions } from '../../../src/devices/virtio-blk/device.ts';
import { FileStorage } from '../../../src/devices/virtio-blk/file-storage.ts';
import { virtioBlk } from '../../../src/devices/virtio-blk/index.ts';
import { blkConfig, blkSegment } from '../../../src/devices/virtio-blk/layout.ts';
import { MemoryStorage } from '../../../src/devices/virtio-blk/memory-storage.ts';
import type { Storage } from '../../../src/devices/virtio-blk/storage.ts';
import { UsageError } from '../../../src/errors.ts';
import { BlkDriver } from './blk-driver.ts';

const [IN, OUT, DISCARD, WRITE_ZEROES] = [0, 1, 11, 13];
const [OK, IOERR, UNSUPP] = [0, 1, 2];
/** More than a segment may have, so that the bound is seen. */
const SECTORS = 2 ** 14 + 64;

let directory: string;
let file: string;
let storage: Storage;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'virtio-blk-ranges-'));
  file = join(directory, 'disk');
  storage = new MemoryStorage(512);
});
afterEach(async () => {
  await storage.close();
  await rm(directory, { recursive: true });
});

async function make(kind: 'memory' | 'file', more: Partial<VirtioBlkDeviceOptions> = {}, sectors = SECTORS): Promise<VirtioBlkDevice> {
  const capacityBytes = sectors * 512;
  storage = kind === 'memory' ? new MemoryStorage(capacityBytes) : new FileStorage({ path: file, capacityBytes, readOnly: false });
  await storage.open();
  const device = new VirtioBlkDevice({
    storage, queueCount: 1, queueSizeMax: 128, readOnly: false, discard: true, writeZeroes: true, serial: '', log: () => undefined, ...more,
  });
  device.negotiated(device.features);
  return device;
}

const segment = (sector: number | bigint, num_sectors: number, flags = 0): Uint8Array => blkSegment.encode({ sector: BigInt(sector), num_sectors, flags });
const content = async (): Promise<Buffer> => (storage instanceof MemoryStorage ? storage.bytes : readFile(file));
const filled = (length: number, byte: number): Uint8Array => new Uint8Array(length).fill(byte);

test('a segment is 16 bytes: sector, number of sectors, flags', () => {
  expect(Buffer.from(segment(0x0102030405060708n, 0x090a0b0c, 1)).toString('hex')).toBe('08070605040302010c0b0a0901000000');
});

test('what is offered is in the features and the config space, and what is not is in neither', async () => {
  const fields = (device: VirtioBlkDevice): number[] => {
    const { max_discard_sectors, max_discard_seg, discard_sector_alignment, max_write_zeroes_sectors, max_write_zeroes_seg, write_zeroes_may_unmap } = blkConfig.decode(device.config());
    return [Number(device.features >> 13n & 3n), max_discard_sectors, max_discard_seg, discard_sector_alignment, max_write_zeroes_sectors, max_write_zeroes_seg, write_zeroes_may_unmap];
  };
  expect(fields(await make('memory', { discard: false, writeZeroes: false }))).toEqual([0, 0, 0, 0, 0, 0, 0]);
  expect(fields(await make('memory', { writeZeroes: false }))).toEqual([1, 16384, 16, 1, 0, 0, 0]);
  expect(fields(await make('file'))).toEqual([3, 16384, 16, 8, 16384, 16, 1]);
});

describe.each(['memory', 'file'] as const)('on a disk in %s', (kind) => {
  test('write-zeroes makes zeroes of its segments and of nothing else, whatever they are', async () => {
    const device = await make(kind, {}, 64);
    const driver = new BlkDriver(device);
    await fc.assert(fc.asyncProperty(
      fc.array(fc.record({ sector: fc.integer({ min: 0, max: 63 }), count: fc.integer({ min: 0, max: 16 }), unmap: fc.boolean() }), { minLength: 1, maxLength: 16 }),
      async (segments) => {
        await driver.request({ type: OUT, sector: 0n, out: [filled(64 * 512, 0x77)] });
        const fitting = segments.map(({ sector, count, unmap }) => ({ sector, count: Math.min(count, 64 - sector), unmap }));
        const answer = await driver.request({ type: WRITE_ZEROES, out: fitting.map(({ sector, count, unmap }) => segment(sector, count, unmap ? 1 : 0)) });
        expect(answer).toMatchObject({ status: OK, usedBytes: 1 });
        const expected = Buffer.alloc(64 * 512, 0x77);
        for (const { sector, count } of fitting) expected.fill(0, sector * 512, (sector + count) * 512);
        expect((await content()).equals(expected)).toBe(true);
      },
    ), { numRuns: 30 });
    expect(device.refused).toEqual([]);
    expect(device.zeroed.length).toBeLessThanOrEqual(1000);
  });

  test('a discard is noted, and what is beside it stays', async () => {
    const device = await make(kind, {}, 64);
    const driver = new BlkDriver(device);
    await driver.request({ type: OUT, sector: 0n, out: [filled(64 * 512, 0x77)] });
    expect(await driver.request({ type: DISCARD, out: [segment(2, 3), segment(10, 1)] })).toMatchObject({ status: OK });
    expect(device.discarded).toEqual([{ positionBytes: 1024, lengthBytes: 1536, unmap: false }, { positionBytes: 5120, lengthBytes: 512, unmap: false }]);
    const bytes = await content();
    expect([bytes[1023], bytes[2560], bytes[5119], bytes[5632]]).toEqual([0x77, 0x77, 0x77, 0x77]);
    expect(bytes[1024]).toBe(kind === 'memory' ? 0 : 0x77);
  });

  test('a larger capacity is zeroes that can be written, a smaller one refuses what is past it, at once', async () => {
    const device = await make(kind, {}, 8);
    const driver = new BlkDriver(device);
    expect(await driver.request({ type: OUT, sector: 8n, out: [filled(512, 1)] })).toMatchObject({ status: IOERR });
    await device.resize(16 * 512);
    expect(blkConfig.decode(device.config()).capacity).toBe(16n);
    expect((await driver.request({ type: IN, sector: 8n, into: [512] })).data.every((byte) => byte === 0)).toBe(true);
    expect(await driver.request({ type: OUT, sector: 15n, out: [filled(512, 1)] })).toMatchObject({ status: OK });
    await device.resize(4 * 512);
    expect(blkConfig.decode(device.config())).toMatchObject({ capacity: 4n, max_discard_seg: 16 });
    expect(await driver.request({ type: IN, sector: 4n, into: [512] })).toMatchObject({ status: IOERR });
    expect(await driver.request({ type: DISCARD, out: [segment(4, 1)] })).toMatchObject({ status: IOERR });
    expect(storage.capacityBytes).toBe(4 * 512);
    if (kind === 'file') expect((await stat(file)).size).toBe(16 * 512);
  });
});

test.each<[string, number, Uint8Array[], number[] | undefined, number, string]>([
  ['no segment', DISCARD, [], undefined, IOERR, 'data-not-whole-segments'],
  ['15 bytes', DISCARD, [filled(15, 0)], undefined, IOERR, 'data-not-whole-segments'],
  ['a segment and a byte', WRITE_ZEROES, [segment(0, 1), filled(1, 0)], undefined, IOERR, 'data-not-whole-segments'],
  ['17 segments', WRITE_ZEROES, Array.from({ length: 17 }, () => segment(0, 1)), undefined, IOERR, 'too-many-segments'],
  ['a segment that is too long', DISCARD, [segment(0, 2 ** 14 + 1)], undefined, IOERR, 'segment-too-long'],
  ['a segment past the end', WRITE_ZEROES, [segment(0, 1), segment(SECTORS - 1, 2)], undefined, IOERR, 'sector-out-of-range'],
  ['a segment that overflows', DISCARD, [segment(2n ** 64n - 1n, 2)], undefined, IOERR, 'sector-out-of-range'],
  ['a discard that may unmap', DISCARD, [segment(0, 1, 1)], undefined, UNSUPP, 'segment-flags'],
  ['an unknown flag', WRITE_ZEROES, [segment(0, 1, 3)], undefined, UNSUPP, 'segment-flags'],
  ['room for data', DISCARD, [segment(0, 1)], [16], IOERR, 'data-in-wrong-direction'],
])('%s is refused by name, and nothing of it is done', async (_, type, out, into, status, fault) => {
  const device = await make('memory');
  (storage as MemoryStorage).bytes.fill(0x77);
  expect(await new BlkDriver(device).request({ type, out, ...(into && { into }) })).toMatchObject({ status });
  expect(device.refused.map((refusal) => refusal.fault)).toEqual([fault]);
  expect((await content()).every((byte) => byte === 0x77)).toBe(true);
  expect([device.discarded, device.zeroed]).toEqual([[], []]);
});

test.each([DISCARD, WRITE_ZEROES])('a read-only disk refuses type %p', async (type) => {
  const device = await make('memory', { readOnly: true });
  expect(await new BlkDriver(device).request({ type, out: [segment(0, 1)] })).toMatchObject({ status: IOERR });
  expect(device.refused.map(({ fault }) => fault)).toEqual(['write-to-read-only']);
});

test('a thousand ranges are kept, however many a driver asks for', async () => {
  const device = await make('memory', {}, 64);
  const driver = new BlkDriver(device);
  for (let i = 0; i < 70; i += 1) await driver.request({ type: DISCARD, out: Array.from({ length: 16 }, (_, at) => segment(at, 1)) });
  expect(device.discarded).toHaveLength(1000);
});

describe('resize', () => {
  test('of a disk that is not plugged changes it and asks nobody', async () => {
    const disk = virtioBlk({ capacityBytes: 4096 });
    disk.bytes.fill(5);
    await disk.resize(8192);
    expect([disk.capacityBytes, disk.bytes.length, disk.bytes[4095], disk.bytes[4096]]).toEqual([8192, 8192, 5, 0]);
    await disk.resize(512);
    expect(disk.bytes).toEqual(Buffer.alloc(512, 5));
  });

  test.each([0, -512, 513, Number.NaN])('to %p bytes is a UsageError, and the disk stays as it is', async (to) => {
    const disk = virtioBlk({ capacityBytes: 4096 });
    await expect(disk.resize(to)).rejects.toThrow(UsageError);
    expect(disk.capacityBytes).toBe(4096);
  });
});
