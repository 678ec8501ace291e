// A directory that `make -C` takes for building modules, out of Debian's header packages laid out in
// the cache: linux-headers-<release>, its -common part, and linux-kbuild.
import { existsSync } from 'node:fs';
import { chmod, cp, open, readdir, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { join, relative } from 'node:path';
import { BootError } from '../errors.ts';
import { entryPath } from '../packages/index.ts';
import { isElf } from './elf.ts';

/**
 * Fill `<directory>/build` and `<directory>/kbuild` from the tree. Paths between the cache's entries
 * are relative, so that the cache can be moved as a whole.
 */
export async function prepareHeaders(tree: string, release: string, directory: string, key: string): Promise<void> {
  const headers = join(tree, 'usr/src', `linux-headers-${release}`);
  const common = (await readdir(join(tree, 'usr/src'))).find((name) => name.endsWith('-common'));
  const kbuild = (await readdir(join(tree, 'usr/lib'))).find((name) => name.startsWith('linux-kbuild-'));
  if (!existsSync(headers) || common === undefined || kbuild === undefined) {
    throw new BootError(`${tree} lacks headers for ${release}`, { hint: 'rootport cache clean, then try again' });
  }
  const build = join(directory, 'build');
  await cp(headers, build, { recursive: true, verbatimSymlinks: true });
  // 6.12's headers carry vmlinux for BTF, which would ask for pahole; modules do without.
  await rm(join(build, 'vmlinux'), { force: true });
  const toCommon = relative(join(entryPath('kernels', key), 'build'), join(tree, 'usr/src', common));
  await writeFile(join(build, 'Makefile'),
    `include $(dir $(lastword $(MAKEFILE_LIST)))${toCommon}/Makefile\n`);
  await cp(join(tree, 'usr/lib', kbuild), join(directory, 'kbuild'), { recursive: true, verbatimSymlinks: true });
  const toLoader = relative(entryPath('kernels', key), tree);
  await wrapPrograms(join(directory, 'kbuild'), '..', toLoader);
  for (const name of ['scripts', 'tools']) {
    await rm(join(build, name), { force: true });
    await symlink(join('..', 'kbuild', name), join(build, name));
  }
}

/**
 * Debian's kbuild programs are linked against their own suite's libraries: each becomes a script that
 * runs it through the tree's loader, so that any host can build for any kernel.
 */
async function wrapPrograms(directory: string, toEntry: string, toTree: string): Promise<void> {
  for (const entry of await readdir(directory, { withFileTypes: true })) {
    const path = join(directory, entry.name);
    if (entry.isDirectory()) await wrapPrograms(path, join('..', toEntry), toTree);
    if (!entry.isFile() || !(await startsAsElf(path)) || !/^[a-z_0-9-]+$/.test(entry.name)) continue;
    // Debian's modpost and objtool are launchers that look for <own name>.real-<target> beside them.
    const real = [`${entry.name}.real-lsb-64`, `${entry.name}.real-x86`].find((name) => existsSync(join(directory, name)));
    const program = real ?? `.${entry.name}.elf`;
    if (real === undefined) await rename(path, join(directory, program));
    await writeFile(path, [
      '#!/bin/sh',
      'here=$(dirname "$(readlink -f "$0")")',
      `tree="$here/${toEntry}/${toTree}"`,
      `exec "$tree/usr/lib64/ld-linux-x86-64.so.2" --library-path "$tree/usr/lib/x86_64-linux-gnu" "$here/${program}" "$@"`,
      '',
    ].join('\n'));
    await chmod(path, 0o755);
  }
}

async function startsAsElf(path: string): Promise<boolean> {
  const file = await open(path);
  try {
    const { buffer } = await file.read(Buffer.alloc(4), 0, 4, 0);
    return isElf(buffer);
  } finally {
    await file.close();
  }
}
