// Debian packages that a user wants in the guest: what they hold and the shared libraries that it links
// against, as a cache entry of its own. Of what they depend on nothing else comes, since a guest unpacks its
// image at every boot: fio's whole closure is 160 MB, Python and dpkg among it, and what fio needs is 53.
// No maintainer script is run: there are no users made, no services, no alternatives.
import { createHash } from 'node:crypto';
import { copyFile, lstat, mkdir, readdir, readFile, readlink, realpath, rm, symlink } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { UsageError } from '../errors.ts';
import { ensureEntry, layOutPackages, treeSuite, type Progress } from '../packages/index.ts';
import type { CpioArchive } from './cpio.ts';
import { isElf, libraryClosure, LOADER } from './elf.ts';

/** A Debian package by its name; or only these of its programs (names without a directory). */
export type GuestPackage = string | { readonly name: string; readonly programs: readonly string[] };

export interface GuestPackages {
  /** Identity, for cache keys. */
  readonly key: string;
  addTo(archive: CpioArchive): Promise<void>;
}

interface Wanted {
  readonly name: string;
  readonly programs: readonly string[] | undefined;
}

/** Debian policy 5.6.1; one that ends in "-" would be apt's word for removing a package. */
const NAME = /^[a-z0-9][a-z0-9+.-]*[a-z0-9+.]$/;
const PROGRAM_DIRECTORIES = new Set(['usr/bin', 'usr/sbin', 'usr/games']);
/** Not for a guest without a package manager, a service manager or people. */
const LEFT_OUT = new RegExp('^(usr/share/(doc|doc-base|man|info|locale|lintian|bash-completion|zsh|fish|metainfo|applications|icons|pixmaps|bug|initramfs-tools)|' +
  'usr/include|usr/lib/(systemd|tmpfiles\\.d|sysusers\\.d|pkgconfig|x86_64-linux-gnu/pkgconfig)|etc/(init\\.d|cron\\.[a-z]+|ufw|apparmor\\.d))/|\\.l?a$');

/** What a dynamic program needs and does not name: its loader, and what libc opens to cancel a thread. */
const UNASKED = [LOADER, 'usr/lib/x86_64-linux-gnu/libgcc_s.so.1'];

/** @throws UsageError for what cannot be the name of a package, or of a program of it */
export function checkPackages(packages: readonly GuestPackage[]): void {
  if (!Array.isArray(packages)) throw new UsageError('packages is not an array', { hint: 'such as packages: [\'fio\', \'strace\']' });
  for (const { name, programs } of packages.map(wanted)) {
    if (typeof name !== 'string' || !NAME.test(name)) {
      throw new UsageError(`packages: ${JSON.stringify(name)} is not the name of a Debian package`, { hint: 'such as fio, without version or suite' });
    }
    const bad = programs?.length === 0 ? 'none' : programs?.find((one) => typeof one !== 'string' || !/^[^/\s]+$/.test(one));
    if (bad !== undefined) throw new UsageError(`packages: ${name}: programs are names without a directory, and not ${bad}`);
  }
}

/**
 * Download and pick, unless it is in the cache. Nothing is asked for, not even of apt, when it is.
 * @throws UsageError for a package that Debian does not have, or one without such a program;
 * EnvironmentError without apt or network
 */
export async function ensureGuestPackages(packages: readonly GuestPackage[], progress: Progress): Promise<GuestPackages | undefined> {
  if (packages.length === 0) return undefined;
  const all = packages.map(wanted).sort((a, b) => (a.name < b.name ? -1 : 1));
  const suite = treeSuite('userland');
  const hash = createHash('sha256').update(JSON.stringify(['packages 2', suite, all, LEFT_OUT.source])).digest('hex').slice(0, 16);
  const entry = await ensureEntry('packages', hash, progress, async (directory) => {
    const tree = join(directory, '.tree');
    await mkdir(tree);
    const names = [...new Set(all.map(({ name }) => name))];
    const brought = await layOutPackages(`guest packages ${names.join(', ')}`, suite, names, tree, progress);
    const paths: string[] = [];
    for (const one of all) paths.push(...chosen(one, brought));
    await pick(paths, tree, join(directory, 'root'));
    await rm(tree, { recursive: true });
  });
  return {
    key: hash,
    addTo: (archive) => addDirectory(archive, join(entry, 'root'), ''),
  };
}

function wanted(one: GuestPackage): Wanted {
  return typeof one === 'string' ? { name: one, programs: undefined } : { name: one.name, programs: one.programs };
}

function chosen({ name, programs }: Wanted, brought: ReadonlyMap<string, readonly string[]>): string[] {
  const all = brought.get(name);
  if (all === undefined) {
    throw new UsageError(`packages: ${name} is a virtual package: others provide it`, { hint: `name one of them (apt-cache showpkg ${name})` });
  }
  if (programs === undefined) return all.filter((path) => !LEFT_OUT.test(path));
  const has = all.filter((path) => PROGRAM_DIRECTORIES.has(dirname(path)));
  const lacking = programs.filter((program) => !has.some((path) => basename(path) === program));
  if (lacking.length > 0) {
    throw new UsageError(`packages: ${name} has no program ${lacking.join(', ')}`, {
      hint: has.length === 0 ? 'it has none at all' : `it has ${has.map((path) => basename(path)).sort().join(', ')}`,
    });
  }
  return has.filter((path) => programs.includes(basename(path)));
}

/** Copy these of the tree's files, what their links lead to, and the libraries that they need, into `root`. */
async function pick(paths: readonly string[], tree: string, root: string): Promise<void> {
  const done = new Set<string>(), programs: string[] = [];
  await mkdir(root);
  const queue = [...paths];
  for (let path = queue.pop(); path !== undefined; path = queue.pop()) {
    const from = join(tree, path), to = join(root, path);
    const stat = await lstat(from).catch(() => undefined); // what no guest needs was not laid out
    if (done.has(path) || stat === undefined || !(stat.isFile() || stat.isSymbolicLink())) continue;
    done.add(path);
    await mkdir(dirname(to), { recursive: true });
    if (stat.isSymbolicLink()) {
      const target = await readlink(from);
      await symlink(target, to);
      queue.push(inTree(target.startsWith('/') ? target : join('/', dirname(path), target)));
      continue;
    }
    await copyFile(from, to);
    if (isElf(await readFile(from))) programs.push(from);
  }
  const libraries = await libraryClosure(programs, tree);
  if (libraries.size > 0) for (const path of UNASKED) libraries.set(path, await realpath(join(tree, path)));
  for (const [path, file] of libraries) {
    if (done.has(path)) continue;
    await mkdir(join(root, dirname(path)), { recursive: true });
    await copyFile(file, join(root, path));
  }
}

/** A path of the guest as one of the tree, where /bin and the like are links into /usr. */
export function inTree(path: string): string {
  return path.replace(/^\/+/, '').replace(/^(s?bin|lib|lib64)\//, 'usr/$1/');
}

async function addDirectory(archive: CpioArchive, root: string, path: string): Promise<void> {
  for (const entry of await readdir(join(root, path), { withFileTypes: true })) {
    const at = join(path, entry.name), from = join(root, at);
    if (entry.isDirectory()) await addDirectory(archive, root, at);
    else if (entry.isSymbolicLink()) archive.symlink(at, await readlink(from));
    else archive.file(at, await readFile(from), ((await lstat(from)).mode & 0o111) === 0 ? 0o644 : 0o755);
  }
}
