// Debian packages laid out as trees in the cache, without root: QEMU, kernels, headers, userland.
// The recipes are data, in images/trees.json.
import { readFileSync } from 'node:fs';
import { mkdir, readdir, rm, symlink, writeFile } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { basename, join } from 'node:path';
import { createHash } from 'node:crypto';
import { execa } from 'execa';
import { EnvironmentError, UsageError } from '../errors.ts';
import { Apt } from './apt.ts';
import { cached, ensureEntry } from './cache.ts';
import { packageFile } from './package-root.ts';
import type { Progress } from './progress.ts';

interface Recipe {
  readonly title: string;
  readonly suite: string;
  readonly backports?: boolean;
  readonly packages: readonly string[];
  /** A regular expression over package names: which of the closure are wanted. Default: all. */
  readonly only?: string;
}

function recipes(): Record<string, Recipe> {
  return JSON.parse(readFileSync(packageFile('images/trees.json'), 'utf8')) as Record<string, Recipe>;
}

/** Names that `ensureTree` takes. */
export function treeNames(): string[] {
  return Object.keys(recipes());
}

function find(name: string): { recipe: Recipe; key: string } {
  const all = recipes();
  const recipe = Object.hasOwn(all, name) ? all[name] : undefined;
  if (recipe === undefined) {
    throw new UsageError(`there is no package tree named ${JSON.stringify(name)}`, {
      hint: `the trees are ${treeNames().join(', ')}`,
    });
  }
  const hash = createHash('sha256').update(JSON.stringify(recipe)).digest('hex').slice(0, 8);
  return { recipe, key: `${name}-${hash}` };
}

/** The tree's directory when it is already in the cache. */
export function cachedTree(name: string): string | undefined {
  return cached('trees', find(name).key);
}

/**
 * The directory of a package tree, downloaded and laid out if it is not in the cache yet. `/usr/...`
 * of the packages is `<directory>/usr/...`; `<directory>/packages.txt` lists names and versions.
 *
 * @throws EnvironmentError without apt, without network, or when a signature is wrong.
 */
export async function ensureTree(name: string, progress: Progress): Promise<string> {
  const { recipe, key } = find(name);
  return ensureEntry('trees', key, progress, async (directory) => { await fill(recipe, directory, progress); });
}

/** The Debian suite that a package tree is of. */
export function treeSuite(name: string): string {
  return find(name).recipe.suite;
}

/**
 * Lay packages of a suite, and all that they depend on, out in `directory`, which is empty: for a cache
 * entry that is being built. Returns the paths inside `directory` that each package brought, by its name.
 *
 * @throws UsageError for a package that the suite does not have; EnvironmentError as `ensureTree`
 */
export function layOutPackages(
  title: string, suite: string, packages: readonly string[], directory: string, progress: Progress,
): Promise<ReadonlyMap<string, readonly string[]>> {
  return fill({ title, suite, packages }, directory, progress);
}

async function fill(recipe: Recipe, directory: string, progress: Progress): Promise<Map<string, string[]>> {
  progress.start(`${recipe.title}: fetching the package lists`);
  // Inside the entry that is being built: what a killed run leaves is swept with it.
  const work = join(directory, '.apt');
  await mkdir(work, { recursive: true });
  try {
    const apt = await Apt.open(work, { name: recipe.suite, backports: recipe.backports === true }, progress);
    const only = new RegExp(recipe.only ?? '');
    const packages = (await apt.closure(recipe.packages)).filter((one) => only.test(one.split('=')[0] ?? ''));
    progress.start(`${recipe.title}: downloading ${packages.length} packages`);
    const debs = join(work, 'debs');
    await apt.download(packages, debs, progress);
    progress.start(`${recipe.title}: laying out ${packages.length} packages`);
    const brought = await layOut(debs, directory, (done, total) => progress.update(done / total, ''));
    await writeFile(join(directory, 'packages.txt'), `${packages.join('\n')}\n`);
    progress.succeed(`${recipe.title}: ${packages.length} packages in the cache`);
    return brought;
  } catch (error) {
    progress.fail(`${recipe.title}: not prepared`);
    throw error;
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

const NOT_NEEDED = ['usr/share/doc', 'usr/share/man', 'usr/share/locale', 'usr/share/info', 'usr/share/lintian'];

async function layOut(debs: string, directory: string, report: (done: number, total: number) => void): Promise<Map<string, string[]>> {
  const brought = new Map<string, string[]>();
  await usrMerge(directory);
  const files = (await readdir(debs)).filter((name) => name.endsWith('.deb')).sort();
  const queue = [...files];
  let done = 0;
  const worker = async (): Promise<void> => {
    for (let file = queue.pop(); file !== undefined; file = queue.pop()) {
      const { failed, stdout, stderr } = await execa('dpkg-deb', ['--fsys-tarfile', join(debs, file)], {
        reject: false, buffer: { stdout: false },
      }).pipe('tar', ['-xv', '--quoting-style=literal', '--keep-directory-symlink', '--no-same-owner', '-C', directory], { reject: false });
      if (failed) throw new EnvironmentError(`${basename(file)} cannot be unpacked: ${stderr}`, { hint: 'is the disk full?' });
      brought.set(file.split('_')[0] ?? '', stdout.split('\n').map((line) => line.replace(/^\.\//, '').replace(/^(s?bin|lib|lib64)\//, 'usr/$1/')));
      report(++done, files.length);
    }
  };
  await Promise.all(Array.from({ length: Math.min(4, availableParallelism()) }, worker));
  await Promise.all(NOT_NEEDED.map((path) => rm(join(directory, path), { recursive: true, force: true })));
  return brought;
}

/** /bin, /sbin and /lib are links into /usr in every tree, whatever the packages were built for. */
async function usrMerge(directory: string): Promise<void> {
  for (const name of ['bin', 'sbin', 'lib', 'lib64']) {
    await mkdir(join(directory, 'usr', name), { recursive: true });
    await symlink(`usr/${name}`, join(directory, name));
  }
}
