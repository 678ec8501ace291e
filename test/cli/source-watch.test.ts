// Changes of a module's sources: real files, a real watch.
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { isSource, SourceWatch } from '../../src/cli/source-watch.ts';

let directory: string;
let sources: SourceWatch;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'watch-'));
  await mkdir(join(directory, 'include'));
  sources = new SourceWatch(directory);
});
afterEach(async () => {
  sources.close();
  await rm(directory, { recursive: true });
});

test.each(['driver.ko', 'driver.o', 'driver.mod', 'driver.mod.c', '.driver.ko.cmd', 'sub/.driver.c.swp', 'modules.order', 'Module.symvers', '4913', 'driver.c~'])('%s is left by a build or an editor: no source', (name) => {
  expect(isSource(name)).toBe(false);
});

test.each(['driver.c', 'include/driver.h', 'Kbuild', 'Makefile'])('%s is a source, and its change is told', async (name) => {
  expect(isSource(name)).toBe(true);
  const changed = sources.next();
  await writeFile(join(directory, name), 'x');
  expect(await changed).toBe(name);
});

test('a change while nobody waits is told to who waits next', async () => {
  await writeFile(join(directory, 'Kbuild'), 'obj-m := x.o');
  await new Promise<void>((resolve) => setImmediate(resolve));
  expect(await sources.next()).toBe('Kbuild');
});
