import { describe, expect, test } from '@jest/globals';
import { CpioArchive } from '../../src/image/cpio.ts';
import { parseCpio } from './cpio-reader.ts';

test('an archive of one file is these bytes', () => {
  const archive = new CpioArchive();
  archive.file('ab', 'xyz', 0o600);
  expect(archive.finish().toString('latin1')).toBe([
    '070701', '00000001', '00008180', '00000000', '00000000', '00000001', '00000000', '00000003',
    '00000000', '00000000', '00000000', '00000000', '00000003', '00000000', 'ab\0', '\0\0\0', 'xyz', '\0',
    '070701', '00000002', '00000000', '00000000', '00000000', '00000001', '00000000', '00000000',
    '00000000', '00000000', '00000000', '00000000', '0000000b', '00000000', 'TRAILER!!!\0', '\0\0\0',
  ].join(''));
});

describe('what is put in comes out', () => {
  test('with type, mode, content and device numbers, the trailer last', () => {
    const archive = new CpioArchive();
    archive.directory('root', 0o700);
    archive.symlink('lib', 'usr/lib');
    archive.characterDevice('dev/null', 1, 3, 0o666);
    archive.file('init', Buffer.from('#!/bin/sh\n'), 0o755);
    expect(parseCpio(archive.finish())).toEqual([
      { name: 'root', mode: 0o040700, content: '', links: 1, device: [0, 0] },
      { name: 'lib', mode: 0o120777, content: 'usr/lib', links: 1, device: [0, 0] },
      { name: 'dev', mode: 0o040755, content: '', links: 1, device: [0, 0] },
      { name: 'dev/null', mode: 0o020666, content: '', links: 1, device: [1, 3] },
      { name: 'init', mode: 0o100755, content: '#!/bin/sh\n', links: 1, device: [0, 0] },
      { name: 'TRAILER!!!', mode: 0, content: '', links: 1, device: [0, 0] },
    ]);
  });

  test('parents come before their children, once, and leading slashes are dropped', () => {
    const archive = new CpioArchive();
    archive.file('/a/b/c', '1');
    archive.file('a/b/d', '2');
    archive.directory('/a/b/');
    expect(parseCpio(archive.finish()).map(({ name }) => name)).toEqual(['a', 'a/b', 'a/b/c', 'a/b/d', 'TRAILER!!!']);
  });

  test('whatever the lengths of names and contents: everything begins on four bytes', () => {
    const archive = new CpioArchive();
    for (let length = 0; length < 9; length++) archive.file(`n${'x'.repeat(length)}`, 'y'.repeat(length));
    const bytes = archive.finish();
    expect(bytes.length % 4).toBe(0);
    expect(parseCpio(bytes).slice(0, -1).map(({ content }) => content.length)).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8]);
  });

  test('names are counted in bytes, not characters', () => {
    const archive = new CpioArchive();
    archive.file('käse', 'gut');
    expect(parseCpio(archive.finish())[0]).toMatchObject({ name: 'käse', content: 'gut' });
  });

  test('a path that is put in again is what it was last, once', () => {
    const archive = new CpioArchive();
    archive.symlink('usr/bin/mount', 'busybox');
    archive.file('usr/bin/x', '1');
    archive.file('/usr/bin/mount', 'real', 0o755);
    expect(parseCpio(archive.finish()).slice(2, -1)).toMatchObject([
      { name: 'usr/bin/mount', mode: 0o100755, content: 'real' }, { name: 'usr/bin/x' },
    ]);
  });
});
