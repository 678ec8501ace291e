// Which kernel: Debian's by name, or the user's own; each as one `Kernel` with everything in place to
// boot it (an uncompressed vmlinux), to take modules from it, and to build modules against it.
import { createHash } from 'node:crypto';
import { existsSync, statSync } from 'node:fs';
import { readFile, readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { BootError, UsageError } from '../errors.ts';
import { ensureEntry, ensureTree, treeNames, type Progress } from '../packages/index.ts';
import { prepareHeaders } from './headers.ts';
import { extractVmlinux, type Decompressor } from './vmlinux.ts';

/** `'6.1'`, `'6.12'`, or a kernel of the user's own. */
export type KernelChoice = string | OwnKernel | OwnKernelTree;

export interface OwnKernel {
  /** bzImage or ELF vmlinux. */
  readonly image: string;
  /** `/lib/modules/<release>` of this kernel; without it nothing but built-in drivers can be had. */
  readonly modulesDir?: string;
  /** What `make -C` takes to build a module; without it `buildModule` is refused. */
  readonly buildDir?: string;
}

/** A built kernel tree: `make` and `make modules` were run in it. */
export interface OwnKernelTree {
  readonly tree: string;
}

export interface Kernel {
  /** For messages and reports: `Debian 6.1.0-56-amd64`. */
  readonly name: string;
  readonly release: string;
  /** Identity of the content, for cache keys. */
  readonly key: string;
  readonly vmlinux: string;
  /** The bzImage it came from, when there is one. */
  readonly bzImage: string | undefined;
  /** Holds the .ko files, at any depth; undefined when the kernel has no modules. */
  readonly modulesDir: string | undefined;
  readonly buildDir: string | undefined;
  /** Its modules may be built anew while its image stays: `key` does not vouch for them. */
  readonly modulesChange: boolean;
}

export const DEFAULT_KERNEL = '6.1';

export function kernelNames(): string[] {
  return treeNames().filter((name) => name.startsWith('linux-')).map((name) => name.slice('linux-'.length));
}

export async function resolveKernel(choice: KernelChoice, tools: Decompressor, progress: Progress): Promise<Kernel> {
  if (typeof choice === 'string') return debianKernel(choice, tools, progress);
  return ownKernel('tree' in choice ? fromTree(choice.tree) : choice, tools, progress);
}

async function debianKernel(name: string, tools: Decompressor, progress: Progress): Promise<Kernel> {
  if (!kernelNames().includes(name)) {
    throw new UsageError(`there is no kernel named ${JSON.stringify(name)}`, {
      hint: `the kernels are ${kernelNames().join(', ')}; or give { image, modulesDir, buildDir } or { tree } of your own`,
    });
  }
  const tree = await ensureTree(`linux-${name}`, progress);
  const bzImage = (await readdir(join(tree, 'boot'))).find((one) => one.startsWith('vmlinuz-'));
  if (bzImage === undefined) throw new BootError(`the kernel tree ${tree} has no image`, { hint: 'rootport cache clean' });
  const release = bzImage.slice('vmlinuz-'.length);
  const key = `${release}-${createHash('sha256').update(tree).digest('hex').slice(0, 8)}`;
  const entry = await ensureEntry('kernels', key, progress, async (directory) => {
    progress.start(`Linux ${release}: making it ready to boot and to build modules against`);
    const image = await readFile(join(tree, 'boot', bzImage));
    await writeFile(join(directory, 'vmlinux'), await extractVmlinux(image, tools));
    await prepareHeaders(tree, release, directory, key);
    progress.succeed(`Linux ${release}: ready`);
  });
  return {
    name: `Debian ${release}`, release, key,
    vmlinux: join(entry, 'vmlinux'),
    bzImage: join(tree, 'boot', bzImage),
    modulesDir: join(tree, 'usr/lib/modules', release),
    buildDir: join(entry, 'build'), modulesChange: false,
  };
}

async function ownKernel(own: OwnKernel, tools: Decompressor, progress: Progress): Promise<Kernel> {
  for (const [what, path] of Object.entries({ image: own.image, modulesDir: own.modulesDir, buildDir: own.buildDir })) {
    if (path !== undefined && !existsSync(path)) throw new UsageError(`the kernel's ${what} ${path} does not exist`);
  }
  const { size, mtimeMs } = statSync(own.image);
  const key = `own-${createHash('sha256').update(JSON.stringify([own, size, mtimeMs])).digest('hex').slice(0, 16)}`;
  const entry = await ensureEntry('kernels', key, progress, async (directory) => {
    const vmlinux = await extractVmlinux(await readFile(own.image), tools);
    await writeFile(join(directory, 'vmlinux'), vmlinux);
    const banner = vmlinux.subarray(Math.max(vmlinux.indexOf('Linux version '), 0)).subarray(0, 200).toString('latin1');
    const release = /^Linux version (\S+) /.exec(banner)?.[1] ?? 'unknown';
    await writeFile(join(directory, 'release'), release);
  });
  const release = (await readFile(join(entry, 'release'), 'utf8')).trim();
  return {
    name: `own ${release}`, release, key, vmlinux: join(entry, 'vmlinux'), bzImage: own.image,
    modulesDir: own.modulesDir, buildDir: own.buildDir, modulesChange: true,
  };
}

function fromTree(tree: string): OwnKernel {
  const image = ['arch/x86/boot/bzImage', 'vmlinux'].map((path) => join(tree, path)).find(existsSync);
  if (image === undefined) {
    throw new UsageError(`${tree} is not a built kernel tree: it has neither arch/x86/boot/bzImage nor vmlinux`, {
      hint: 'run make there first',
    });
  }
  return { image, modulesDir: tree, buildDir: tree };
}
