// Module lists out of a directory of made-up modules: only their .modinfo strings are looked at.
import { gzipSync } from 'node:zlib';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { UsageError } from '../../src/errors.ts';
import type { Kernel } from '../../src/image/kernel.ts';
import { collectModules } from '../../src/image/modules.ts';

let kernel: Kernel;
const modinfo = (...lines: string[]): Buffer => Buffer.from(`\x7fELF....\0license=GPL\0${lines.join('\0')}\0`, 'latin1');
beforeAll(async () => {
  const modulesDir = await mkdtemp(join(tmpdir(), 'modules-test-'));
  kernel = { name: 'own 6.1', release: '6.1', key: 'k', vmlinux: '', bzImage: undefined, modulesDir, buildDir: undefined, modulesChange: true };
  await mkdir(join(modulesDir, 'kernel/drivers/block'), { recursive: true });
  await writeFile(join(modulesDir, 'kernel/drivers/block/virtio_blk.ko'), modinfo('depends=virtio,virtio-ring'));
  await writeFile(join(modulesDir, 'kernel/virtio.ko.gz'), gzipSync(modinfo('depends=')));
  await writeFile(join(modulesDir, 'kernel/virtio-ring.ko'), modinfo('depends=virtio', 'softdep=pre: soft absent'));
  await writeFile(join(modulesDir, 'kernel/soft.ko'), modinfo('depends=built_in,also-built'));
  await writeFile(join(modulesDir, 'kernel/ring_a.ko'), modinfo('depends=ring_b'));
  await writeFile(join(modulesDir, 'kernel/ring_b.ko'), modinfo('depends=', 'softdep=pre: ring_a'));
  await writeFile(join(modulesDir, 'modules.builtin'), 'kernel/lib/built_in.ko\nkernel/lib/also-built.ko\n');
});
afterAll(() => rm(kernel.modulesDir ?? '', { recursive: true }));

const names = async (...wanted: string[]): Promise<string[]> =>
  (await collectModules(kernel, wanted, (tool) => [tool])).map(({ name }) => name);

test('a module comes after what it depends on, hard and soft, each once', async () => {
  expect(await names('virtio_blk', 'virtio')).toEqual(['virtio', 'soft', 'virtio_ring', 'virtio_blk']);
});

test('names take - and _ alike, and a compressed module comes out whole', async () => {
  const [module] = await collectModules(kernel, ['virtio'], (tool) => [tool]);
  expect(module?.content.equals(modinfo('depends='))).toBe(true);
  expect(await names('virtio-blk')).toContain('virtio_blk');
});

test('what is built in is left out, whoever asks', async () => {
  expect(await names('built_in', 'also_built', 'soft')).toEqual(['soft']);
});

test('an unknown name that was asked for is a UsageError that names it and the kernel', async () => {
  const error = await names('flux_capacitor').catch((one: unknown) => one) as UsageError;
  expect(error).toBeInstanceOf(UsageError);
  expect(error.message).toMatch(/the kernel own 6\.1 has no module named flux_capacitor/);
});

test('modules that name each other softly end', async () => {
  expect((await names('ring_a')).sort()).toEqual(['ring_a', 'ring_b']);
});

test('a kernel without modules has none to give', async () => {
  expect(await collectModules({ ...kernel, modulesDir: undefined }, ['anything'], (tool) => [tool])).toEqual([]);
});
