// A project of `rootport new`, as generated: its types, and its CI's own commands, in a real guest.
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { execa } from 'execa';
import { generatedProject, type GeneratedProject } from './generated-project.ts';
import { MAIN, PACKAGE } from './rootport.ts';

let generated: GeneratedProject;
let project: string;

beforeAll(async () => {
  generated = await generatedProject('my-driver');
  project = generated.directory;
  const bin = join(project, 'node_modules/.bin/rootport');
  await mkdir(dirname(bin));
  await writeFile(bin, `#!/bin/sh\nexec node ${MAIN} "$@"\n`, { mode: 0o755 });
});
afterAll(() => generated?.remove());

test('its suite compiles', async () => {
  const { stdout } = await execa(process.execPath, [join(PACKAGE, 'node_modules/typescript/bin/tsc'), '-p', project], { reject: false });
  expect(stdout).toBe('');
}, 60_000);

test('the commands of its CI, after npm install, pass as generated', async () => {
  const workflow = await readFile(join(project, '.github/workflows/test.yml'), 'utf8');
  const commands = [...workflow.matchAll(/^ +- run: (.+)$/gm)].map(([, command = '']) => command);
  expect(commands).toEqual(['npm install', 'npm test']);
  const { all, exitCode } = await execa('sh', ['-c', commands[1] ?? ''], { cwd: project, all: true, reject: false, env: { CI: '1', FORCE_COLOR: '0' } });
  expect(all).toContain('✓ the driver takes the device that is plugged, over one MSI vector');
  expect(all).toContain('✓ the device computes 12! = 479001600, and interrupts once');
  expect(all).toContain('✓ unplugged, it leaves nothing behind');
  expect(exitCode).toBe(0);
}, 240_000);

test('a mistake in the driver fails them, with the compiler\'s words', async () => {
  const module = join(project, 'my-driver/my_driver.c');
  const text = await readFile(module, 'utf8');
  await writeFile(module, text.replace('iowrite32(number,', 'iowrite32(numbre,'));
  const { all, exitCode } = await execa('npm', ['test', '--', '-t', 'unplugged'], { cwd: project, all: true, reject: false, env: { CI: '1', FORCE_COLOR: '0' } });
  expect(all).toMatch(/my_driver\.c:\d+:\d+: error: .*numbre/);
  expect(exitCode).toBe(1);
  await writeFile(module, text);
}, 240_000);
