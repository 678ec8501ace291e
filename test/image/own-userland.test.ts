import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { UsageError } from '../../src/errors.ts';
import { ownUserland } from '../../src/image/own-userland.ts';
import { silentProgress } from '../../src/packages/index.ts';

let directory = '';
beforeAll(async () => { directory = await mkdtemp(join(tmpdir(), 'rootport-test-')); });
afterAll(async () => { await rm(directory, { recursive: true }); });

/** A script that says this, whatever it is asked. */
async function saying(name: string, text: string): Promise<string> {
  const path = join(directory, name);
  await writeFile(path, `#!/bin/sh\ncat <<'end'\n${text}\nend\n`);
  await chmod(path, 0o755);
  return path;
}

const ALL = 'cat chmod depmod dirname dmesg grep ifconfig init insmod ls mkdir modprobe mount readlink rmmod sh sleep tail'.replaceAll(' ', '\n');

async function refusal(busybox: string, dropbear: string): Promise<UsageError> {
  const error: unknown = await ownUserland({ busybox, dropbear }, silentProgress).catch((one: unknown) => one);
  expect(error).toBeInstanceOf(UsageError);
  return error as UsageError;
}

describe('refused, with a reason', () => {
  test('a program that is not there', async () => {
    expect((await refusal('/nowhere/busybox', process.execPath)).message).toBe('the userland\'s busybox /nowhere/busybox does not exist');
  });

  test('a program that wants libraries, by their names', async () => {
    expect((await refusal(process.execPath, process.execPath)).message).toMatch(/busybox .* is not static: it wants .*libc\.so\.6/);
  });

  test('a busybox without what a guest needs', async () => {
    const busybox = await saying('poor-busybox', ALL.replace('modprobe\n', ''));
    expect((await refusal(busybox, busybox)).message).toContain(`the userland's busybox ${busybox} lacks modprobe\n`);
  });

  test('a file that does not run', async () => {
    const path = join(directory, 'text');
    await writeFile(path, 'text');
    expect((await refusal(path, path)).message).toMatch(/busybox does not run here: .*EACCES/);
  });

  test('something else in dropbear\'s place', async () => {
    const error = await refusal(await saying('busybox', ALL), await saying('sshd', 'OpenSSH_9.2'));
    expect(error.message).toMatch(/dropbear .*sshd -V did not answer as dropbear does: OpenSSH_9\.2/);
  });
});

test.each([
  ['Dropbear v2022.83', ['dropbear 2022.83 can lose a command that begins when another ends: take 2024.86 or newer']],
  ['Dropbear v2024.85', ['dropbear 2024.85 can lose a command that begins when another ends: take 2024.86 or newer']],
  ['Dropbear v2024.86', []],
  ['Dropbear v2025.88', []],
])('%s is taken; an old one with a word about it', async (says, expected) => {
  const notes: string[] = [];
  const own = { busybox: await saying('busybox', ALL), dropbear: await saying('dropbear', says) };
  const userland = await ownUserland(own, { ...silentProgress, note: (text) => notes.push(text) });
  expect(notes).toEqual(expected);
  expect(userland.key).toContain(own.dropbear);
});
