// `rootport dev`: rounds over the module of a generated project, each in a guest that nothing has touched.
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { DevLoop, type Round } from '../../src/cli/dev-loop.ts';
import { makeProject } from '../../src/cli/new.ts';
import { edu } from '../../src/index.ts';

let directory: string;
let source: string;
let text: string;
let loop: DevLoop;
const round = (cancelled = new AbortController().signal): Promise<Round | undefined> => loop.round(cancelled);

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'dev-'));
  await makeProject(join(directory, 'desk'));
  source = join(directory, 'desk/desk/desk.c');
  text = await readFile(source, 'utf8');
  loop = await DevLoop.open({
    directory: join(directory, 'desk/desk'), devices: () => [edu()], boot: {},
    run: '[ ! -e /tmp/round ] && touch /tmp/round && echo 5 >/sys/bus/pci/devices/0000:01:00.0/factorial && cat /sys/bus/pci/devices/0000:01:00.0/factorial',
  });
}, 200_000);
afterAll(async () => {
  await loop?.close();
  await rm(directory, { recursive: true, force: true });
});

test('a round loads the module, its driver takes the device, and the command\'s output and the log since are its text', async () => {
  const result = await round();
  expect(result).toMatchObject({ passed: true, text: expect.stringMatching(/^120\n/) });
  expect(result?.text).toContain('desk 0000:01:00.0: edu 010000ed\n');
  expect(result?.text).not.toContain('Linux version');
}, 120_000);

test('the next has what was written since, in a guest that has none of the last: the command would fail there', async () => {
  await writeFile(source, text.replace('"edu %08x\\n"', '"it is %08x\\n"'));
  const result = await round();
  expect(result?.text).toContain('desk 0000:01:00.0: it is 010000ed\n');
  expect(result?.text).not.toContain(': edu 010000ed');
  expect(result?.passed).toBe(true);
}, 120_000);

test('what does not compile is a failed round with the compiler\'s words, and the round after it is whole', async () => {
  await writeFile(source, text.replace('iowrite32(number,', 'iowrite32(numbre,'));
  expect(await round()).toMatchObject({ passed: false, text: expect.stringMatching(/desk\.c:\d+:\d+: error: .*numbre/) });
  await writeFile(source, text);
  expect(await round()).toMatchObject({ passed: true });
}, 120_000);
