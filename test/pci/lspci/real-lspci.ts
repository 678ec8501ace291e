// The real lspci of the guest's userland tree, run on a dump.
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { execa } from 'execa';
import { dir } from 'tmp-promise';
import { ensureTree, silentProgress, treeCommand } from '../../../src/packages/index.ts';

/** The tree's directory: it has usr/share/misc/pci.ids too. */
export async function userlandTree(): Promise<string> {
  return ensureTree('userland', silentProgress);
}

/** What `lspci -F` with these words prints of a dump. */
export async function realLspci(dump: string, words: readonly string[]): Promise<string> {
  const tree = await userlandTree();
  const { path, cleanup } = await dir({ unsafeCleanup: true });
  try {
    const file = join(path, 'dump.txt');
    await writeFile(file, dump);
    const [program, ...args] = treeCommand(tree, 'usr/bin/lspci');
    // It has no kernel whose modules it could name, and says so on stderr.
    const { stdout } = await execa(program, [...args, '-i', join(tree, 'usr/share/misc/pci.ids'), '-F', file, ...words], { stripFinalNewline: false, encoding: 'latin1' });
    return stdout;
  } finally {
    await cleanup();
  }
}
