// `rootport cache` over caches made up here: the real one is not touched. Runs dist/ (see rootport.ts).
import { existsSync, mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { formatBytes } from '../../src/packages/cache-entries.ts';
import { rootport, temporary } from './rootport.ts';

let root: string;
beforeEach(() => { root = temporary('cache'); });
afterEach(() => rmSync(root, { recursive: true }));
const cache = (...args: string[]) => rootport(['cache', ...args], { env: { ROOTPORT_CACHE: root } });

function fill(): void {
  for (const [path, sizeBytes] of [
    ['trees/qemu-1/.complete', 0], ['trees/qemu-1/usr/bin/qemu', 1_000_000], ['images/abc/initramfs', 300_000],
    ['modules/probe-1/x.ko', 8192], ['kvm/0123.json', 20], ['partial/trees-linux-1-0123456789ab/x', 5000], ['locks/trees-qemu-1', 0],
  ] as const) {
    mkdirSync(join(root, dirname(path)), { recursive: true });
    writeFileSync(join(root, path), Buffer.alloc(sizeBytes, 1));
  }
}

test('path prints where the cache is, and nothing else', async () => {
  expect(await cache('path')).toEqual({ exitCode: 0, stdout: root, stderr: '' });
});

test('path follows XDG_CACHE_HOME where ROOTPORT_CACHE is not set', async () => {
  const { stdout } = await rootport(['cache', 'path'], { env: { ROOTPORT_CACHE: '', XDG_CACHE_HOME: '/x/y' } });
  expect(stdout).toBe('/x/y/rootport');
});

test('an empty cache is said to be empty', async () => {
  expect(await cache('list')).toMatchObject({ exitCode: 0, stdout: `${root} is empty` });
});

test('list shows every entry with its size and date, and what was cut short', async () => {
  fill();
  const { exitCode, stdout } = await cache('list');
  expect(exitCode).toBe(0);
  const lines = stdout.split('\n');
  expect(lines.map((line) => line.split(' ')[0])).toEqual([
    'images/abc', 'kvm/0123.json', 'modules/probe-1', 'partial/trees-linux-1-0123456789ab', 'trees/qemu-1', expect.any(String),
  ]);
  expect(lines[4]).toMatch(/^trees\/qemu-1 +1 MB {2}\d{4}-\d\d-\d\d \d\d:\d\d$/);
  expect(lines[3]).toMatch(/cut short, or being made$/);
  expect(lines[5]).toMatch(/^1 MB in \//);
});

test('list --json gives sizes in bytes', async () => {
  fill();
  const { path, entries } = JSON.parse((await cache('list', '--json')).stdout) as { path: string; entries: { kind: string; key: string; sizeBytes: number }[] };
  expect(path).toBe(root);
  expect(entries.find(({ key }) => key === 'qemu-1')?.sizeBytes).toBeGreaterThanOrEqual(1_000_000);
});

test('clean removes the kinds that are named, and tells the bytes', async () => {
  fill();
  const { exitCode, stdout } = await cache('clean', 'images', 'kvm');
  expect(exitCode).toBe(0);
  const freedBytes = Number(/ freed \((\d+) bytes\)/.exec(stdout)?.[1]);
  expect(freedBytes).toBeGreaterThanOrEqual(300_000);
  expect(freedBytes).toBeLessThan(1_000_000);
  expect([readdirSync(join(root, 'images')), readdirSync(join(root, 'kvm'))]).toEqual([[], []]);
  expect(existsSync(join(root, 'trees/qemu-1/.complete'))).toBe(true);
  expect(existsSync(join(root, 'partial/trees-linux-1-0123456789ab/x'))).toBe(true);
});

test.each([[[]], [['--all']]])('clean %j removes everything but the locks', async (args) => {
  fill();
  expect(await cache('clean', ...args)).toMatchObject({ exitCode: 0 });
  for (const kind of ['trees', 'images', 'modules', 'kvm', 'partial']) expect(readdirSync(join(root, kind))).toEqual([]);
  expect(existsSync(join(root, 'locks/trees-qemu-1'))).toBe(true);
});

test('clean of an empty cache frees nothing, and is no error', async () => {
  expect(await cache('clean')).toMatchObject({ exitCode: 0, stdout: '0 kB freed (0 bytes)' });
});

test.each([[0, '0 kB'], [1, '1 kB'], [999_999, '1000 kB'], [1e6, '1 MB'], [172_400_000, '172 MB'], [1.55e9, '1.6 GB']])('%i bytes are %s', (bytes, text) => {
  expect(formatBytes(bytes)).toBe(text);
});
