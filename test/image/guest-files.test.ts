import { chmod, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { UsageError } from '../../src/errors.ts';
import { checkFiles, filesArchive, withArchive } from '../../src/image/guest-files.ts';
import { parseCpio } from './cpio-reader.ts';

let directory = '', program = '', data = '', image = '';
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'guest-files-test-'));
  [program, data, image] = ['program', 'data', 'image'].map((name) => join(directory, name)) as [string, string, string];
  await writeFile(program, '#!/bin/sh\n');
  await chmod(program, 0o700);
  await writeFile(data, 'data');
  await writeFile(image, 'what the image holds');
  await mkdir(join(directory, 'run'));
});
afterAll(async () => { await rm(directory, { recursive: true }); });

describe('files', () => {
  test.each<[string, () => Record<string, string>, RegExp]>([
    ['a relative path', () => ({ 'root/x': data }), /"root\/x" is not the absolute path of a file in the guest/],
    ['a path that goes up', () => ({ '/root/../x': data }), /is not the absolute path/],
    ['a directory\'s path', () => ({ '/root/': data }), /is not the absolute path/],
    ['the root', () => ({ '/': data }), /is not the absolute path/],
    ['a path that a mount hides', () => ({ '/tmp/x': data }), /\/tmp\/x cannot be set: \/tmp is the guest's own[^]*guest\.upload/],
    ['the first process', () => ({ '/init': data }), /\/init cannot be set/],
    ['the harness\'s key', () => ({ '/etc/rootport/host_key': data }), /cannot be set: \/etc\/rootport/],
    ['a file of the host that is not there', () => ({ '/root/x': '/nowhere/x' }), /\/root\/x is to be "\/nowhere\/x", which is not there/],
    ['a directory of the host', () => ({ '/root/x': directory }), /which is not a regular file/],
    ['no path at all', () => ({ '/root/x': 7 as unknown as string }), /is to be 7, which is not there/],
  ])('with %s are a UsageError that says so', (_, files, message) => {
    expect(() => checkFiles(files())).toThrow(UsageError);
    expect(() => checkFiles(files())).toThrow(message);
  });

  test('that can be are taken, names that only begin like a mount among them', () => {
    expect(() => checkFiles({ '/root/x': data, '/devices/y': program, '/initial': data })).not.toThrow();
  });

  test('of which there are none leave the image as it is', async () => {
    expect(await withArchive(image, await filesArchive({}), join(directory, 'run'))).toBe(image);
  });

  test('stand behind the image, executable where the host\'s are, /lib below /usr as the guest has it', async () => {
    const own = await withArchive(image, await filesArchive({ '/lib/firmware/x': data, '/root/run': program }), join(directory, 'run'));
    const bytes = await readFile(own);
    expect(bytes.toString('latin1', 0, 20)).toBe('what the image holds');
    expect(parseCpio(bytes.subarray(20)).filter(({ name }) => /x|run/.test(name))).toMatchObject([
      { name: 'usr/lib/firmware/x', mode: 0o100644, content: 'data' }, { name: 'root/run', mode: 0o100755, content: '#!/bin/sh\n' },
    ]);
    expect((await readFile(image, 'utf8'))).toBe('what the image holds');
  });
});
