// What a kept snapshot is known by, and which go: no machine is booted.
import { mkdtemp, rm, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { UsageError } from '../../src/errors.ts';
import { snapshotLimitBytes, surplus, whyNotRestored } from '../../src/machine/kept-snapshots.ts';
import type { MachinePlan } from '../../src/machine/plan.ts';
import { snapshotKey } from '../../src/machine/snapshot-key.ts';
import { findPreset } from '../../src/qemu/preset.ts';

let place: string;
let plan: MachinePlan;
beforeAll(async () => {
  place = await mkdtemp(join(tmpdir(), 'rootport-key-'));
  for (const name of ['qemu', 'vmlinux']) await writeFile(join(place, name), name);
  const version = { major: 10, minor: 0, text: '10.0.2' };
  plan = {
    parts: {
      qemu: { name: 'QEMU', version, command: [join(place, 'qemu'), '-L', '/roms'], env: {}, choice: '10.0', key: 'tree', companion: () => undefined },
      kernel: { name: 'Linux', release: '6.1', key: 'kernel', vmlinux: join(place, 'vmlinux'), bzImage: undefined, modulesDir: undefined, buildDir: undefined, modulesChange: false },
      image: { key: 'image', initramfs: join(place, 'initramfs'), hostKeyBase64: 'AAAA' }, accelerator: { name: 'tcg', why: '' },
    },
    preset: findPreset('q35'), ports: ['rp1'], kernelImage: join(place, 'vmlinux'), archive: undefined, append: ['quiet'], bootTimeoutMs: 1, commandTimeoutMs: 1,
    shape: { version, preset: findPreset('q35'), ports: 1, accel: 'tcg', cpus: 1, tcgThread: 'single', memoryMiB: 256, devices: [], network: true, extraArgs: [] },
  };
});
afterAll(() => rm(place, { recursive: true }));

describe('devices of the command line', () => {
  test('ports, switches and bridges are saved', () => {
    expect(whyNotRestored({ extraArgs: ['-device', 'pcie-root-port,id=far,chassis=9', '--device', 'pci-bridge,id=b,bus=far', '-global', 'edu.x=1'] })).toBeUndefined();
  });

  test.each([
    [['-device', 'edu,id=card']], [['-device', 'pci-bridge,id=b', '--device', 'edu,bus=b']], [['-device', '{"driver":"edu"}']], [['-device', 'driver=edu']],
  ])('%j are not, and the reason has those alone', (...[extraArgs]) => {
    expect(whyNotRestored({ extraArgs })).toMatch(/^of the devices that it boots with \([^,]*edu[^,]*\), whose state may not be saved$/);
  });
});

describe('the key', () => {
  test('is the same for the same machine, whatever its deadlines and its names', () => {
    const { kernel } = plan.parts;
    const other = { ...plan, bootTimeoutMs: 7, commandTimeoutMs: 8, parts: { ...plan.parts, kernel: { ...kernel, name: 'another' } } };
    expect(snapshotKey(other)).toEqual(snapshotKey(plan));
    expect(snapshotKey(plan).key).toMatch(/^[0-9a-f]{16}$/);
  });

  test.each<[string, (given: MachinePlan) => MachinePlan]>([
    ['QEMU', (given) => ({ ...given, parts: { ...given.parts, qemu: { ...given.parts.qemu, key: 'tree 2' } } })],
    ['QEMU\'s version', (given) => ({ ...given, parts: { ...given.parts, qemu: { ...given.parts.qemu, version: { ...given.shape.version, text: '10.0.3' } } } })],
    ['kernel', (given) => ({ ...given, parts: { ...given.parts, kernel: { ...given.parts.kernel, key: 'kernel 2' } } })],
    ['image', (given) => ({ ...given, parts: { ...given.parts, image: { ...given.parts.image, key: 'image 2' } } })],
    ['SSH host key of the image', (given) => ({ ...given, parts: { ...given.parts, image: { ...given.parts.image, hostKeyBase64: 'BBBB' } } })],
    ['files', (given) => ({ ...given, archive: Buffer.from('070701') })],
    ['kernel command line', (given) => ({ ...given, append: ['quiet', 'panic=1'] })],
    ['CPUs', (given) => ({ ...given, shape: { ...given.shape, cpus: 2 } })],
    ['memory', (given) => ({ ...given, shape: { ...given.shape, memoryMiB: 512 } })],
    ['ports', (given) => ({ ...given, shape: { ...given.shape, ports: 2 } })],
    ['machine', (given) => ({ ...given, shape: { ...given.shape, preset: findPreset('pc') } })],
    ['accelerator', (given) => ({ ...given, shape: { ...given.shape, accel: 'kvm' } })],
  ])('is another with another %s', (_, change) => {
    expect(snapshotKey(change(plan)).key).not.toBe(snapshotKey(plan).key);
  });

  test.each(['qemu', 'vmlinux'])('is another when %s was replaced under its path', async (name) => {
    const before = snapshotKey(plan).key;
    await utimes(join(place, name), new Date(1e12), new Date(1e12));
    const dated = snapshotKey(plan).key;
    await writeFile(join(place, name), 'larger than before');
    await utimes(join(place, name), new Date(1e12), new Date(1e12));
    expect(new Set([before, dated, snapshotKey(plan).key]).size).toBe(3);
  });
});

describe('of the kept ones', () => {
  const kept = (...sizes: [name: string, sizeBytes: number, usedAt: number][]) =>
    sizes.map(([name, sizeBytes, usedAt]) => ({ name, sizeBytes, usedAt: new Date(usedAt) }));
  const gone = (limit: number, ...sizes: [string, number, number][]) => surplus(kept(...sizes), limit).map(({ name }) => name);

  test('all stay that fit the limit exactly', () => {
    expect(gone(100, ['a', 60, 1], ['b', 40, 2])).toEqual([]);
  });

  test('the least recently used go, and no more than it takes', () => {
    expect(gone(100, ['new', 40, 3], ['oldest', 40, 1], ['older', 40, 2])).toEqual(['oldest']);
    expect(gone(50, ['new', 40, 3], ['oldest', 40, 1], ['older', 40, 2])).toEqual(['oldest', 'older']);
  });

  test('the limit is 4 GiB, or what ROOTPORT_SNAPSHOTS_MIB says', () => {
    expect(snapshotLimitBytes({})).toBe(2 ** 32);
    expect(snapshotLimitBytes({ ROOTPORT_SNAPSHOTS_MIB: '512' })).toBe(2 ** 29);
    expect(() => snapshotLimitBytes({ ROOTPORT_SNAPSHOTS_MIB: '2G' })).toThrow(UsageError);
  });
});
