// Programs of the guest: Debian's out of a package tree, or a static busybox and dropbear handed over.
import { existsSync } from 'node:fs';
import { lstat, readFile, readlink, symlink } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { execa } from 'execa';
import { ensureTree, treeCommand, type Progress } from '../packages/index.ts';
import { addBusybox } from './busybox.ts';
import type { CpioArchive } from './cpio.ts';
import { libraryClosure, LOADER } from './elf.ts';
import { ownUserland, type OwnUserland } from './own-userland.ts';
import type { Decompressor } from './vmlinux.ts';

export interface Userland {
  /** Identity, for cache keys. */
  readonly key: string;
  readonly tools: Decompressor;
  /** Write modules.dep and the like for `<base>/lib/modules/<release>`. */
  depmod(base: string, release: string): Promise<void>;
  /** Put programs and libraries into the archive. */
  addTo(archive: CpioArchive): Promise<void>;
}

const PROGRAMS = [
  'usr/sbin/dropbear', 'usr/bin/kmod', 'usr/bin/lspci', 'usr/bin/setpci',
  'usr/sbin/mke2fs', 'usr/sbin/e2fsck', 'usr/sbin/badblocks', 'usr/sbin/dumpe2fs',
];
const LINKS: Record<string, string> = {
  'usr/sbin/insmod': '/usr/bin/kmod', 'usr/sbin/modprobe': '/usr/bin/kmod', 'usr/sbin/rmmod': '/usr/bin/kmod',
  'usr/sbin/depmod': '/usr/bin/kmod', 'usr/sbin/modinfo': '/usr/bin/kmod', 'usr/sbin/lsmod': '/usr/bin/kmod',
  'usr/sbin/mkfs.ext4': 'mke2fs', 'usr/sbin/fsck.ext4': 'e2fsck',
};

export async function resolveUserland(own: OwnUserland | undefined, progress: Progress): Promise<Userland> {
  return own === undefined ? debianUserland(await ensureTree('userland', progress)) : ownUserland(own, progress);
}

function debianUserland(tree: string): Userland {
  return {
    key: basename(tree),
    tools: (tool) => treeCommand(tree, `usr/bin/${tool}`),
    async depmod(base, release) {
      // kmod is what its name says: the loader passes the name on.
      const [loader, ...args] = treeCommand(tree, 'usr/bin/kmod');
      await symlink('usr/lib', join(base, 'lib'));
      await execa(loader, ['--argv0', 'depmod', ...args, '-b', base, release]);
    },
    async addTo(archive) {
      const real = new Set([...PROGRAMS, ...Object.keys(LINKS)].map((one) => basename(one)));
      await addBusybox(archive, join(tree, 'usr/bin/busybox'), real);
      for (const program of PROGRAMS) {
        const path = join(tree, program);
        if ((await lstat(path)).isSymbolicLink()) archive.symlink(program, await readlink(path));
        else archive.file(program, await readFile(path), 0o755);
      }
      for (const [link, target] of Object.entries(LINKS)) archive.symlink(link, target);
      const libraries = await libraryClosure(PROGRAMS.map((one) => join(tree, one)), tree);
      for (const [name, path] of libraries) archive.file(name, await readFile(path), 0o755);
      archive.file(LOADER, await readFile(join(tree, LOADER)), 0o755);
      const ids = join(tree, 'usr/share/misc/pci.ids');
      if (existsSync(ids)) archive.file('usr/share/misc/pci.ids', await readFile(ids));
    },
  };
}
