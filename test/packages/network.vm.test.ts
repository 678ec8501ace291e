// The network is needed once: warm caches do without, cold ones say so, and a download that was cut short
// is never taken for a whole one.
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { once } from 'node:events';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { EnvironmentError } from '../../src/errors.ts';
import { boot } from '../../src/machine/boot.ts';
import { resolveParts } from '../../src/machine/parts.ts';
import { cachedTree, ensureTree, silentProgress } from '../../src/packages/index.ts';
import { machineDirectories, machineName } from '../machine/nothing-left.ts';
import { breakApt } from './broken-apt.ts';

let scratch: string;
const before = { ...process.env };
beforeEach(async () => { scratch = await mkdtemp(join(tmpdir(), 'network-test-')); });
afterEach(async () => {
  for (const name of ['PATH', 'ROOTPORT_CACHE', 'ROOTPORT_DEBIAN_MIRROR']) {
    if (before[name] === undefined) delete process.env[name];
    else process.env[name] = before[name];
  }
  await rm(scratch, { recursive: true, force: true });
});

test('with a warm cache a machine boots, and apt-get is not so much as asked', async () => {
  await resolveParts({});
  const called = await breakApt(scratch);
  const machine = await boot();
  expect((await machine.guest.run('echo up')).stdout).toBe('up\n');
  await machine.close();
  expect(existsSync(called)).toBe(false);
});

test('with a cold cache and no network a boot is one EnvironmentError that says what to do, and leaves nothing', async () => {
  const directories = machineDirectories(machineName(process.pid));
  process.env['ROOTPORT_CACHE'] = join(scratch, 'cache');
  process.env['ROOTPORT_DEBIAN_MIRROR'] = 'http://127.0.0.1:9/debian';
  const error = await boot().catch((one: unknown) => one) as EnvironmentError;
  expect(error).toBeInstanceOf(EnvironmentError);
  expect(error.summary).toMatch(/^apt-get update failed on the package lists:\n(Err|E|W):/);
  expect(error.hint).toMatch(/needs the network once.*ROOTPORT_CACHE/);
  expect(await readdir(join(scratch, 'cache', 'partial'))).toEqual([]);
  expect((await readdir(join(scratch, 'cache'))).sort()).toEqual(['locks', 'partial']);
  expect(machineDirectories(machineName(process.pid))).toEqual(directories);
});

test('with a cold cache and no apt-get a boot says what can be handed over instead', async () => {
  process.env['ROOTPORT_CACHE'] = join(scratch, 'cache');
  await breakApt(scratch);
  const error = await boot().catch((one: unknown) => one) as EnvironmentError;
  expect(error).toBeInstanceOf(EnvironmentError);
  expect(error.hint).toMatch(/hand over your own: qemu: .*kernel: .*userland: .*ROOTPORT_DEBIAN_MIRROR/);
  expect(await readdir(join(scratch, 'cache', 'partial'))).toEqual([]);
});

test('a run killed while it lays out a tree leaves none that is taken, and the next run sweeps it and has the whole', async () => {
  process.env['ROOTPORT_CACHE'] = join(scratch, 'cache');
  const child = spawn(process.execPath, [fileURLToPath(new URL('killed-download.mjs', import.meta.url))], { stdio: 'inherit', env: { ...process.env } });
  expect(await once(child, 'exit')).toEqual([null, 'SIGKILL']);
  expect(await readdir(join(scratch, 'cache', 'partial'))).toHaveLength(1);
  expect(cachedTree('userland')).toBeUndefined();

  const tree = await ensureTree('userland', silentProgress);
  expect(cachedTree('userland')).toBe(tree);
  expect(existsSync(join(tree, 'usr/sbin/dropbear'))).toBe(true);
  expect(existsSync(join(tree, '.apt'))).toBe(false);
  expect(await readdir(join(scratch, 'cache', 'partial'))).toEqual([]);
});
