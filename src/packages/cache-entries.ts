// What the cache takes on disk, and taking entries out of it so that no half of one is ever left in place.
import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { execa } from 'execa';
import { cacheRoot, listEntries, withLock, type CacheEntry } from './cache.ts';
import type { Progress } from './progress.ts';

export interface SizedEntry extends CacheEntry {
  readonly sizeBytes: number;
}

/** Every entry with the space that it takes. */
export async function sizedEntries(): Promise<SizedEntry[]> {
  const entries = await listEntries();
  const sizes = await diskUsage(entries.map(({ path }) => path));
  return entries.map((entry) => ({ ...entry, sizeBytes: sizes.get(entry.path) ?? 0 }));
}

/** Bytes on disk by path; one that went meanwhile is left out. */
async function diskUsage(paths: readonly string[]): Promise<Map<string, number>> {
  if (paths.length === 0) return new Map();
  const { stdout } = await execa('du', ['-s', '-B1', '--', ...paths], { reject: false, env: { LC_ALL: 'C' } });
  return new Map((stdout ?? '').split('\n').map((line) => line.split('\t')).map(([size, path]) => [path ?? '', Number(size)]));
}

/**
 * Remove an entry. Whoever is building it right now is waited for; whoever is using it is not. It is
 * moved away first: a removal that is cut short leaves nothing that looks whole. One that is gone already is no error.
 * @param only asked once nobody else builds or removes it: whether it is still to go
 */
export async function removeEntry(
  { kind, key, path }: Pick<CacheEntry, 'kind' | 'key' | 'path'>, progress: Progress, only: () => Promise<boolean> = async () => true,
): Promise<void> {
  const name = kind === 'partial' ? key.replace(/-[0-9a-f]{12}$/, '') : `${kind}-${key.replace(/\.json$/, '')}`;
  await withLock(name, progress, async () => {
    if (!existsSync(path) || !await only()) return;
    if (kind === 'partial') return rm(path, { recursive: true, force: true });
    const away = join(cacheRoot(), 'partial', `${name}-${randomBytes(6).toString('hex')}`);
    await mkdir(join(cacheRoot(), 'partial'), { recursive: true });
    await rename(path, away);
    return rm(away, { recursive: true, force: true });
  });
}

/** `172 MB`; powers of ten, as disks are sold. */
export function formatBytes(bytes: number): string {
  if (bytes >= 1e9) return `${(bytes / 1e9).toFixed(1)} GB`;
  if (bytes >= 1e6) return `${Math.round(bytes / 1e6)} MB`;
  return `${Math.ceil(bytes / 1e3)} kB`;
}
