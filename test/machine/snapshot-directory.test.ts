// A snapshot on disk, made up here: what was written is read again, and nothing odd is.
import { appendFile, mkdtemp, readFile, rm, stat, truncate, unlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { ProtocolError } from '../../src/errors.ts';
import { openSnapshot, parseRecord, SNAPSHOT_FORMAT, writeSnapshot } from '../../src/machine/snapshot-directory.ts';
import { closeFd, createMemfd } from '../../src/native/index.ts';

const MIB = 2 ** 20;
const guest = { privateKey: 'private', hostKeyBase64: 'AAAA', nonce: '0123' };
/** Holes, a piece larger than any buffer, one byte at the end. */
const memory = Buffer.alloc(16 * MIB);
memory.fill(0x5a, 3 * MIB, 9 * MIB);
memory[0x123456] = 1;
memory[16 * MIB - 1] = 2;

let place: string, directory: string;
beforeEach(async () => {
  place = await mkdtemp(join(tmpdir(), 'rootport-snapshot-directory-'));
  directory = await mkdtemp(join(place, 'snapshot-'));
  await writeFile(join(place, 'ram'), memory);
  await writeSnapshot(directory, { of: { qemu: 'one' }, guest, state: Buffer.from('state'), memoryPath: join(place, 'ram'), bootConsole: 'Linux\n' });
});
afterEach(() => rm(place, { recursive: true }));
const file = (name: string): string => join(directory, name);

test('what was written is read again, the memory without its holes', async () => {
  const open = await openSnapshot(directory);
  expect(open).toMatchObject({ state: Buffer.from('state'), bootConsole: 'Linux\n', record: { format: SNAPSHOT_FORMAT, of: { qemu: 'one' }, guest, memoryBytes: 16 * MIB } });
  expect(open.memory.usedBytes).toBe(6 * MIB + 2 * 64 * 1024);
  expect((await stat(file('memory'))).size).toBe(open.memory.usedBytes);
  const fd = createMemfd('test', 16 * MIB);
  try {
    await open.memory.load(fd);
    expect((await readFile(`/proc/self/fd/${fd}`)).equals(memory)).toBe(true);
  } finally {
    closeFd(fd);
    await open.memory.close();
  }
});

test('only its maker can look into it: the key to its guest is there', async () => {
  expect((await stat(directory)).mode & 0o777).toBe(0o700);
  for (const name of ['snapshot.json', 'memory', 'state', 'console']) expect((await stat(file(name))).mode & 0o777).toBe(0o600);
});

test('an open one is whole when its directory is gone', async () => {
  const open = await openSnapshot(directory);
  await rm(directory, { recursive: true });
  const fd = createMemfd('test', 16 * MIB);
  await open.memory.load(fd);
  expect((await readFile(`/proc/self/fd/${fd}`)).equals(memory)).toBe(true);
  closeFd(fd);
  await open.memory.close();
});

test.each([
  ['a memory file that was cut short', () => truncate(file('memory'), 6 * MIB), /the saved memory has 6291456 bytes and should have 6422528/],
  ['a memory file that grew', () => appendFile(file('memory'), 'x'), /has 6422529 bytes/],
  ['another state', () => writeFile(file('state'), 'stale'), /the saved state, 5 bytes, is not the one that was saved/],
  ['a record that was cut short', () => truncate(file('snapshot.json'), 100), /snapshot.json is not JSON/],
  ['a piece of memory beyond the guest\'s', async () => {
    const record = JSON.parse(await readFile(file('snapshot.json'), 'utf8')) as { extents: number[][] };
    record.extents[3] = [16 * MIB, 65536];
    await writeFile(file('snapshot.json'), JSON.stringify(record));
  }, /piece of 65536 bytes at 16777216, which cannot be/],
])('%s is a ProtocolError that says so', async (_, damage, message) => {
  await damage();
  const opened = openSnapshot(directory);
  await expect(opened).rejects.toThrow(ProtocolError);
  await expect(opened).rejects.toThrow(message);
});

test('a file that is missing is an error of the file system\'s', async () => {
  await unlink(file('state'));
  await expect(openSnapshot(directory)).rejects.toMatchObject({ code: 'ENOENT', syscall: 'open' });
});

describe('a record', () => {
  const good = { format: SNAPSHOT_FORMAT, madeAt: '2026', of: {}, guest, memoryBytes: 1, extents: [[0, 1]], stateSha256: 'ab' };

  test('that is good is taken', () => {
    expect(parseRecord(JSON.stringify(good))).toEqual(good);
  });

  test.each([
    [{ format: 99 }, /is of format 99/], [{ format: undefined }, /is of format none/], [{ madeAt: 7 }, /no good madeAt/], [{ of: [] }, /no good of/],
    [{ guest: null }, /no good guest.privateKey, guest.hostKeyBase64, guest.nonce/], [{ guest: { ...guest, nonce: '' } }, /no good guest.nonce/],
    [{ memoryBytes: 0 }, /no good memoryBytes/], [{ extents: [[0]] }, /no good extents/], [{ extents: [[0, -1]] }, /no good extents/], [{ extents: [[0, 0.5]] }, /no good extents/],
  ])('with %o is not', (change, message) => {
    expect(() => parseRecord(JSON.stringify({ ...good, ...change }))).toThrow(message);
  });

  test.each(['', 'null', '[]', '7'])('that is %p is not', (text) => {
    expect(() => parseRecord(text)).toThrow(ProtocolError);
  });
});
