import { describe, expect, test } from '@jest/globals';
import { CpioArchive } from '../../src/image/cpio.ts';

interface Entry { name: string; mode: number; content: string; links: number; device: [number, number] }

/** The newc format read back, as the kernel's buffer-format.rst words it. */
function parse(archive: Buffer): Entry[] {
  const entries: Entry[] = [];
  for (let at = 0; at < archive.length;) {
    expect(archive.toString('latin1', at, at + 6)).toBe('070701');
    const field = (index: number): number => Number.parseInt(archive.toString('latin1', at + 6 + index * 8, at + 14 + index * 8), 16);
    const nameEnd = at + 110 + field(11), start = (nameEnd + 3) & ~3;
    entries.push({
      name: archive.toString('utf8', at + 110, nameEnd - 1), mode: field(1), links: field(4),
      content: archive.toString('utf8', start, start + field(6)), device: [field(9), field(10)],
    });
    at = (start + field(6) + 3) & ~3;
  }
  return entries;
}

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
    expect(parse(archive.finish())).toEqual([
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
    expect(parse(archive.finish()).map(({ name }) => name)).toEqual(['a', 'a/b', 'a/b/c', 'a/b/d', 'TRAILER!!!']);
  });

  test('whatever the lengths of names and contents: everything begins on four bytes', () => {
    const archive = new CpioArchive();
    for (let length = 0; length < 9; length++) archive.file(`n${'x'.repeat(length)}`, 'y'.repeat(length));
    const bytes = archive.finish();
    expect(bytes.length % 4).toBe(0);
    expect(parse(bytes).slice(0, -1).map(({ content }) => content.length)).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8]);
  });

  test('names are counted in bytes, not characters', () => {
    const archive = new CpioArchive();
    archive.file('käse', 'gut');
    expect(parse(archive.finish())[0]).toMatchObject({ name: 'käse', content: 'gut' });
  });
});
