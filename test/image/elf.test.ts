import { execFileSync } from 'node:child_process';
import { copyFile, mkdtemp, readFile, rm, symlink } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import { isElf, libraryClosure, neededLibraries } from '../../src/image/elf.ts';

const readelf = (path: string): string[] =>
  [...execFileSync('readelf', ['-d', path], { encoding: 'utf8' }).matchAll(/\(NEEDED\).*\[(.*)\]/g)].map((match) => match[1] ?? '');

test.each(['/bin/ls', '/bin/sh'])('the libraries that %s needs are those that readelf shows', async (path) => {
  const expected = readelf(path);
  expect(expected.length).toBeGreaterThan(0);
  expect(neededLibraries(await readFile(path))).toEqual(expected);
});

test('what is no ELF64, or cut short, needs nothing', async () => {
  const ls = await readFile('/bin/ls');
  expect(neededLibraries(Buffer.from('#!/bin/sh\n'))).toEqual([]);
  expect(neededLibraries(ls.subarray(0, 40))).toEqual([]);
  const elf32 = Buffer.from(ls);
  elf32[4] = 1;
  expect(neededLibraries(elf32)).toEqual([]);
  expect([isElf(ls), isElf(Buffer.from('\x7fELG')), isElf(Buffer.alloc(0))]).toEqual([true, false, false]);
});

test('the closure has libraries of libraries, by the name asked for, through links; what the directory lacks is left out', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'elf-test-'));
  try {
    const library = /=> (\/\S*libselinux\.so\.1)/.exec(execFileSync('ldd', ['/bin/ls'], { encoding: 'utf8' }))?.[1];
    const [name = '', of = ''] = library === undefined ? [readelf('/bin/ls')[0], '/bin/sh'] : ['libselinux.so.1', library];
    await copyFile(of, join(directory, 'real.so'));
    await symlink('real.so', join(directory, name));
    const libc = readelf(of).find((one) => one.startsWith('libc.'));
    await copyFile('/bin/sh', join(directory, libc ?? ''));
    const found = await libraryClosure(['/bin/ls'], directory);
    expect(found.get(name)).toBe(join(directory, 'real.so'));
    expect([...found.keys()].sort()).toEqual([name, libc].sort());
  } finally {
    await rm(directory, { recursive: true });
  }
});
