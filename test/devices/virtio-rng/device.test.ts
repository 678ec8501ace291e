import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { RNG_BYTES_MAX, VirtioRngDevice } from '../../../src/devices/virtio-rng/device.ts';
import { virtioRng } from '../../../src/devices/virtio-rng/index.ts';
import { UsageError } from '../../../src/errors.ts';
import { mockDriver } from '../../virtio/layouts.ts';

function setUp(source: (target: Uint8Array) => void) {
  const log: string[] = [];
  const device = new VirtioRngDevice({ source, log: (line) => log.push(line) });
  const driver = mockDriver();
  const queue = driver.queue();
  driver.onKick = () => device.process(0, queue);
  return { device, driver, log };
}

describe('the entropy device', () => {
  test('fills every writable byte from its source, over all buffers of a request', () => {
    let next = 0;
    const { driver, device } = setUp((target) => target.forEach((_, i) => { target[i] = next++ & 0xff; }));
    driver.submit([], [3, 5]);
    driver.submit([], [2]);
    expect(driver.collect().map(({ len, written }) => [len, ...written])).toEqual([[8, 0, 1, 2, 3, 4, 5, 6, 7], [2, 8, 9]]);
    expect(device.bytesGiven).toBe(10);
  });

  test('gives no more than 64 KiB to one request, and says so in the used length', () => {
    const { driver } = setUp((target) => target.fill(1));
    driver.submit([], [RNG_BYTES_MAX - 1, 100]);
    const [{ len, written }] = driver.collect();
    expect(len).toBe(RNG_BYTES_MAX);
    expect(written.filter((byte) => byte === 1)).toHaveLength(RNG_BYTES_MAX);
  });

  test.each([{ readable: [new Uint8Array(4)], writable: [4] }, { readable: [new Uint8Array(4)], writable: [] }])(
    'breaks on a request with readable bytes', ({ readable, writable }) => {
      const { driver, log } = setUp((target) => target.fill(1));
      driver.submit(readable, writable);
      expect(driver.failures.map(({ message }) => message)).toEqual([expect.stringContaining('5.4.6.1')]);
      expect(driver.collect()).toEqual([]);
      expect(log).toHaveLength(1);
    });
});

describe('virtioRng', () => {
  test('attaches with two vectors, for without them QEMU gives it INTx only', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'virtio-rng-'));
    const rng = virtioRng();
    const attachment = await rng.attach({ id: 'rng0', directory, fail: (error) => { throw error; }, log: () => undefined });
    expect(attachment).toMatchObject({ driver: 'vhost-user-rng-pci', properties: { vectors: 2, chardev: 'rng0-chardev' } });
    await expect(rng.attach({ id: 'rng1', directory, fail: () => undefined, log: () => undefined })).rejects.toThrow('plugged already');
    await attachment.detach();
    expect(await readdir(directory)).toEqual([]);
    await rm(directory, { recursive: true });
  });

  test('of no bytes, or a latency of no time, is a UsageError', () => {
    expect(() => virtioRng({ source: new Uint8Array(0) })).toThrow(UsageError);
    expect(() => virtioRng({ latencyMs: NaN })).toThrow(UsageError);
    expect(() => virtioRng().queue(1)).toThrow(UsageError);
  });
});
