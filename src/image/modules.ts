// Which .ko files a guest needs for the modules asked for: their dependencies first, as insmod wants.
// Reads each module's own .modinfo ("depends=", "softdep=pre:"), so no depmod has to have been run.
import { readFile, readdir } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { UsageError } from '../errors.ts';
import type { Kernel } from './kernel.ts';
import { decompressFile, type Decompressor } from './vmlinux.ts';

export interface ModuleFile {
  /** Underscores, no suffix: virtio_blk. */
  readonly name: string;
  readonly content: Buffer;
}

/**
 * The modules in load order. Names that are built into the kernel are left out; an unknown name is a
 * UsageError, unless it is `optional`.
 */
export async function collectModules(
  kernel: Kernel, names: readonly string[], tools: Decompressor, optional: readonly string[] = [],
): Promise<ModuleFile[]> {
  if (kernel.modulesDir === undefined) return [];
  const files = await index(kernel.modulesDir);
  const builtin = await builtins(kernel.modulesDir);
  const ordered = new Map<string, ModuleFile>();
  /** Soft dependencies may lead round in a circle. */
  const visited = new Set<string>();
  const visit = async (wanted: string, by: string | undefined): Promise<void> => {
    const name = wanted.replaceAll('-', '_');
    if (visited.has(name) || builtin.has(name)) return;
    const path = files.get(name);
    if (path === undefined) {
      if (by !== undefined || optional.includes(name)) return; // a soft dependency, or an alias of a built-in
      throw new UsageError(`the kernel ${kernel.name} has no module named ${wanted}`, {
        hint: 'it may be built in under another name, or not configured for this kernel',
      });
    }
    visited.add(name);
    const content = await decompressFile(path, await readFile(path), tools);
    const info = content.toString('latin1');
    const depends = /(?:^|\0)depends=([^\0]*)/.exec(info)?.[1] ?? '';
    const soft = [...info.matchAll(/\0softdep=pre: ([^\0]*)/g)].flatMap((match) => (match[1] ?? '').split(' '));
    for (const other of [...soft, ...depends.split(',')]) if (other !== '') await visit(other, name);
    ordered.set(name, { name, content });
  };
  for (const name of names) await visit(name, undefined);
  return [...ordered.values()];
}

async function index(directory: string): Promise<Map<string, string>> {
  const files = new Map<string, string>();
  const walk = async (path: string): Promise<void> => {
    for (const entry of await readdir(path, { withFileTypes: true })) {
      if (entry.isDirectory()) await walk(join(path, entry.name));
      else if (/\.ko(\.(xz|zst|gz))?$/.test(entry.name)) {
        files.set(basename(entry.name).replace(/\.ko(\.\w+)?$/, '').replaceAll('-', '_'), join(path, entry.name));
      }
    }
  };
  await walk(directory);
  return files;
}

async function builtins(directory: string): Promise<Set<string>> {
  const text = await readFile(join(directory, 'modules.builtin'), 'utf8').catch(() => '');
  return new Set(text.split('\n').map((line) => basename(line).replace(/\.ko$/, '').replaceAll('-', '_')));
}
