// Changes of a module's sources: real files, a real watch.
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { SourceWatch } from '../../src/cli/source-watch.ts';

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

test('what a build or an editor leaves is no change, and a source after it is', async () => {
  const changed = sources.next();
  for (const name of ['driver.ko', 'driver.o', '.driver.ko.cmd', 'modules.order', '4913', 'driver.c~']) await writeFile(join(directory, name), '');
  await writeFile(join(directory, 'driver.c'), 'int x;');
  expect(await changed).toBe('driver.c');
});

test('a change while nobody waits is told to who waits next', async () => {
  await writeFile(join(directory, 'Kbuild'), 'obj-m := x.o');
  await new Promise<void>((resolve) => setImmediate(resolve));
  expect(await sources.next()).toBe('Kbuild');
});
