// What README, CONTRIBUTING and CHANGELOG name is there: make targets, scripts, variables, files, matchers, layers,
// dependencies.
import { existsSync } from 'node:fs';
import { readdir, readFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { environmentNames, makeTargets, manifest } from './names.ts';

const ROOT = resolve(import.meta.dirname, '../..');
const read = (file: string): Promise<string> => readFile(join(ROOT, file), 'utf8');
const [readme, contributing, changelog] = await Promise.all([read('README.md'), read('CONTRIBUTING.md'), read('CHANGELOG.md')]);
const all = (text: string, pattern: RegExp): string[] => [...new Set([...text.matchAll(pattern)].map(([, one = '']) => one))];

describe.each([['README.md', readme], ['CONTRIBUTING.md', contributing]])('%s', (_, text) => {
  test('it names only make targets and npm scripts that exist', async () => {
    const [targets, { scripts }] = [await makeTargets(), await manifest()];
    expect(all(text, /\bmake (run|test|check|[a-z]+)(?=`| +#)/g).filter((one) => !targets.includes(one))).toEqual([]);
    expect(all(text, /\bnpm run ([a-z]+)/g).filter((one) => !(one in scripts))).toEqual([]);
  });

  test('it names only environment variables that src/ reads', () => {
    const known = environmentNames();
    expect(all(text, /\b(ROOTPORT_[A-Z_]+)/g).filter((one) => !known.has(one))).toEqual([]);
  });

  test('it names only files of the project that exist', () => {
    const paths = all(text, /(?<![\w/.-])((?:src|test|suites|images|qemu)\/[\w./-]*\w)(?![\w*<-])/g);
    expect(paths.filter((path) => !existsSync(join(ROOT, path)))).toEqual([]);
  });
});

test('the README has every matcher, device, machine and boot option', async () => {
  const names = [
    ...all(await read('src/jest/matchers/index.ts'), /^ {2}(to\w+)\(/gm),
    ...all(await read('src/machine/options.ts'), /^ {2}readonly (\w+)\?/gm).filter((name) => name !== 'progress'),
    ...all(await read('src/qemu/preset.ts'), /^export const (\w+) = \(options/gm).map((name) => `${name}()`),
  ];
  expect(names.length).toBeGreaterThanOrEqual(6 + 10 + 4);
  expect(names.filter((name) => !readme.includes(`\`${name}`))).toEqual([]);
  const devices = (await readdir(join(ROOT, 'src/devices'), { withFileTypes: true })).filter((one) => one.isDirectory()).map(({ name }) => name);
  for (const device of devices) expect(readme).toContain(`| \`${device.replace(/-(\w)/g, (_, letter: string) => letter.toUpperCase())}(`);
});

test('CONTRIBUTING has the layers of the layer test, in its order', async () => {
  const layers = all(await read('test/layers.test.ts'), /^ {2}\{ name: '([\w.-]+)'/gm);
  const [, table = ''] = contributing.split('| layer |');
  expect(all(table.split('\n\n')[0] ?? '', /^\| `([\w.-]+)\/?` \|/gm)).toEqual(layers);
});

test('CONTRIBUTING gives a reason for every dependency, and for none that is not there', async () => {
  const { dependencies, devDependencies } = await manifest();
  const [, section = ''] = contributing.split('\n## Dependencies\n');
  const rows = (section.split('\n## ')[0] ?? '').split('\n').filter((line) => line.startsWith('| `')).map((line) => line.split(' | ')[0] ?? '');
  expect(rows.flatMap((row) => all(row, /`([^`]+)`/g)).sort()).toEqual([...Object.keys(dependencies), ...Object.keys(devDependencies)].sort());
});

test('the CHANGELOG speaks of the version of package.json', async () => {
  expect(changelog).toMatch(/^## \[/m);
  expect(changelog).toContain((await manifest()).version);
});
