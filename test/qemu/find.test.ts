// Which QEMU is taken, by scripts that answer --version as QEMU does, on a PATH of the test's own.
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { EnvironmentError, UsageError } from '../../src/errors.ts';
import { silentProgress } from '../../src/packages/index.ts';
import { defaultQemu, qemuNames, resolveQemu } from '../../src/qemu/find.ts';

let bin: string;
const path = process.env['PATH'];
beforeEach(async () => {
  bin = await mkdtemp(join(tmpdir(), 'find-test-'));
  process.env['PATH'] = bin;
});
afterEach(async () => {
  process.env['PATH'] = path;
  await rm(bin, { recursive: true });
});

async function install(says: string, program = 'qemu-system-x86_64'): Promise<string> {
  await writeFile(join(bin, program), `#!/bin/sh\necho '${says}'\n`);
  await chmod(join(bin, program), 0o755);
  return join(bin, program);
}

describe('when nothing is asked for', () => {
  test.each([
    ['6.2.0', '10.0'], ['7.1.9', '10.0'], ['7.2.0', 'host'], ['7.2.22', 'host'], ['8.2.2', 'host'], ['10.0.2', 'host'], ['11.1.3', 'host'],
  ])('a host with QEMU %s gives %s', async (version, taken) => {
    await install(`QEMU emulator version ${version} (Debian 1:x)`);
    expect(await defaultQemu()).toBe(taken);
  });

  test('a host without one, or with something else of its name, gives the tree', async () => {
    expect(await defaultQemu()).toBe('10.0');
    await install('hello');
    expect(await defaultQemu()).toBe('10.0');
  });

  test('the tree that is the default is one that there is', async () => {
    expect(qemuNames()).toContain(await defaultQemu());
  });
});

describe('the host\'s and one by path', () => {
  test('are run as they are, and known by version', async () => {
    const program = await install('QEMU emulator version 8.2.2 (Debian 1:8.2.2)');
    for (const choice of ['host', program]) {
      const qemu = await resolveQemu(choice, silentProgress);
      expect(qemu).toMatchObject({ version: { major: 8, minor: 2, text: '8.2.2' }, command: [program], env: {} });
      expect(qemu.name).toContain(`QEMU 8.2.2 (${choice === 'host' ? 'the host\'s' : 'by path'}, ${program})`);
    }
  });

  test('have companions beside them, or on the PATH, or none', async () => {
    const qemu = await resolveQemu(await install('QEMU emulator version 8.2.2'), silentProgress);
    expect(qemu.companion('qemu-img')).toBeUndefined();
    const image = await install('qemu-img', 'qemu-img');
    expect(qemu.companion('qemu-img')).toEqual([image]);
  });
});

describe('what cannot be had', () => {
  async function failure(choice: string): Promise<Error> {
    return resolveQemu(choice, silentProgress).then(() => { throw new Error('it was found'); }, (error: Error) => error);
  }

  test('the host\'s where there is none is an EnvironmentError that says how to install it', async () => {
    const error = await failure('host');
    expect(error).toBeInstanceOf(EnvironmentError);
    expect(error.message).toMatch(/not on the PATH\n {2}hint: install it .*qemu-system-x86/);
  });

  test('an unknown name is a UsageError that lists those there are', async () => {
    const error = await failure('9.9');
    expect(error).toBeInstanceOf(UsageError);
    expect(error.message).toContain(`one of ${qemuNames().join(', ')}`);
  });

  test('a path where nothing is is a UsageError', async () => {
    expect(await failure('./nothing')).toBeInstanceOf(UsageError);
  });

  test('a program that is no QEMU is an EnvironmentError that quotes it', async () => {
    const error = await failure(await install('hello'));
    expect(error).toBeInstanceOf(EnvironmentError);
    expect(error.message).toMatch(/did not answer as QEMU does: hello/);
  });
});
