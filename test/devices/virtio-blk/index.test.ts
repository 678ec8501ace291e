// What virtioBlk() takes and hands to the machine. A real socket; no QEMU.
import { existsSync } from 'node:fs';
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { virtioBlk } from '../../../src/devices/virtio-blk/index.ts';
import { EnvironmentError, UsageError } from '../../../src/errors.ts';
import type { AttachSite } from '../../../src/qemu/attachment.ts';

let directory: string;
beforeEach(async () => { directory = await mkdtemp(join(tmpdir(), 'virtio-blk-')); });
afterEach(async () => { await rm(directory, { recursive: true }); });

function site(id = 'disk0'): AttachSite {
  return { id, directory, fail: (error) => { throw error; }, log: () => undefined };
}

describe('virtioBlk', () => {
  test.each([
    [{ capacityBytes: 1000 }, 'not a positive multiple of 512', 'The next one is 1024.'],
    [{ capacityBytes: 0 }, 'a capacity of 0 bytes', 'Such as'],
    [{ capacityBytes: -512 }, 'a capacity of -512', 'Such as'],
    [{ capacityBytes: NaN }, 'a capacity of NaN', 'Such as'],
    [{}, 'no capacity', 'Give capacityBytes'],
    [{ capacityBytes: 2 ** 50 }, 'more than a disk in memory can have', 'Give a file'],
    [{ capacityBytes: 512, queues: 0 }, 'queues 0 is not a whole number from 1 to 64', ''],
    [{ capacityBytes: 512, queues: 1.5 }, 'queues 1.5', ''],
    [{ capacityBytes: 512, queues: 65 }, 'queues 65', ''],
    [{ capacityBytes: 512, queueSize: 100 }, 'queueSize 100 is not a power of two', ''],
    [{ capacityBytes: 512, queueSize: 2 }, 'queueSize 2', ''],
    [{ capacityBytes: 512, serial: 'x'.repeat(21) }, 'at most 20 printable ASCII', ''],
    [{ capacityBytes: 512, serial: 'dätei' }, 'at most 20 printable ASCII', ''],
    [{ capacityBytes: 512, latencyMs: -1 }, 'latencyMs -1', ''],
  ])('of %j is a UsageError', (options, message, hint) => {
    expect(() => virtioBlk(options)).toThrow(UsageError);
    expect(() => virtioBlk(options)).toThrow(message);
    expect(() => virtioBlk(options)).toThrow(hint);
  });

  test('takes the capacity from a file that is there, and shrinks none', async () => {
    const file = join(directory, 'disk');
    await writeFile(file, new Uint8Array(2048));
    expect(virtioBlk({ file }).capacityBytes).toBe(2048);
    expect(() => virtioBlk({ file, capacityBytes: 1024 })).toThrow('more than the capacity of 1024');
    expect(() => virtioBlk({ file, capacityBytes: 4096, readOnly: true })).toThrow('does not grow it');
    expect(() => virtioBlk({ file: directory, capacityBytes: 512 })).toThrow('not a regular file');
    expect(() => virtioBlk({ file }).bytes).toThrow('not in memory');
  });

  test.each([
    { asked: {}, properties: {} },
    { asked: { packed: true, queueSize: 100 }, properties: { packed: true, 'queue-size': 100 } },
    { asked: { inOrder: 'batched' as const }, properties: { in_order: true } },
  ])('asked for $asked has QEMU let just that through: $properties', async ({ asked, properties }) => {
    const disk = virtioBlk({ capacityBytes: 512, ...asked });
    const attachment = await disk.attach(site());
    const { packed, in_order } = attachment.properties;
    expect({ ...attachment.properties, packed, in_order }).toMatchObject({ packed: undefined, in_order: undefined, ...properties });
    await attachment.detach();
  });

  test('attaches as vhost-user-blk-pci with a vector for each queue and one for config', async () => {
    const disk = virtioBlk({ queues: 4, capacityBytes: 1 << 20 });
    expect(disk).toMatchObject({ kind: 'virtio-blk', queues: 4, capacityBytes: 1 << 20 });
    const attachment = await disk.attach(site());
    const path = join(directory, 'disk0.sock');
    expect(attachment).toMatchObject({
      driver: 'vhost-user-blk-pci',
      properties: { 'num-queues': 4, 'queue-size': 128, vectors: 5, chardev: 'disk0-chardev' },
      chardevs: [{ id: 'disk0-chardev', path }],
    });
    expect(attachment.witness?.unit).toBe('queue');
    expect(attachment.witness?.fired()).toEqual(new Map());
    expect(existsSync(path)).toBe(true);
    await attachment.detach();
    await attachment.detach();
    expect(await readdir(directory)).toEqual([]);
  });

  test('made to be connected to again says so to QEMU, and only such a one can be restarted', async () => {
    for (const reconnect of [true, false]) {
      const disk = virtioBlk({ capacityBytes: 512, reconnect });
      const attachment = await disk.attach(site());
      expect(attachment.chardevs[0].reconnect ?? false).toBe(reconnect);
      await expect(disk.gate.restart()).rejects.toThrow(reconnect ? 'a back end that did not crash' : 'does not connect again');
      await expect(disk.gate.crash()).rejects.toThrow('no front end');
      expect(disk.gate.awaitsReset).toBe(false);
      expect(attachment.ailment?.()).toBeUndefined();
      await attachment.detach();
    }
  });

  test('is plugged once at a time, and again after an unplug, with the bytes it had', async () => {
    const disk = virtioBlk({ capacityBytes: 4096 });
    disk.bytes[7] = 9;
    const first = await disk.attach(site());
    await expect(disk.attach(site('disk1'))).rejects.toThrow('plugged already');
    await first.detach();
    const second = await disk.attach(site('disk1'));
    expect(disk.bytes[7]).toBe(9);
    await second.detach();
  });

  test('whose file cannot be made is an EnvironmentError, and may be tried again', async () => {
    const disk = virtioBlk({ file: join(directory, 'missing', 'disk'), capacityBytes: 512 });
    await expect(disk.attach(site())).rejects.toThrow(EnvironmentError);
    await expect(disk.attach(site())).rejects.toThrow('cannot be opened');
    expect(await readdir(directory)).toEqual([]);
  });

  test('that hangs at its connection accepts one, never answers, and leaves nothing', async () => {
    const disk = virtioBlk({ capacityBytes: 512, hang: 'connection' });
    const attachment = await disk.attach(site());
    const socket = connect(attachment.chardevs[0].path);
    const got: Buffer[] = [];
    socket.on('data', (data) => got.push(data));
    await new Promise((resolve) => socket.once('connect', resolve));
    // GET_FEATURES, version 1, no payload: a live back end answers this at once.
    await new Promise((resolve) => socket.write(Buffer.from('010000000100000000000000', 'hex'), resolve));
    const closed = new Promise((resolve) => socket.once('close', resolve).once('error', () => undefined));
    await attachment.detach();
    await closed;
    expect(got).toEqual([]);
    expect(await readdir(directory)).toEqual([]);
  });

  test('that hangs at requests holds every queue', () => {
    const disk = virtioBlk({ capacityBytes: 512, queues: 2, hang: 'requests' });
    expect([disk.queue(0).held, disk.queue(1).held]).toEqual([true, true]);
    expect(() => disk.queue(2)).toThrow(UsageError);
  });
});
