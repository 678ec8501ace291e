// A bzImage made up here: setup header and payload where Linux's boot.rst puts them.
import { execFileSync } from 'node:child_process';
import { gzipSync } from 'node:zlib';
import { describe, expect, test } from '@jest/globals';
import { EnvironmentError, UsageError } from '../../src/errors.ts';
import { decompressFile, extractVmlinux } from '../../src/image/vmlinux.ts';

const vmlinux = Buffer.concat([Buffer.from('\x7fELF\x02\x01', 'latin1'), Buffer.alloc(5000, 'Linux version 6.1.0 ')]);
const xz = (bytes: Buffer): Buffer => execFileSync('xz', ['-c', '--check=crc32'], { input: bytes });

function bzImage(payload: Buffer, { setupSectors = 3, offset = 64 } = {}): Buffer {
  const start = ((setupSectors || 4) + 1) * 512 + offset;
  const image = Buffer.alloc(start + payload.length + 4 + 300, 0xee);
  image[0x1f1] = setupSectors;
  image.write('HdrS', 0x202, 'latin1');
  image.writeUInt32LE(offset, 0x248);
  image.writeUInt32LE(payload.length + 4, 0x24c);
  payload.copy(image, start);
  image.writeUInt32LE(vmlinux.length, start + payload.length);
  return image;
}

const tools = (tool: string): [string] => [tool];

describe('the kernel comes out of', () => {
  test.each([
    ['a gzip payload', bzImage(gzipSync(vmlinux))],
    ['an xz payload', bzImage(xz(vmlinux))],
    ['a payload that is not compressed', bzImage(vmlinux)],
    ['an image whose setup sectors are 0, which means 4', bzImage(gzipSync(vmlinux), { setupSectors: 0 })],
  ])('%s', async (_, image) => {
    expect((await extractVmlinux(image, tools)).equals(vmlinux)).toBe(true);
  });

  test('an ELF vmlinux as it is', async () => {
    expect(await extractVmlinux(vmlinux, tools)).toBe(vmlinux);
  });
});

describe('a UsageError that says what to give', () => {
  test.each([
    ['an empty file', Buffer.alloc(0), /neither a bzImage nor an ELF vmlinux/],
    ['a text', Buffer.alloc(4096, 'a'), /neither a bzImage nor an ELF vmlinux/],
    ['an unknown compression', bzImage(Buffer.from('BZh91AY&SY')), /not known here \(magic 425a68393141\)/],
    ['a payload that is no ELF', bzImage(gzipSync(Buffer.alloc(4000))), /not an ELF kernel/],
    ['a gzip payload that is cut short', bzImage(gzipSync(vmlinux).subarray(0, 40)), /damaged/],
    ['an xz payload that is cut short', bzImage(xz(vmlinux).subarray(0, 60)), /damaged/],
    ['a damaged gzip payload', bzImage(Buffer.concat([gzipSync(vmlinux).subarray(0, 30), Buffer.alloc(40, 7)])), /damaged/],
  ])('is what %s gets', async (_, image, message) => {
    const error = await extractVmlinux(image, tools).catch((one: unknown) => one) as UsageError;
    expect(error).toBeInstanceOf(UsageError);
    expect(error.message).toMatch(message);
  });
});

test('a decompressor that is not there is an EnvironmentError that says what to install', async () => {
  const error = await extractVmlinux(bzImage(xz(vmlinux)), () => ['/nowhere/xz']).catch((one: unknown) => one) as EnvironmentError;
  expect(error).toBeInstanceOf(EnvironmentError);
  expect(error.hint).toMatch(/xz-utils/);
});

test('a module is decompressed by its name\'s end, and left alone without one', async () => {
  expect((await decompressFile('a.ko.gz', gzipSync(vmlinux), tools)).equals(vmlinux)).toBe(true);
  expect((await decompressFile('a.ko.xz', xz(vmlinux), tools)).equals(vmlinux)).toBe(true);
  expect(await decompressFile('a.ko', vmlinux, tools)).toBe(vmlinux);
});
