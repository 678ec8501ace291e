// What documents may name: make targets, npm scripts, environment variables.
import { readdirSync, readFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';

const ROOT = resolve(import.meta.dirname, '../..');

export async function makeTargets(): Promise<string[]> {
  const makefile = await readFile(join(ROOT, 'Makefile'), 'utf8');
  return [...makefile.matchAll(/^([a-z-]+):/gm)].map(([, target = '']) => target);
}

export interface Manifest {
  readonly engines: { readonly node: string };
  readonly version: string;
  readonly scripts: Readonly<Record<string, string>>;
  readonly dependencies: Readonly<Record<string, string>>;
  readonly devDependencies: Readonly<Record<string, string>>;
}

export async function manifest(): Promise<Manifest> {
  return JSON.parse(await readFile(join(ROOT, 'package.json'), 'utf8')) as Manifest;
}

/** ROOTPORT_... as the sources have them in code or in words. */
export function environmentNames(): Set<string> {
  const src = join(ROOT, 'src');
  const files = readdirSync(src, { recursive: true, encoding: 'utf8' }).filter((path) => path.endsWith('.ts'));
  return new Set(files.flatMap((file) => readFileSync(join(src, file), 'utf8').match(/\bROOTPORT_[A-Z_]+/g) ?? []));
}
