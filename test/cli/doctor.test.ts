// `rootport doctor` without a filled cache: it must download nothing. Runs dist/ (see rootport.ts).
import { chmodSync, mkdirSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { table, type Check } from '../../src/cli/doctor-check.ts';
import { findProgram, nodeCheck } from '../../src/cli/doctor-host.ts';
import { rootport, temporary } from './rootport.ts';

let root: string;
beforeEach(() => { root = temporary('doctor'); });
afterEach(() => rmSync(root, { recursive: true }));

interface Report { readonly ok: boolean; readonly checks: readonly Check[] }
async function doctor(env: Record<string, string> = {}, ...args: string[]): Promise<{ exitCode: number | undefined; report: Report; of: (name: string) => Check | undefined }> {
  const { exitCode, stdout } = await rootport(['doctor', '--json', ...args], { env: { ROOTPORT_CACHE: join(root, 'cache'), ...env } });
  const report = JSON.parse(stdout) as Report;
  return { exitCode, report, of: (name) => report.checks.find((check) => check.name === name) };
}

/** A PATH with these of the host's programs and no others. */
function pathWith(...programs: string[]): string {
  const directory = join(root, 'bin');
  mkdirSync(directory);
  for (const program of programs) symlinkSync(findProgram(program) ?? '', join(directory, program));
  return directory;
}

test('--json tells each thing with its state, and what mends what is not there', async () => {
  const { report } = await doctor();
  expect(report.checks.map(({ name }) => name)).toEqual([
    'Node.js', 'gcc', 'make', 'strip', 'setpriv', 'flock', 'tar', 'python3', 'native addon', 'apt-get', 'dpkg-deb',
    'Debian mirror', ...report.checks.some(({ name }) => name === 'Debian keyring') ? ['Debian keyring'] : [],
    'cache', 'disk space', 'QEMU', 'guest programs', 'kernel', 'KVM',
  ]);
  for (const check of report.checks) {
    expect(['ok', 'missing', 'note']).toContain(check.state);
    expect(check.detail).not.toBe('');
    if (check.state === 'missing') expect(check.mend).toBeTruthy();
  }
});

test('with an empty cache nothing is downloaded, and KVM is not called proven', async () => {
  const { of } = await doctor({}, '--qemu', '10.0');
  expect(of('QEMU')).toMatchObject({ state: 'note', mend: 'rootport cache prepare' });
  expect(of('kernel')).toMatchObject({ state: 'note', mend: 'rootport cache prepare' });
  expect(of('KVM')?.state).toBe('note');
  expect(of('KVM')?.detail).toMatch(/not proven yet|there is no \/dev\/kvm/);
  expect(readdirSync(join(root, 'cache'))).toEqual([]);
});

test('on a host with nothing on the PATH it exits with 3 and says for each thing what mends it', async () => {
  const { exitCode, report, of } = await doctor({ PATH: pathWith('du') });
  expect(exitCode).toBe(3);
  expect(report.ok).toBe(false);
  expect(of('gcc')).toMatchObject({ state: 'missing', mend: 'apt-get install gcc libc6-dev' });
  expect(of('setpriv')).toMatchObject({ state: 'missing', mend: 'apt-get install util-linux' });
  expect(of('apt-get')).toMatchObject({ state: 'missing' });
  expect(of('apt-get')?.mend).toMatch(/ROOTPORT_QEMU.*ROOTPORT_KERNEL.*ROOTPORT_BUSYBOX.*ROOTPORT_DROPBEAR/);
  expect(of('python3')?.state).toBe('note'); // the addon is built: this test's own process needs it
});

test('a host without apt is fine when everything is handed over', async () => {
  const [tree, program] = [join(root, 'tree'), join(root, 'qemu')];
  mkdirSync(join(tree, 'arch/x86/boot'), { recursive: true });
  writeFileSync(join(tree, 'arch/x86/boot/bzImage'), 'no kernel');
  writeFileSync(program, '#!/bin/sh\necho QEMU emulator version 9.1.0\n');
  chmodSync(program, 0o755);
  const { of } = await doctor({
    PATH: pathWith('du', 'sh', 'flock', 'gcc'), ROOTPORT_QEMU: program, ROOTPORT_KERNEL: tree, ROOTPORT_BUSYBOX: program, ROOTPORT_DROPBEAR: program,
  });
  expect(of('apt-get')).toMatchObject({ state: 'note' });
  expect(of('Debian mirror')).toMatchObject({ state: 'note' });
  expect(of('QEMU')).toMatchObject({ state: 'ok', detail: expect.stringContaining('QEMU 9.1.0') });
  expect(of('guest programs')).toBeUndefined();
  expect(of('kernel')?.state).toBe('missing'); // it is looked at, not presumed: this one is no kernel
});

test('a cache that cannot be written is missing', async () => {
  writeFileSync(join(root, 'file'), '');
  const { exitCode, of } = await doctor({ ROOTPORT_CACHE: join(root, 'file/cache') });
  expect(exitCode).toBe(3);
  expect(of('cache')).toMatchObject({ state: 'missing', mend: expect.stringContaining('ROOTPORT_CACHE') });
});

test('without --json it is a table, in plain words where the output is not a terminal', async () => {
  const { stdout } = await rootport(['doctor'], { env: { ROOTPORT_CACHE: join(root, 'cache') } });
  expect(stdout).toMatch(/^ok {7}Node\.js +v\d+/);
  expect(stdout).not.toContain('\u001b');
});

describe('the table', () => {
  const checks: Check[] = [
    { name: 'a', state: 'ok', detail: 'here' },
    { name: 'long', state: 'missing', detail: 'gone', mend: 'fetch it' },
    { name: 'b', state: 'note', detail: 'so so', mend: 'or not' },
  ];
  test('has words where there is no terminal, and a line below for what to do', () => {
    expect(table(checks, false)).toBe([
      'ok       a     here', 'MISSING  long  gone', '               mend: fetch it', 'note     b     so so', '               hint: or not', '', '1 needed and missing', '',
    ].join('\n'));
  });
  test('has coloured marks on a terminal', () => {
    expect(table(checks, true)).toContain('\u001b[31m\u2718\u001b[0m  long  gone\n         mend: fetch it\n');
  });
});

test.each([['20.18.1', 'missing'], ['20.19.0', 'ok'], ['18.20.0', 'missing'], ['22.0.0', 'ok']])('Node %s is %s', (version, state) => {
  expect(nodeCheck(version).state).toBe(state);
});
