// `rootport cache prepare` and what the doctor says then, over the cache of this host. Runs dist/.
import { beforeAll, expect, test } from '@jest/globals';
import { rootport } from './rootport.ts';

beforeAll(async () => {
  expect((await rootport(['cache', 'prepare'])).exitCode).toBe(0);
}, 1_200_000);

test('a second cache prepare downloads nothing, shows no progress, and says so', async () => {
  const { exitCode, stdout, stderr } = await rootport(['cache', 'prepare']);
  expect({ exitCode, stderr }).toEqual({ exitCode: 0, stderr: '' });
  expect(stdout).toMatch(/^machine: q35, QEMU .*\neverything was in the cache already: nothing was downloaded: \//);
});

test('over a prepared cache the doctor misses nothing, and KVM is proven or refuted by a guest kernel', async () => {
  const { exitCode, stdout } = await rootport(['doctor', '--json']);
  const { ok, checks } = JSON.parse(stdout) as { ok: boolean; checks: { name: string; state: string; detail: string }[] };
  const of = (name: string) => checks.find((check) => check.name === name);
  expect({ exitCode, ok, missing: checks.filter(({ state }) => state === 'missing') }).toEqual({ exitCode: 0, ok: true, missing: [] });
  expect(of('QEMU')).toMatchObject({ state: 'ok', detail: expect.stringMatching(/^QEMU \d/) });
  expect(of('kernel')).toMatchObject({ state: 'ok', detail: expect.stringMatching(/^Linux Debian 6\.1\./) });
  expect(of('KVM')?.detail).toMatch(/^proven: the guest kernel printed its first line|no \/dev\/kvm|may not be opened|QEMU with KVM exited|printed nothing in/);
  expect(of('KVM')?.detail).not.toMatch(/not proven yet/);
});

test('KVM that was asked for and cannot be had is missing, and the exit code is 3', async () => {
  const { checks } = JSON.parse((await rootport(['doctor', '--json'])).stdout) as { checks: { name: string; state: string }[] };
  const works = checks.find(({ name }) => name === 'KVM')?.state === 'ok';
  const { exitCode, stdout } = await rootport(['doctor', '--accel', 'kvm']);
  expect(exitCode).toBe(works ? 0 : 3);
  expect(stdout).toMatch(works ? /^ok +KVM/m : /^MISSING +KVM/m);
});
