import { execFileSync } from 'node:child_process';
import { copyFile, mkdir, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises';
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

test('the closure has libraries of libraries, where the loader looks for them, through links; what the tree lacks is left out', async () => {
  const tree = await mkdtemp(join(tmpdir(), 'elf-test-'));
  try {
    const directory = join(tree, 'usr/lib/x86_64-linux-gnu');
    await mkdir(directory, { recursive: true });
    const library = /=> (\/\S*libselinux\.so\.1)/.exec(execFileSync('ldd', ['/bin/ls'], { encoding: 'utf8' }))?.[1];
    const [name = '', of = ''] = library === undefined ? [readelf('/bin/ls')[0], '/bin/sh'] : ['libselinux.so.1', library];
    await copyFile(of, join(directory, 'real.so'));
    await symlink('real.so', join(directory, name));
    const libc = readelf(of).find((one) => one.startsWith('libc.')) ?? '';
    await copyFile('/bin/sh', join(directory, libc));
    const found = await libraryClosure(['/bin/ls'], tree);
    expect(found.get(`usr/lib/x86_64-linux-gnu/${name}`)).toBe(join(directory, 'real.so'));
    expect([...found.keys()].sort()).toEqual([name, libc].map((one) => `usr/lib/x86_64-linux-gnu/${one}`).sort());
  } finally {
    await rm(tree, { recursive: true });
  }
});

test.each([['/lib/x86_64-linux-gnu/own', 'usr/lib/x86_64-linux-gnu/own'], ['$ORIGIN/../lib/own', 'usr/lib/own'], ['/usr/lib/elsewhere', undefined]])(
  'a library in the directory that its program names (%s) is found there, and one of the tree\'s own by no link out of it', async (runPath, at) => {
    const tree = await mkdtemp(join(tmpdir(), 'elf-test-'));
    try {
      for (const path of ['usr/bin', 'usr/lib/own', 'usr/lib/x86_64-linux-gnu/own']) await mkdir(join(tree, path), { recursive: true });
      await writeFile(join(tree, 'own.c'), 'int own(void) { return 0; }');
      await writeFile(join(tree, 'main.c'), 'int own(void); int main(void) { return own(); }');
      execFileSync('gcc', ['-shared', '-o', 'libown.so', 'own.c'], { cwd: tree });
      execFileSync('gcc', ['-o', 'usr/bin/main', 'main.c', 'libown.so', `-Wl,-rpath,${runPath}`], { cwd: tree });
      if (at !== undefined) await copyFile(join(tree, 'libown.so'), join(tree, at, 'libown.so'));
      // Not of the tree: an absolute link leads to the host's own.
      await symlink('/etc/hostname', join(tree, 'usr/lib/x86_64-linux-gnu/libc.so.6'));
      expect([...await libraryClosure([join(tree, 'usr/bin/main')], tree)])
        .toEqual(at === undefined ? [] : [[`${at}/libown.so`, join(tree, at, 'libown.so')]]);
    } finally {
      await rm(tree, { recursive: true });
    }
  });
