// QEMU as the server of the socket, and memory plugged into a running guest: regions come one by one
// (ADD_MEM_REG), and the device reads and writes what lies in them.
import { createHash } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { VirtioBlkDevice } from '../../src/devices/virtio-blk/device.ts';
import { MemoryStorage } from '../../src/devices/virtio-blk/memory-storage.ts';
import { boot } from '../../src/machine/boot.ts';
import type { Machine } from '../../src/machine/machine.ts';
import { q35 } from '../../src/qemu/preset.ts';
import { VhostUserBackend } from '../../src/vhost-user/index.ts';

const MIB = 2 ** 20;
let directory = '';
let machine: Machine | undefined;
let backend: VhostUserBackend | undefined;
let errors: Error[] = [];
let lines: string[] = [];

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'hot-memory-'));
  errors = [];
  lines = [];
});
afterEach(async () => {
  await machine?.close();
  await backend?.close();
  machine = backend = undefined;
  await rm(directory, { recursive: true });
  expect(errors).toEqual([]);
});

test.each(['7.2', '10.0', '11.1'])('QEMU %s: a disk whose back end connected to QEMU is read into memory that was plugged after it', async (qemu) => {
  machine = await boot({ qemu, machine: q35({ memoryMiB: 160 }), extraArgs: ['-m', 'size=160M,slots=2,maxmem=2G'] });
  const { guest, qmp } = machine;
  const path = join(directory, 's');
  const storage = new MemoryStorage(176 * MIB);
  for (let i = 0; i < storage.capacityBytes; i += 4096) storage.bytes.writeUInt32LE(i * 2654435761 % 2 ** 32, i);
  const device = new VirtioBlkDevice({ storage, queueCount: 1, queueSizeMax: 128, readOnly: false, serial: 'hot', log: (line) => lines.push(line) });

  await guest.run('modprobe virtio_pci; modprobe virtio_blk');
  await qmp.execute('chardev-add', { id: 'disk-chardev', backend: { type: 'socket', data: { addr: { type: 'unix', data: { path } }, server: true, wait: false } } });
  backend = VhostUserBackend.connect({ path, device, onError: (error) => errors.push(error), log: (line) => lines.push(line) });
  await qmp.execute('device_add', { driver: 'vhost-user-blk-pci', id: 'disk', chardev: 'disk-chardev', bus: 'rp1', 'num-queues': 1 });
  await guest.until('[ -b /dev/vda ]', 'the disk to be there', 20_000);
  const regions = (): string[] => lines.filter((line) => line.includes('ADD_MEM_REG'));
  expect(regions().length).toBeGreaterThan(0);
  expect(lines.some((line) => line.includes('SET_MEM_TABLE'))).toBe(false);

  const before = regions().length;
  await qmp.execute('object-add', { 'qom-type': 'memory-backend-memfd', id: 'more', size: 256 * MIB, share: true });
  await qmp.execute('device_add', { driver: 'pc-dimm', id: 'dimm', memdev: 'more' });
  await guest.until('[ $(ls -d /sys/devices/system/memory/memory* | wc -l) -ge 3 ]', 'the guest to see the memory', 20_000);
  await guest.run('for b in /sys/devices/system/memory/memory*/state; do grep -q offline $b && echo online_kernel >$b; done; true');
  expect(regions().length).toBeGreaterThan(before);
  expect(regions().at(-1)).toContain('size:0x10000000');

  // More than the first memory can hold: the page cache goes into the new one. It is dropped at the last close.
  const md5 = (bytes: Uint8Array): string => createHash('md5').update(bytes).digest('hex');
  const { stdout } = await guest.run('exec 3</dev/vda; md5sum <&3; grep ^Buffers /proc/meminfo', { timeoutMs: 120_000 });
  expect(stdout.split(' ')[0]).toBe(md5(storage.bytes));
  expect(Number(/Buffers: +(\d+) kB/.exec(stdout)?.[1])).toBeGreaterThan(160 * 1024);
  await guest.run('dd if=/dev/urandom of=/dev/vda bs=1M count=16 conv=fsync 2>/dev/null');
  const written = await guest.run('dd if=/dev/vda bs=1M count=16 iflag=direct 2>/dev/null | md5sum');
  expect(written.stdout.split(' ')[0]).toBe(md5(storage.bytes.subarray(0, 16 * MIB)));
});
