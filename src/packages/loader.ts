// Programs of a package tree run through the tree's own dynamic loader and libraries, so that a tree
// of any Debian suite runs on any x86-64 Linux host.
import { existsSync } from 'node:fs';
import { join } from 'node:path';

const LIBRARIES = ['usr/lib/x86_64-linux-gnu', 'usr/lib', 'usr/lib/x86_64-linux-gnu/pulseaudio'];

/** The argument vector that runs `program` (a path inside the tree, such as usr/bin/xz). */
export function treeCommand(tree: string, program: string): [file: string, ...args: string[]] {
  const loader = join(tree, 'usr/lib64/ld-linux-x86-64.so.2');
  const path = join(tree, program);
  if (!existsSync(loader)) return [path];
  return [loader, '--library-path', LIBRARIES.map((one) => join(tree, one)).join(':'), path];
}
