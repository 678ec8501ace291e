// What every device over vhost-user shares: one place, opened before it is plugged and closed after. A real
// socket; no QEMU.
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { vhostUserDevice } from '../../src/devices/vhost-user-device.ts';
import type { BackEndFaults, VhostUserDevice } from '../../src/devices/vhost-user-device.ts';
import { UsageError } from '../../src/errors.ts';
import type { AttachSite } from '../../src/qemu/attachment.ts';

let directory: string;
let calls: string[];
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'device-'));
  calls = [];
});
afterEach(async () => { await rm(directory, { recursive: true }); });

function site(id = 'd'): AttachSite {
  return { id, directory, fail: (error) => { throw error; }, log: (line) => calls.push(line) };
}

function made(faults: BackEndFaults = {}, open: () => void | Promise<void> = () => undefined): VhostUserDevice {
  return vhostUserDevice({
    kind: 'mine', driver: 'vhost-user-test-device-pci', guest: { modules: [], ready: '*' }, faults,
    properties: ({ id }) => ({ name: id }),
    make: (log) => ({
      deviceId: 1, features: 0n, queueCount: 1, queueSizeMax: 4,
      config: () => new Uint8Array(0),
      process: () => undefined,
      async close() {
        log('core closed');
      },
    }),
    async open() {
      await open();
      calls.push('opened');
    },
    closed: () => calls.push('closed'),
  }).device;
}

test.each([{}, { hang: 'connection' as const }])('a device made with %j is opened before it is plugged and closed once, its core first, log and all', async (faults) => {
  const device = made(faults);
  const attachment = await device.attach(site());
  expect(attachment.properties).toMatchObject({ name: 'd' });
  expect(calls).toEqual(['opened']);
  await expect(device.attach(site('e'))).rejects.toThrow(UsageError);
  await attachment.detach();
  await attachment.detach();
  expect(calls).toEqual(['opened', 'core closed', 'closed']);
  await (await device.attach(site())).detach();
  expect(calls).toHaveLength(6);
});

test('one that does not open is not closed, and may be plugged again', async () => {
  let broken = true;
  const device = made({}, () => {
    if (broken) throw new UsageError('not today');
  });
  await expect(device.attach(site())).rejects.toThrow('not today');
  expect(calls).toEqual([]);
  broken = false;
  await (await device.attach(site())).detach();
  expect(calls).toEqual(['opened', 'core closed', 'closed']);
});

test.each([{}, { hang: 'connection' as const }])('one made with %j that opens and has nowhere to listen is closed, and may be plugged again', async (faults) => {
  const device = made(faults);
  const socket = join(directory, 'd.sock');
  await mkdir(socket);
  await expect(device.attach(site())).rejects.toThrow('EADDRINUSE');
  expect(calls).toEqual(['opened', 'core closed', 'closed']);
  await rm(socket, { recursive: true });
  await (await device.attach(site())).detach();
});
