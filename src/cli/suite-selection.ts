// Which test files the arguments of `rootport run` mean: a path, a folder's name, or a suite's.
import { basename, relative, resolve, sep } from 'node:path';
import { UsageError } from '../errors.ts';

/** `virtio-blk` for suites/virtio-blk/virtio-blk.suite.ts, `disk/write` for suites/disk/write.suite.ts. */
export function suiteName(file: string, root: string): string {
  const parts = relative(root, file).split(sep);
  const base = stem(parts.pop() ?? '');
  const folders = parts[0] === 'suites' ? parts.slice(1) : parts;
  return (folders.at(-1) === base ? folders : [...folders, base]).join('/');
}

function stem(name: string): string {
  return basename(name).replace(/\.[cm]?[jt]sx?$/, '').replace(/\.(suite|test|spec)$/, '');
}

/**
 * The files that these names mean, in the files' order; all for no name.
 * @throws UsageError for a name that means none
 */
export function selectSuites(names: readonly string[], files: readonly string[], { root, cwd }: { root: string; cwd: string }): string[] {
  if (files.length === 0) throw new UsageError(`Jest finds no suite in ${root}`, { hint: 'the preset takes files named *.suite.ts' });
  if (names.length === 0) return [...files];
  const chosen = new Set<string>();
  for (const name of names) {
    const found = meant(name, files, root, cwd);
    if (found.length === 0) {
      throw new UsageError(`there is no suite named ${JSON.stringify(name)}`, {
        hint: `the suites of ${root} are ${files.map((file) => suiteName(file, root)).join(', ')}`,
      });
    }
    for (const file of found) chosen.add(file);
  }
  return files.filter((file) => chosen.has(file));
}

function meant(name: string, files: readonly string[], root: string, cwd: string): string[] {
  const path = resolve(cwd, name);
  const byPath = files.filter((file) => file === path || file.startsWith(path.endsWith(sep) ? path : path + sep));
  if (byPath.length > 0) return byPath;
  return files.filter((file) => {
    const folders = relative(root, file).split(sep).slice(0, -1);
    return folders.includes(name) || suiteName(file, root) === name || stem(file) === name;
  });
}
