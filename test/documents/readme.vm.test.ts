// The README's code, run as a reader would: its files are written into a directory, its suites run by a child
// Jest with the preset, its scripts by node.
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { execa } from 'execa';
import { codeBlocks } from './markdown.ts';

const ROOT = resolve(import.meta.dirname, '../..');
/** Inside the package, so that 'rootport' is this one. */
const GENERATED = join(import.meta.dirname, '.generated');
const FILES = new Set(['ts', 'js', 'c', 'make']);

const blocks = codeBlocks(await readFile(join(ROOT, 'README.md'), 'utf8'));
const files = blocks.flatMap(({ file, text }) => (file === undefined ? [] : [{ file, text }]));
const suites = files.filter(({ file }) => file.endsWith('.suite.ts'));
const scripts = files.filter(({ file }) => file.endsWith('.mjs'));

beforeAll(async () => {
  await rm(GENERATED, { recursive: true, force: true });
  for (const { file, text } of files) {
    await mkdir(dirname(join(GENERATED, file)), { recursive: true });
    await writeFile(join(GENERATED, file), text);
  }
  await writeFile(join(GENERATED, 'jest.config.js'), 'export default { preset: \'../../../jest-preset.cjs\' };\n');
});
afterAll(() => rm(GENERATED, { recursive: true, force: true }));

test('every block of code is a file with a name, and every TypeScript one a suite', () => {
  expect(blocks.filter(({ language, file }) => FILES.has(language) && file === undefined)).toEqual([]);
  expect(blocks.filter(({ language, file }) => language === 'ts' && file?.endsWith('.suite.ts') !== true)).toEqual([]);
  expect(suites.length).toBeGreaterThanOrEqual(2);
  expect(scripts.length).toBeGreaterThanOrEqual(1);
});

test('every suite of the README passes', async () => {
  const { exitCode, stdout, stderr } = await execa('node', [
    join(ROOT, 'node_modules/jest/bin/jest.js'), '--rootDir', GENERATED, '-c', join(GENERATED, 'jest.config.js'), '--json', '--maxWorkers=1',
  ], { cwd: GENERATED, reject: false, env: { NODE_OPTIONS: '', ROOTPORT_RESULTS: '' } });
  const report = JSON.parse(stdout.slice(stdout.indexOf('{"num'))) as { numPassedTests: number; testResults: { name: string; status: string; message: string }[] };
  expect(report.testResults.map(({ status, message }) => `${status}${message}`)).toEqual(suites.map(() => 'passed'));
  expect(report.testResults.map(({ name }) => name).sort()).toEqual(suites.map(({ file }) => join(GENERATED, file)).sort());
  expect(report.numPassedTests).toBeGreaterThanOrEqual(suites.length);
  expect({ exitCode, stderr }).toMatchObject({ exitCode: 0 });
});

test.each(scripts)('the script $file runs, and says what it found', async ({ file }) => {
  const { stdout } = await execa('node', [join(GENERATED, file)], { cwd: GENERATED });
  expect(stdout).toMatch(/1234:11e8/);
});
