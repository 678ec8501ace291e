// `rootport dev` with a suite, as an author has it: rounds over a generated project, and their ends. Runs dist/.
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import pRetry from 'p-retry';
import { allGone, commandOf, descendants } from './descendants.ts';
import { generatedProject, type GeneratedProject } from './generated-project.ts';
import { exitOf, start } from './rootport.ts';

let project: GeneratedProject;
let module: string;
let text: string;
let dev: ReturnType<typeof start>;
let said = '';

beforeAll(async () => {
  project = await generatedProject('desk');
  module = join(project.directory, 'desk/desk.c');
  text = await readFile(module, 'utf8');
  dev = start(['dev', 'desk', 'desk.suite.ts', '-t', '5! = 120'], { cwd: project.directory });
  for (const stream of [dev.stdout, dev.stderr]) stream.on('data', (chunk: Buffer) => { said += chunk.toString(); });
});
afterAll(async () => {
  dev?.kill('SIGKILL');
  await project?.remove();
});

/** What was said since the last call, up to a line that matches. */
async function until(pattern: RegExp): Promise<string> {
  return pRetry(() => {
    const end = pattern.exec(said);
    if (end === null) throw new Error(`${String(pattern)} was not said; but:\n${said}`);
    const heard = said.slice(0, end.index + end[0].length);
    said = said.slice(heard.length);
    return heard;
  }, { retries: 1200, minTimeout: 50, factor: 1 });
}

test('the suite runs against the module, and its results and its guest\'s log are told', async () => {
  const round = await until(/^--- .*\n/m);
  expect(round).toContain('✓ the device computes 5! = 120, and interrupts once');
  expect(round).toMatch(/^the device computes 5! = 120, and interrupts once:\n(?: {2}\[.*\n)* {2}\[.*desk 0000:01:00\.0: edu 010000ed\n(?: {2}\[.*\n)*--- passed, /m);
  expect(round).not.toContain('Linux version');
}, 120_000);

test('what does not compile is told in the compiler\'s words, and no test runs', async () => {
  await writeFile(module, text.replace('iowrite32(number,', 'iowrite32(numbre,'));
  const round = await until(/^--- .*\n/m);
  expect(round).toMatch(/^desk\.c changed\nthe module desk does not compile:\n[^]*desk\.c:\d+:\d+: error: .*numbre/);
  expect(round).toMatch(/^--- failed, /m);
  expect(round).not.toMatch(/[✓✕]/);
}, 120_000);

test('a save during a round ends that one unheard; what fails then shows its failure, and Ctrl-C leaves nothing', async () => {
  await writeFile(module, text);
  await until(/changed\n/);
  await pRetry(() => {
    if (!descendants(dev.pid ?? 0).some((pid) => commandOf(pid).includes('qemu-system'))) throw new Error('the round has booted nothing');
  }, { retries: 1200, minTimeout: 50, factor: 1 });
  await writeFile(module, text.replace('iowrite32(number,', 'iowrite32(number + 1,'));
  const round = await until(/^--- .*\n/m);
  expect(round).toMatch(/^desk\.c changed\n\s*FAIL/);
  expect(round).not.toContain('PASS');
  expect(round).toContain('✕ the device computes 5! = 120, and interrupts once');
  expect(round).toMatch(/\+ 720$/m);
  expect(round).toMatch(/kernel log of this test:\n(?: +\[.*\n)* +\[.*desk 0000:01:00\.0: edu 010000ed\n/);
  expect(round).toMatch(/^--- failed, /m);

  const pids = descendants(dev.pid ?? 0);
  dev.kill('SIGINT');
  expect(await exitOf(dev)).toBe(130);
  await allGone([dev.pid ?? 0, ...pids]);
}, 120_000);
