// Build a user's kernel module (a plain Kbuild directory) against a guest kernel, out of the cache.
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { cp, mkdir, readFile, readdir, writeFile } from 'node:fs/promises';
import { basename, join, relative, resolve } from 'node:path';
import { execa } from 'execa';
import { BootError, EnvironmentError, UsageError } from '../errors.ts';
import { ensureEntry, silentProgress, type Progress } from '../packages/index.ts';
import type { Kernel } from './kernel.ts';

/** Kernel modules that were built, ready to be loaded into a guest that runs `release`. */
export interface BuiltModule {
  /** Paths of the .ko files, debug information stripped, in the order of modules.order. */
  readonly files: readonly string[];
  /** The same with their debug information, for symbolising. */
  readonly unstripped: readonly string[];
  readonly release: string;
  /** The compiler's warnings; empty when there were none. */
  readonly warnings: string;
}

/**
 * Build the module in `directory` (it holds a Kbuild or a Makefile with `obj-m`) for `kernel`.
 * The directory itself is not written to; the result is cached by its content.
 *
 * @throws UsageError for a missing directory, or one without Kbuild or Makefile, or a kernel without headers
 * @throws BootError with the compiler's own diagnostics when it does not compile
 * @throws EnvironmentError without make or a compiler
 */
export async function buildModule(
  directory: string, kernel: Kernel, progress: Progress = silentProgress,
): Promise<BuiltModule> {
  const source = resolve(directory);
  if (!existsSync(source)) {
    throw new UsageError(`the module directory ${source} does not exist`, { hint: 'give the directory that holds the Kbuild file' });
  }
  if (!existsSync(join(source, 'Kbuild')) && !existsSync(join(source, 'Makefile'))) {
    throw new UsageError(`${source} has neither a Kbuild nor a Makefile`, {
      hint: 'a line such as "obj-m += my_driver.o" in a file named Kbuild is enough',
    });
  }
  if (kernel.buildDir === undefined) {
    throw new UsageError(`the kernel ${kernel.name} came without a buildDir, so no module can be built for it`, {
      hint: 'give kernel: { image, modulesDir, buildDir }',
    });
  }
  const buildDir = kernel.buildDir;
  const name = basename(source);
  const key = `${name}-${await contentKey(source, kernel)}`;
  const entry = await ensureEntry('modules', key, progress, async (into) => {
    progress.start(`building ${name} for ${kernel.release}`);
    const work = join(into, 'source');
    await cp(source, work, { recursive: true, filter: (path) => !isProduct(relative(source, path)) });
    const warnings = await make(buildDir, work, name, source);
    await writeFile(join(into, 'warnings'), warnings);
    progress.succeed(`built ${name} for ${kernel.release}`);
  });
  const order = (await readFile(join(entry, 'source/modules.order'), 'utf8')).split('\n').filter((line) => line !== '');
  const names = order.map((path) => basename(path).replace(/\.(ko|o)$/, '.ko'));
  if (names.length === 0) throw new BootError(`${name} built no module`, { hint: 'does its Kbuild have an "obj-m +=" line?' });
  return {
    files: names.map((one) => join(entry, 'source', 'stripped', one)),
    unstripped: names.map((one) => join(entry, 'source', one)),
    release: kernel.release,
    warnings: await readFile(join(entry, 'warnings'), 'utf8'),
  };
}

async function make(buildDir: string, work: string, name: string, source: string): Promise<string> {
  const result = await execa('make', ['-C', buildDir, `M=${work}`, 'CC=gcc', 'modules'], {
    reject: false, env: { LC_ALL: 'C', MAKEFLAGS: '', MAKELEVEL: '' },
  });
  if (result.code === 'ENOENT') {
    throw new EnvironmentError('make is not on the PATH', { hint: 'install gcc and make (Debian: apt-get install gcc make)' });
  }
  const said = `${result.stderr}`.replaceAll(work, source);
  if (result.failed) {
    if (/gcc: (command )?not found|gcc: No such file/.test(said)) {
      throw new EnvironmentError('gcc is not on the PATH', { hint: 'install gcc (Debian: apt-get install gcc)' });
    }
    throw new BootError(`the module ${name} does not compile:\n${said.trim()}`, { hint: `mend ${source}` });
  }
  const built = (await readdir(work)).filter((file) => file.endsWith('.ko'));
  await mkdir(join(work, 'stripped'));
  // An unstripped module is 30 times larger: uploading it is what a test would wait for.
  await Promise.all(built.map((file) => execa('strip', ['--strip-debug', '-o', join(work, 'stripped', file), join(work, file)])));
  return said.split('\n').filter((line) => !/BTF|pahole|compiler differs|^ {2}(The kernel was|You are using)/.test(line)).join('\n').trim();
}

function isProduct(path: string): boolean {
  return /(^|\/)(\.tmp_versions|\.git)(\/|$)|\.(ko|o|mod|mod\.c|cmd)$|(^|\/)(modules\.order|Module\.symvers)$/.test(path);
}

async function contentKey(source: string, kernel: Kernel): Promise<string> {
  const hash = createHash('sha256').update(kernel.key).update('module-build 1');
  const walk = async (directory: string): Promise<void> => {
    for (const entry of (await readdir(directory, { withFileTypes: true })).sort((a, b) => (a.name < b.name ? -1 : 1))) {
      const path = join(directory, entry.name), name = relative(source, path);
      if (isProduct(name)) continue;
      if (entry.isDirectory()) await walk(path);
      else hash.update(`\0${name}\0`).update(await readFile(path));
    }
  };
  await walk(source);
  return hash.digest('hex').slice(0, 16);
}
