// A project of `rootport new`, as npm would leave it: this package stands in its node_modules (test/package packs and
// installs it). Its commands run the dist/ that was built last.
import { mkdir, mkdtemp, rm, symlink } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { makeProject } from '../../src/cli/new.ts';
import { PACKAGE } from './rootport.ts';

export interface GeneratedProject {
  readonly directory: string;
  remove(): Promise<void>;
}

export async function generatedProject(name: string): Promise<GeneratedProject> {
  const parent = await mkdtemp(join(tmpdir(), 'new-'));
  const directory = join(parent, name);
  await makeProject(directory);
  await mkdir(join(directory, 'node_modules'));
  await symlink(PACKAGE, join(directory, 'node_modules/rootport'));
  // What npm puts beside a package that it installs.
  for (const scope of ['@jest', '@types']) await symlink(join(PACKAGE, 'node_modules', scope), join(directory, 'node_modules', scope));
  return { directory, remove: () => rm(parent, { recursive: true, force: true }) };
}
