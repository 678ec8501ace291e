// The package as a user gets it: packed, installed from the tarball into a project elsewhere, and used there
// through `preset: 'rootport'` alone. Uses the dist/ that was built last, and npm's own cache.
import { cp, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { execa } from 'execa';

const PACKAGE = resolve(import.meta.dirname, '../..');
let project: string;
let packed: string[];

beforeAll(async () => {
  project = await mkdtemp(join(tmpdir(), 'consumer-'));
  await cp(join(import.meta.dirname, 'consumer'), project, { recursive: true });
  const { stdout } = await npm(PACKAGE, 'pack', '--json', '--ignore-scripts', '--pack-destination', project);
  const [{ filename, files }] = JSON.parse(stdout) as [{ filename: string; files: { path: string }[] }];
  packed = files.map(({ path }) => path);
  await npm(project, 'install', '--save-dev', '--prefer-offline', '--no-audit', '--no-fund', `./${filename}`);
}, 600_000);
afterAll(async () => {
  await rm(project, { recursive: true, force: true });
});

function npm(cwd: string, ...args: string[]): Promise<{ stdout: string }> {
  return execa('npm', args, { cwd });
}

const run = (...args: string[]) => execa('npx', ['--no-install', ...args], { cwd: project, all: true, reject: false, env: { CI: '1', FORCE_COLOR: '0' } });

test('the tarball holds what a user needs, and nothing else', () => {
  for (const path of ['dist/index.js', 'dist/index.d.ts', 'dist/cli/main.js', 'jest-preset.cjs', 'images/init', 'images/probe/Kbuild', 'qemu/machines.json', 'suites/edu/edu.suite.ts', 'src/native/addon.c', 'src/report/page/page.html', 'templates/driver/package.json', 'ci/kubernetes-job.json']) {
    expect(packed).toContain(path);
  }
  expect(packed.filter((path) => /^(test|node_modules)\/|\.(node|ko|o)$|^src\/(?!native\/|report\/page\/)/.test(path))).toEqual([]);
});

test('npx jest runs a TypeScript suite with the preset alone', async () => {
  const { exitCode, all } = await run('jest');
  expect(all).toContain('✓ every queue of a hot-plugged disk has a vector of its own');
  expect(all).toContain('✓ edu has one BAR of 1 MiB');
  expect(exitCode).toBe(0);
}, 180_000);

test('a suite that fails fails there too, with the witnesses', async () => {
  const suite = join(project, 'my-driver.suite.ts');
  const text = await readFile(suite, 'utf8');
  const wrong = join(project, 'wrong.suite.ts');
  await cp(suite, wrong);
  try {
    await execa('sed', ['-i', 's/: MIB/: 2 * MIB/', wrong]);
    expect(await readFile(wrong, 'utf8')).not.toBe(text);
    const { exitCode, all } = await run('jest', 'wrong', '-t', 'edu');
    expect(all).toMatch(/x {2}VMM: query-pci +mem32 +no +0x100000 .*<- size/);
    expect(exitCode).toBe(1);
  } finally {
    await rm(wrong);
  }
}, 180_000);

test('rootport run takes the project\'s own suites', async () => {
  const { exitCode, all } = await run('rootport', 'run', '-t', 'edu');
  expect(all).toMatch(/^machine: q35, QEMU /m);
  expect(all).toContain('✓ edu has one BAR of 1 MiB');
  expect(exitCode).toBe(0);
}, 180_000);

test('the types are there: the suite compiles, and a misspelt claim does not', async () => {
  const tsc = join(PACKAGE, 'node_modules/typescript/bin/tsc');
  const misspelt = join(project, 'misspelt.suite.ts');
  await writeFile(misspelt, (await readFile(join(project, 'my-driver.suite.ts'), 'utf8')).replace('tableBar: 1', 'tableBaz: 1'));
  try {
    const { stdout } = await execa(process.execPath, [tsc, '-p', project], { reject: false });
    expect(stdout.split('\n').filter((line) => line.includes('error'))).toEqual([expect.stringMatching(/\bmisspelt\.suite\.ts\(\d+,\d+\): error TS2561: .*'tableBaz'/)]);
  } finally {
    await rm(misspelt);
  }
}, 120_000);

test('nothing is left in its directory but what npm put there, and the report of the last run', async () => {
  expect((await readdir(project)).filter((name) => !name.endsWith('.tgz')).sort()).toEqual([
    'globals.d.ts', 'my-driver.suite.ts', 'node_modules', 'package-lock.json', 'package.json', 'rootport-report', 'tsconfig.json', 'units.ts',
  ]);
});
