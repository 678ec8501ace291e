import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from '@jest/globals';
import { UsageError } from '../../src/errors.ts';
import { defaultOptions } from '../../src/machine/default-options.ts';

const directory = mkdtempSync(join(tmpdir(), 'default-options-'));
const image = join(directory, 'vmlinuz');
writeFileSync(image, '');
afterAll(() => rmSync(directory, { recursive: true }));

test('variables that are unset or empty give no option', () => {
  expect(defaultOptions({ ROOTPORT_QEMU: '', ROOTPORT_KERNEL: '', ROOTPORT_BUSYBOX: '', ROOTPORT_KERNEL_BUILD: '' })).toEqual({});
});

test('names are handed on as they are', () => {
  expect(defaultOptions({ ROOTPORT_QEMU: '7.2', ROOTPORT_KERNEL: '6.12', ROOTPORT_ACCEL: 'tcg' })).toEqual({ qemu: '7.2', kernel: '6.12', accel: 'tcg' });
});

test('a kernel path is a built tree when it is a directory, and an image when it is a file', () => {
  expect(defaultOptions({ ROOTPORT_KERNEL: directory })).toEqual({ kernel: { tree: directory } });
  expect(defaultOptions({ ROOTPORT_KERNEL: image })).toEqual({ kernel: { image } });
});

test('an image is joined by its modules and by what builds them', () => {
  expect(defaultOptions({ ROOTPORT_KERNEL: image, ROOTPORT_KERNEL_MODULES: '/m', ROOTPORT_KERNEL_BUILD: '/b' }))
    .toEqual({ kernel: { image, modulesDir: '/m', buildDir: '/b' } });
});

test('a kernel path that leads nowhere is a UsageError', () => {
  expect(() => defaultOptions({ ROOTPORT_KERNEL: './none/such' })).toThrow(UsageError);
});

test('a userland is both programs, and one alone is a UsageError', () => {
  expect(defaultOptions({ ROOTPORT_BUSYBOX: '/b', ROOTPORT_DROPBEAR: '/d' })).toEqual({ userland: { busybox: '/b', dropbear: '/d' } });
  expect(() => defaultOptions({ ROOTPORT_DROPBEAR: '/d' })).toThrow(UsageError);
});
