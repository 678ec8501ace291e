// What virtioDevice() takes and hands to the machine. A real socket; no QEMU.
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { virtioDevice } from '../../../src/devices/virtio-device/index.ts';
import { UsageError } from '../../../src/errors.ts';
import type { AttachSite } from '../../../src/qemu/attachment.ts';
import type { VirtioDevice } from '../../../src/virtio/device.ts';

let directory: string;
beforeEach(async () => { directory = await mkdtemp(join(tmpdir(), 'virtio-device-')); });
afterEach(async () => { await rm(directory, { recursive: true }); });

const site = (id: string): AttachSite => ({ id, directory, fail: (error) => { throw error; }, log: () => undefined });
const configOf = (length: number) => (): Uint8Array => new Uint8Array(length);

function device(over: Partial<VirtioDevice> = {}): VirtioDevice {
  return { deviceId: 21, features: 0n, queueCount: 2, queueSizeMax: 64, config: configOf(12), process: () => undefined, ...over };
}

test.each<[Partial<VirtioDevice>, string]>([
  [{ deviceId: 0 }, 'a virtio id of 0'],
  [{ deviceId: 14 }, 'a virtio id of 14'],
  [{ deviceId: 42 }, 'a virtio id of 42'],
  [{ deviceId: 63 }, 'a virtio id of 63'],
  [{ queueCount: 0 }, '0 queues'],
  [{ queueCount: 257 }, '257 queues'],
  [{ queueSizeMax: 48 }, 'a queue size of 48'],
  [{ queueSizeMax: 2048 }, 'a queue size of 2048'],
  [{ config: configOf(257) }, 'a config space of 257 bytes'],
])('a device with %p cannot be carried: a UsageError says why', (over, message) => {
  expect(() => virtioDevice({ device: device(over) })).toThrow(UsageError);
  expect(() => virtioDevice({ device: device(over) })).toThrow(message);
});

test('a latency out of range is a UsageError', () => {
  expect(() => virtioDevice({ device: device(), latencyMs: -1 })).toThrow('latencyMs -1');
});

test('a device is attached as vhost-user-test-device-pci with its id, queues and config size, once at a time', async () => {
  const plugged = virtioDevice({ device: device(), name: 'mine', ready: 'virtio*/x', modules: ['crc32c'] });
  expect(plugged).toMatchObject({ kind: 'mine', guest: { modules: ['virtio_pci', 'crc32c'], ready: 'virtio*/x' } });
  const attachment = await plugged.attach(site('own0'));
  expect(attachment).toMatchObject({
    driver: 'vhost-user-test-device-pci',
    properties: { 'virtio-id': 21, num_vqs: 2, vq_size: 64, config_size: 12, chardev: 'own0-chardev' },
    chardevs: [{ id: 'own0-chardev', path: join(directory, 'own0.sock') }],
  });
  await expect(plugged.attach(site('own1'))).rejects.toThrow('mine: this device is plugged already');
  await attachment.detach();
  expect(await readdir(directory)).toEqual([]);
  await (await plugged.attach(site('own1'))).detach();
});

test('a device without a name is called by its id, and its queues have gates', () => {
  const plugged = virtioDevice({ device: device() });
  expect(plugged.kind).toBe('virtio-21');
  expect(plugged.queue(1).index).toBe(1);
  expect(() => plugged.queue(2)).toThrow(UsageError);
});
