// The cache over a directory of each test's own; a second process where two of them meet.
import { spawn, type ChildProcess } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { homedir, tmpdir } from 'node:os';
import { join } from 'node:path';
import { once } from 'node:events';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { EnvironmentError } from '../../src/errors.ts';
import { cached, cacheRoot, ensureEntry, entryPath, listEntries, withLock } from '../../src/packages/cache.ts';
import { silentProgress, type Progress } from '../../src/packages/progress.ts';

let root: string;
const children: ChildProcess[] = [];
const before = { ...process.env };
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'cache-test-'));
  process.env['ROOTPORT_CACHE'] = root;
});
afterEach(async () => {
  for (const child of children.splice(0)) child.kill('SIGKILL');
  for (const name of ['ROOTPORT_CACHE', 'PATH']) {
    if (before[name] === undefined) delete process.env[name];
    else process.env[name] = before[name];
  }
  await rm(root, { recursive: true, force: true });
});

const fill = (content: string) => async (directory: string): Promise<void> => { await writeFile(join(directory, 'file'), content); };
const partials = async (): Promise<string[]> => readdir(join(root, 'partial')).catch(() => []);

describe('where the cache is', () => {
  test('ROOTPORT_CACHE wins, then XDG_CACHE_HOME, then the home directory; empty is unset', () => {
    expect(cacheRoot({ ROOTPORT_CACHE: '/a', XDG_CACHE_HOME: '/b' })).toBe('/a');
    expect(cacheRoot({ XDG_CACHE_HOME: '/b' })).toBe('/b/rootport');
    expect(cacheRoot({ ROOTPORT_CACHE: '', XDG_CACHE_HOME: '' })).toBe(join(homedir(), '.cache/rootport'));
  });

  test('a relative ROOTPORT_CACHE is made absolute: programs are run from other directories', () => {
    expect(cacheRoot({ ROOTPORT_CACHE: 'cache' })).toBe(join(process.cwd(), 'cache'));
  });
});

describe('an entry', () => {
  test('is built once, and taken as it is afterwards', async () => {
    const path = await ensureEntry('kind', 'key', silentProgress, fill('one'));
    expect(path).toBe(entryPath('kind', 'key'));
    expect(await ensureEntry('kind', 'key', silentProgress, async () => { throw new Error('built again'); })).toBe(path);
    expect(await readFile(join(path, 'file'), 'utf8')).toBe('one');
    expect(cached('kind', 'key')).toBe(path);
  });

  test('whose build throws leaves nothing, and the next one builds', async () => {
    const failing = ensureEntry('kind', 'key', silentProgress, async (directory) => {
      await fill('half')(directory);
      throw new RangeError('disk full');
    });
    await expect(failing).rejects.toThrow(RangeError);
    expect(cached('kind', 'key')).toBeUndefined();
    expect(existsSync(entryPath('kind', 'key'))).toBe(false);
    expect(await partials()).toEqual([]);
    expect(await readFile(join(await ensureEntry('kind', 'key', silentProgress, fill('whole')), 'file'), 'utf8')).toBe('whole');
  });

  test('is not there for others while it is being built', async () => {
    await ensureEntry('kind', 'key', silentProgress, async (directory) => {
      await fill('half')(directory);
      expect(cached('kind', 'key')).toBeUndefined();
      expect(existsSync(entryPath('kind', 'key'))).toBe(false);
    });
    expect(cached('kind', 'key')).toBeDefined();
  });

  test('without its mark of completeness is not taken, and is replaced', async () => {
    await mkdir(entryPath('kind', 'key'), { recursive: true });
    await writeFile(join(entryPath('kind', 'key'), 'stale'), '');
    expect(cached('kind', 'key')).toBeUndefined();
    const path = await ensureEntry('kind', 'key', silentProgress, fill('whole'));
    expect((await readdir(path)).sort()).toEqual(['.complete', 'file']);
  });

  test('sweeps what a killed run left of it, and not what belongs to another', async () => {
    for (const name of ['kind-key-0123456789ab', 'kind-other-0123456789ab', 'kind-key-two-0123456789ab']) {
      await mkdir(join(root, 'partial', name), { recursive: true });
    }
    await ensureEntry('kind', 'key', silentProgress, fill('whole'));
    expect((await partials()).sort()).toEqual(['kind-key-two-0123456789ab', 'kind-other-0123456789ab']);
  });

  test('is listed, a half-built one as not complete, locks not at all', async () => {
    await ensureEntry('kind', 'key', silentProgress, fill('one'));
    await mkdir(join(root, 'partial', 'kind-x-1'), { recursive: true });
    expect((await listEntries()).map(({ kind, key, complete }) => [kind, key, complete])).toEqual([
      ['kind', 'key', true], ['partial', 'kind-x-1', false],
    ]);
  });
});

describe('the lock', () => {
  test('two calls at once build once', async () => {
    let builds = 0;
    const build = async (directory: string): Promise<void> => { builds += 1; await fill('one')(directory); };
    const paths = await Promise.all([1, 2, 3].map(() => ensureEntry('kind', 'key', silentProgress, build)));
    expect([builds, new Set(paths).size]).toEqual([1, 1]);
  });

  test('different entries do not wait for each other', async () => {
    await withLock('kind-a', silentProgress, async () => {
      await ensureEntry('kind', 'b', silentProgress, fill('b'));
    });
    expect(cached('kind', 'b')).toBeDefined();
  });

  test('one held by another process is waited for, said so after a second, and freed by kill -9', async () => {
    const holder = await holdInAnotherProcess('kind-key');
    const notes: string[] = [];
    const progress: Progress = { ...silentProgress, note: (text) => { notes.push(text); holder.kill('SIGKILL'); } };
    let built = false;
    await ensureEntry('kind', 'key', progress, async (directory) => {
      built = true;
      expect(holder.killed).toBe(true);
      await fill('one')(directory);
    });
    expect(built).toBe(true);
    expect(notes).toEqual(['waiting for another rootport that is preparing kind-key']);
  });

  test('is freed when the work throws', async () => {
    await expect(withLock('x', silentProgress, async () => { throw new RangeError('no'); })).rejects.toThrow(RangeError);
    await expect(withLock('x', silentProgress, async () => 7)).resolves.toBe(7);
  });

  test('without flock on the PATH is an EnvironmentError that says what to install', async () => {
    process.env['PATH'] = root;
    const error = await withLock('x', silentProgress, async () => 7).catch((one: unknown) => one) as EnvironmentError;
    expect(error).toBeInstanceOf(EnvironmentError);
    expect(error.message).toMatch(/flock is not on the PATH\n {2}hint: install util-linux/);
  });

  test('in a cache that cannot be written is an EnvironmentError that names it', async () => {
    await writeFile(join(root, 'file'), '');
    process.env['ROOTPORT_CACHE'] = join(root, 'file');
    const error = await withLock('x', silentProgress, async () => 7).catch((one: unknown) => one) as EnvironmentError;
    expect(error).toBeInstanceOf(EnvironmentError);
    expect(error.message).toContain(`the cache ${root}/file cannot be written`);
    expect(error.hint).toMatch(/ROOTPORT_CACHE/);
  });
});

/** What a rootport holds: flock(1) on the file, ended when its standard input does. */
async function holdInAnotherProcess(name: string): Promise<ChildProcess> {
  await mkdir(join(root, 'locks'), { recursive: true });
  const script = `
    const { spawn } = require('node:child_process');
    const flock = spawn('flock', ['-x', process.argv[1], 'sh', '-c', 'echo locked; read -r _ || :'], { stdio: ['pipe', 'pipe', 'inherit'] });
    flock.stdout.once('data', () => console.log('locked'));
    setInterval(() => {}, 1000);`;
  const child = spawn(process.execPath, ['-e', script, join(root, 'locks', name)], { stdio: ['ignore', 'pipe', 'inherit'] });
  children.push(child);
  await once(child.stdout, 'data');
  return child;
}
