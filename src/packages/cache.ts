// The cache: directories that are whole or not there at all, shared by parallel runs.
//
// An entry is built in a directory of its own beside the others and renamed into place when it is
// complete, so that a download that was cut short is never taken for a whole one. flock(1) keeps two
// runs from building the same entry; the kernel drops the lock when its holder dies, however it dies.
import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, readdir, rename, rm, stat, writeFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join, resolve } from 'node:path';
import { execa } from 'execa';
import { EnvironmentError } from '../errors.ts';
import type { Progress } from './progress.ts';

/** `$ROOTPORT_CACHE`, else `$XDG_CACHE_HOME/rootport`, else `~/.cache/rootport`. */
export function cacheRoot(env: NodeJS.ProcessEnv = process.env): string {
  if (env['ROOTPORT_CACHE']) return resolve(env['ROOTPORT_CACHE']);
  return join(env['XDG_CACHE_HOME'] || join(homedir(), '.cache'), 'rootport');
}

const COMPLETE = '.complete';

export function entryPath(kind: string, key: string): string {
  return join(cacheRoot(), kind, key);
}

/** The entry's directory when it is there and whole. */
export function cached(kind: string, key: string): string | undefined {
  const path = entryPath(kind, key);
  return existsSync(join(path, COMPLETE)) ? path : undefined;
}

/**
 * The entry's directory, built by `build` when it is not there yet. `build` fills the empty directory
 * it is given; when it rejects, nothing is kept.
 */
export async function ensureEntry(
  kind: string,
  key: string,
  progress: Progress,
  build: (directory: string) => Promise<void>,
): Promise<string> {
  const there = cached(kind, key);
  if (there !== undefined) return there;
  return withLock(`${kind}-${key}`, progress, async () => {
    const meanwhile = cached(kind, key);
    if (meanwhile !== undefined) return meanwhile;
    const final = entryPath(kind, key);
    const partial = join(cacheRoot(), 'partial', `${kind}-${key}-${randomBytes(6).toString('hex')}`);
    await sweepPartials(`${kind}-${key}`);
    await mkdir(partial, { recursive: true });
    try {
      await build(partial);
      await writeFile(join(partial, COMPLETE), `${new Date().toISOString()}\n`);
      await mkdir(join(cacheRoot(), kind), { recursive: true });
      await rm(final, { recursive: true, force: true });
      await rename(partial, final);
    } catch (error) {
      await rm(partial, { recursive: true, force: true });
      throw error;
    }
    return final;
  });
}

/** What a killed run left of this very entry; safe, since the caller holds the entry's lock. */
async function sweepPartials(entry: string): Promise<void> {
  const directory = join(cacheRoot(), 'partial');
  const names = await readdir(directory).catch(() => [] as string[]);
  await Promise.all(names.filter((name) => name.replace(/-[0-9a-f]{12}$/, '') === entry)
    .map((name) => rm(join(directory, name), { recursive: true, force: true })));
}

/** Run `work` while holding the named lock, across processes. */
export async function withLock<T>(name: string, progress: Progress, work: () => Promise<T>): Promise<T> {
  const directory = join(cacheRoot(), 'locks');
  try {
    await mkdir(directory, { recursive: true });
  } catch (cause) {
    throw new EnvironmentError(`the cache ${cacheRoot()} cannot be written`, {
      cause,
      hint: 'set ROOTPORT_CACHE to a directory that this user can write',
    });
  }
  // The shell says when it holds the lock, and keeps it until its standard input ends: with us.
  const holder = execa('flock', ['-x', join(directory, name), 'sh', '-c', 'echo locked; read -r _ || :'], {
    stdin: 'pipe', stdout: 'pipe', reject: false, buffer: false, forceKillAfterDelay: false,
  });
  const slow = setTimeout(() => progress.note(`waiting for another rootport that is preparing ${name}`), 1000);
  try {
    const locked = await new Promise<boolean>((resolve) => {
      holder.stdout.once('data', () => resolve(true));
      void holder.then(() => resolve(false));
    });
    if (!locked) {
      const { stderr, code } = await holder as { stderr?: string; code?: string };
      throw new EnvironmentError(
        code === 'ENOENT' ? 'flock is not on the PATH' : `the lock ${name} cannot be taken: ${stderr ?? ''}`,
        { hint: 'install util-linux (Debian: apt-get install util-linux)' },
      );
    }
    clearTimeout(slow);
    return await work();
  } finally {
    clearTimeout(slow);
    holder.stdin.end();
    await holder;
  }
}

export interface CacheEntry {
  readonly kind: string;
  readonly key: string;
  readonly path: string;
  readonly complete: boolean;
  readonly madeAt: Date;
}

/** What the cache holds, for `rootport cache`. */
export async function listEntries(): Promise<CacheEntry[]> {
  const entries: CacheEntry[] = [];
  for (const kind of (await readdir(cacheRoot()).catch(() => [] as string[])).sort()) {
    if (kind === 'locks') continue;
    for (const key of (await readdir(join(cacheRoot(), kind)).catch(() => [] as string[])).sort()) {
      const path = join(cacheRoot(), kind, key);
      const { mtime } = await stat(path);
      entries.push({ kind, key, path, complete: kind !== 'partial', madeAt: mtime });
    }
  }
  return entries;
}
