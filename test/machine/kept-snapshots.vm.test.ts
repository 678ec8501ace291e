// Snapshots that the cache keeps, in a cache of this test's own whose packages are the real one's: made once whoever
// asks, and never used when anything about them is odd.
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import { execa } from 'execa';
import { edu } from '../../src/devices/edu/index.ts';
import { provenSnapshot, restore } from '../../src/machine/kept-snapshots.ts';
import { resolveParts } from '../../src/machine/parts.ts';
import { cacheRoot, silentProgress } from '../../src/packages/index.ts';
import { q35 } from '../../src/qemu/preset.ts';

const RESTORER = fileURLToPath(new URL('restorer.mjs', import.meta.url));
const TIMEOUT_MS = 120_000;

let root: string;
let real: string | undefined;
beforeAll(async () => {
  await resolveParts({}); // what is shared must be there
  const shared = cacheRoot();
  root = mkdtempSync(join(tmpdir(), 'rootport-cache-'));
  for (const kind of readdirSync(shared).filter((name) => !['snapshots', 'partial', 'locks'].includes(name))) symlinkSync(join(shared, kind), join(root, kind));
  real = process.env['ROOTPORT_CACHE'];
  process.env['ROOTPORT_CACHE'] = root;
}, TIMEOUT_MS);
afterAll(() => {
  if (real === undefined) delete process.env['ROOTPORT_CACHE'];
  else process.env['ROOTPORT_CACHE'] = real;
  rmSync(root, { recursive: true });
});

const notes: string[] = [];
afterEach(() => void notes.splice(0));
const progress = { ...silentProgress, start: (text: string) => void notes.push(text), note: (text: string) => void notes.push(text) };
const kept = (): string[] => readdirSync(join(root, 'snapshots')).sort();
const only = (name: string): string => {
  const [key = '', ...more] = kept();
  expect(more).toEqual([]);
  return join(root, 'snapshots', key, name);
};
const boots = (): number => notes.filter((text) => text.endsWith('booting once')).length;

/** What a process said that restored a machine. */
async function restorer(): Promise<Record<string, string[]>> {
  const { stdout } = await execa(process.execPath, [RESTORER], { env: { ROOTPORT_CACHE: root } });
  const said: Record<string, string[]> = {};
  for (const line of stdout.split('\n')) for (const [what, text] of Object.entries(JSON.parse(line) as Record<string, string>)) (said[what] ??= []).push(text);
  return said;
}

test('a maker that is killed leaves nothing that is used, and its lock is free', async () => {
  const child = spawn(process.execPath, [RESTORER], { env: { ...process.env, ROOTPORT_CACHE: root }, stdio: ['ignore', 'pipe', 'inherit'] });
  const exited = new Promise((resolve) => child.once('exit', resolve));
  await Promise.race([new Promise((resolve) => child.stdout.once('data', resolve)), exited]); // it has the lock, and boots
  child.kill('SIGKILL');
  expect(await exited).toBeNull();
  expect(readdirSync(join(root, 'partial'))).toHaveLength(1);
  await using machine = await restore({ progress });
  expect(machine.description).toContain('restored from a snapshot');
  expect([boots(), kept().length, readdirSync(join(root, 'partial'))]).toEqual([1, 1, []]);
}, TIMEOUT_MS);

test('what one process made others restore, many at once', async () => {
  const said = await Promise.all([restorer(), restorer(), restorer()]);
  expect(said.map(({ start = [] }) => start)).toEqual([[], [], []]);
  expect(new Set(said.flatMap(({ description = [] }) => description)).size).toBe(1); // it says when it was saved
  expect(new Set(said.flatMap((one) => one['boot id'] ?? [])).size).toBe(3); // random, and drawn by each guest for itself
}, TIMEOUT_MS);

test('two processes that want the same at once boot it once', async () => {
  rmSync(only(''), { recursive: true });
  const said = await Promise.all([restorer(), restorer()]);
  expect(said.flatMap(({ start = [] }) => start)).toEqual([expect.stringMatching(/^snapshot of q35, 1 CPU, 256 MiB, QEMU .*: booting once$/)]);
  const [first, second] = said.map(({ description = [] }) => description);
  expect(first).toEqual([expect.stringContaining('restored from a snapshot')]);
  expect(second).toEqual(first);
}, TIMEOUT_MS);

test('the console of the boot is known to a restored machine, whose own begins with it', async () => {
  await using machine = await restore();
  expect(machine.bootConsole).toMatch(/^rootport-ready [0-9a-f]{24}$/m);
  expect(machine.console.text).not.toContain('rootport-ready');
}, TIMEOUT_MS);

interface Record_ { stateSha256: string; of: Record<string, unknown> }

/** Change the record of the one that is kept. */
function rewrite(change: (record: Record_) => void): void {
  const path = only('snapshot.json');
  const record = JSON.parse(readFileSync(path, 'utf8')) as Record_;
  change(record);
  writeFileSync(path, JSON.stringify(record));
}

test.each([
  ['whose memory was cut short', () => truncateSync(only('memory'), statSync(only('memory')).size - 65536), /the saved memory has \d+ bytes and should have/],
  ['of another machine under its key', () => rewrite(({ of }) => { of['append'] = ['another']; }), /it is of another machine/],
  ['whose state QEMU does not take, though it is the one that the record names', () => {
    const state = readFileSync(only('state'));
    state.write('no-such-device', state.indexOf('virtio-net'), 'latin1');
    writeFileSync(only('state'), state);
    rewrite((record) => { record.stateSha256 = createHash('sha256').update(state).digest('hex'); });
  }, /the machine does not come back: QEMU exited/],
])('a snapshot %s is not used, and made anew', async (_, damage, why) => {
  damage();
  await using machine = await restore({ progress });
  expect(machine.description).toContain('restored from a snapshot');
  expect(notes).toEqual([expect.stringMatching(/^the snapshot .* is not used, and made anew: /), expect.stringContaining('booting once')]);
  expect(notes[0]).toMatch(why);
  expect(kept()).toHaveLength(1);
}, TIMEOUT_MS);

test('beyond the limit the least recently used goes, and who has it open keeps it', async () => {
  process.env['ROOTPORT_SNAPSHOTS_MIB'] = '1';
  try {
    const before = kept();
    const { snapshot, machine } = await provenSnapshot({ progress });
    await machine.close();
    await using other = await restore({ machine: q35({ ports: 1 }), progress });
    expect(other.ports).toEqual(['rp1']);
    expect(boots()).toBe(1);
    expect(notes).toContainEqual(expect.stringMatching(/^the kept snapshots took more than 1 MB \(ROOTPORT_SNAPSHOTS_MIB\): one of \d+ MB, last used 0 min ago, is gone$/));
    expect(kept()).toHaveLength(1);
    expect(kept()).not.toEqual(before);
    await using again = await snapshot.restore();
    expect(again.ports).toHaveLength(4);
    await snapshot.close();
  } finally {
    delete process.env['ROOTPORT_SNAPSHOTS_MIB'];
  }
}, TIMEOUT_MS);

describe('where no snapshot can be kept', () => {
  test('a machine with devices is booted with them, and says why', async () => {
    await using machine = await restore({ devices: [edu()], progress });
    expect(machine.description).not.toContain('restored');
    expect(notes).toEqual(['booted, not restored from a snapshot: of the devices that it boots with (edu), whose state may not be saved']);
  }, TIMEOUT_MS);

  test('and the cache cannot be written, a process has one of its own', async () => {
    rmSync(join(root, 'snapshots'), { recursive: true });
    writeFileSync(join(root, 'snapshots'), 'in the way');
    try {
      const { snapshot, machine } = await provenSnapshot({ progress });
      expect(machine.description).toContain('restored from a snapshot');
      expect(notes).toEqual([expect.stringContaining('booting once'), expect.stringMatching(/^the cache cannot keep a snapshot, so that others boot again: E/)]);
      await machine.close();
      await snapshot.close();
    } finally {
      rmSync(join(root, 'snapshots'));
      mkdirSync(join(root, 'snapshots'));
    }
  }, TIMEOUT_MS);
});
