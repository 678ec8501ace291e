// The host's mirror, asked of the real apt-get over sources of the test's own (APT_CONFIG).
import { chmod, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { EnvironmentError } from '../../src/errors.ts';
import { HAND_OVER, hostMirror } from '../../src/packages/mirror.ts';

let directory: string;
const before = { ...process.env };
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'mirror-test-'));
  for (const name of ['parts', 'state/lists/partial', 'cache']) await mkdir(join(directory, name), { recursive: true });
  await writeFile(join(directory, 'status'), '');
  await writeFile(join(directory, 'apt.conf'), `
Dir::Etc::SourceList "${directory}/sources.list";
Dir::Etc::SourceParts "${directory}/parts";
Dir::State "${directory}/state";
Dir::State::status "${directory}/status";
Dir::Cache "${directory}/cache";
`);
  process.env['APT_CONFIG'] = join(directory, 'apt.conf');
  delete process.env['ROOTPORT_DEBIAN_MIRROR'];
});
afterEach(async () => {
  for (const name of ['APT_CONFIG', 'PATH', 'ROOTPORT_DEBIAN_MIRROR']) {
    if (before[name] === undefined) delete process.env[name];
    else process.env[name] = before[name];
  }
  await rm(directory, { recursive: true });
});

const oneLine = (text: string): Promise<void> => writeFile(join(directory, 'sources.list'), text);
const deb822 = (text: string): Promise<void> => writeFile(join(directory, 'parts/debian.sources'), text);
async function failure(): Promise<EnvironmentError> {
  const error = await hostMirror().catch((one: unknown) => one);
  expect(error).toBeInstanceOf(EnvironmentError);
  return error as EnvironmentError;
}

describe('apt sources that have Debian', () => {
  test('in one-line form give the main and the security archive', async () => {
    await oneLine(`# a comment
deb http://main.invalid/debian bookworm main contrib
deb http://main.invalid/debian bookworm-updates main
deb http://security.invalid/debian-security bookworm-security main
`);
    expect(await hostMirror()).toMatchObject({ main: 'http://main.invalid/debian/', security: 'http://security.invalid/debian-security/' });
  });

  test('in deb822 form give the same, whichever stanza comes first', async () => {
    await deb822(`Types: deb
URIs: https://security.invalid/debian-security
Suites: trixie-security
Components: main

Types: deb
URIs: https://main.invalid/debian
Suites: trixie trixie-updates
Components: main
`);
    expect(await hostMirror()).toMatchObject({ main: 'https://main.invalid/debian/', security: 'https://security.invalid/debian-security/' });
  });

  test('and others beside it give Debian\'s', async () => {
    await oneLine('deb http://packages.invalid/node nodistro main\ndeb http://cloud.invalid/apt tool-bookworm main\ndeb http://main.invalid/debian bookworm main\n');
    expect(await hostMirror()).toMatchObject({ main: 'http://main.invalid/debian/', security: undefined });
  });

  test.each(['stable', 'oldstable', 'oldoldstable', 'testing', 'unstable', 'sid'])('under the name %s are known', async (suite) => {
    await oneLine(`deb http://main.invalid/debian ${suite} main\n`);
    expect((await hostMirror()).main).toBe('http://main.invalid/debian/');
  });
});

describe('a host that has no Debian to take', () => {
  test('with Ubuntu\'s sources is an EnvironmentError that says what to hand over instead', async () => {
    await oneLine('deb http://archive.invalid/ubuntu jammy main\ndeb http://archive.invalid/ubuntu jammy-security main\n');
    const error = await failure();
    expect(error.message).toMatch(/this host's apt has no Debian sources/);
    expect(error.hint).toBe(HAND_OVER);
  });

  test('with no sources at all is the same', async () => {
    expect((await failure()).message).toMatch(/no Debian sources/);
  });

  test('without apt-get is an EnvironmentError that says so and what to hand over', async () => {
    process.env['PATH'] = join(directory, 'state');
    const error = await failure();
    expect(error.message).toMatch(/apt-get is not on this host/);
    expect(error.hint).toBe(HAND_OVER);
  });

  test('with an apt-get that fails quotes what it said', async () => {
    const fake = join(directory, 'state', 'apt-get');
    await writeFile(fake, '#!/bin/sh\necho "E: Malformed entry 1" >&2\nexit 100\n');
    await chmod(fake, 0o755);
    process.env['PATH'] = join(directory, 'state');
    expect((await failure()).message).toMatch(/E: Malformed entry 1/);
  });
});

test('ROOTPORT_DEBIAN_MIRROR wins, and no apt-get is asked', async () => {
  process.env['PATH'] = '/nowhere';
  expect(await hostMirror({ ROOTPORT_DEBIAN_MIRROR: 'http://given.invalid/debian' }))
    .toMatchObject({ main: 'http://given.invalid/debian', security: undefined });
  expect(await hostMirror({ ROOTPORT_DEBIAN_MIRROR: 'http://given.invalid/debian', ROOTPORT_DEBIAN_SECURITY_MIRROR: 'http://s.invalid' }))
    .toMatchObject({ security: 'http://s.invalid' });
});
