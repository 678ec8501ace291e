// Changes of a module's sources: real files, a real watch.
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { isSource, isSuiteSource, SourceWatch } from '../../src/cli/source-watch.ts';

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

test.each(['driver.ko', 'driver.o', 'driver.mod', 'driver.mod.c', '.driver.ko.cmd', 'sub/.driver.c.swp', 'modules.order', 'Module.symvers', '4913', 'driver.c~', 'node_modules/x/index.js', 'rootport-report/index.html'])('%s is left by a build or an editor: no source', (name) => {
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

test.each([['my.suite.ts', true], ['wire.mjs', true], ['frames.json', true], ['.my.suite.ts.swp', false], ['rootport-report', false], ['driver.c', false]])(
  'beside a suite, %s starts a round: %s', async (name, counts) => {
    expect(isSuiteSource(name)).toBe(counts);
    const beside = new SourceWatch(join(directory, 'include'), [directory]);
    const changed = beside.next();
    await writeFile(join(directory, name), 'x');
    if (!counts) await writeFile(join(directory, 'last.ts'), 'x');
    expect(await changed).toBe(counts ? name : 'last.ts');
    beside.close();
  },
);
