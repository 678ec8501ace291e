// `rootport new`: what it makes, and what it refuses. That it passes: new.vm.test.ts.
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { makeProject } from '../../src/cli/new.ts';
import { UsageError } from '../../src/errors.ts';

let directory: string;
beforeEach(async () => { directory = await mkdtemp(join(tmpdir(), 'new-')); });
afterEach(() => rm(directory, { recursive: true }));

test('a project has module, suite, CI and manifest, and no placeholder is left', async () => {
  const files = await makeProject(join(directory, 'my-driver'));
  expect(files).toEqual([
    '.github/workflows/test.yml', '.gitignore', 'README.md', 'my-driver.suite.ts', 'my-driver/Kbuild', 'my-driver/my_driver.c', 'package.json', 'tsconfig.json',
  ]);
  for (const file of files) expect(await readFile(join(directory, 'my-driver', file), 'utf8')).not.toMatch(/\bNAME\b|IDENT|\bVERSION\b/);
  const manifest = JSON.parse(await readFile(join(directory, 'my-driver/package.json'), 'utf8')) as { name: string; devDependencies: Record<string, string> };
  const own = JSON.parse(await readFile(new URL('../../package.json', import.meta.url), 'utf8')) as { version: string };
  expect(manifest).toMatchObject({ name: 'my-driver', devDependencies: { rootport: `^${own.version}` } });
  expect(await readFile(join(directory, 'my-driver/my-driver/my_driver.c'), 'utf8')).toContain('static struct pci_driver my_driver_driver = {\n\t.name = KBUILD_MODNAME,');
});

test.each(['My-Driver', '1driver', 'driver-', 'a'.repeat(41), 'rootport', 'dri ver', 'dri.ver'])('%p is refused as a name', async (name) => {
  await expect(makeProject(join(directory, name))).rejects.toThrow(UsageError);
  expect(await readdir(directory)).toEqual([]);
});

test('a directory with something in it is left as it is', async () => {
  const here = join(directory, 'mine');
  await mkdir(here);
  await writeFile(join(here, 'notes'), 'kept');
  await expect(makeProject(here)).rejects.toThrow('is there already');
  expect(await readdir(here)).toEqual(['notes']);
});
