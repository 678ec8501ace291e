// The command line without a machine: help, versions, usage errors. The last block runs dist/ (see rootport.ts),
// the rest the same `main` in this process, which is quicker.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, describe, expect, jest, test } from '@jest/globals';
import { execa } from 'execa';
import { EnvironmentError, MachineExitError, UsageError } from '../../src/errors.ts';
import { errorText, exitCodeOf } from '../../src/cli/exit-codes.ts';
import { main } from '../../src/cli/program.ts';
import { MAIN, PACKAGE, rootport } from './rootport.ts';

const { version } = JSON.parse(readFileSync(join(PACKAGE, 'package.json'), 'utf8')) as { version: string };

const environment = { ...process.env };
afterEach(() => {
  jest.restoreAllMocks();
  process.env = { ...environment };
});

/** As the bin does it, with what it writes. */
async function cli(args: readonly string[], env: Record<string, string> = {}): Promise<{ exitCode: number; stdout: string; stderr: string }> {
  const said = { stdout: '', stderr: '' };
  for (const name of ['stdout', 'stderr'] as const) {
    jest.spyOn(process[name], 'write').mockImplementation((chunk) => { said[name] += String(chunk); return true; });
  }
  Object.assign(process.env, env);
  const exitCode = await main(args);
  jest.restoreAllMocks();
  return { exitCode, ...said };
}

describe('help', () => {
  test.each(['run', 'doctor', 'shell', 'dev', 'cache', 'cache list', 'cache prepare', 'cache clean', 'cache path'])(
    '%s --help shows its usage with an example, and exits with 0', async (command) => {
      const { exitCode, stdout, stderr } = await cli([...command.split(' '), '--help']);
      expect(stdout).toMatch(new RegExp(`^Usage: rootport ${command}`));
      expect(stdout).toMatch(/\nExamples?:\n {2}\S/);
      expect({ exitCode, stderr }).toEqual({ exitCode: 0, stderr: '' });
    },
  );

  test('--help names every command and every exit code', async () => {
    const { exitCode, stdout } = await cli(['--help']);
    expect(exitCode).toBe(0);
    for (const command of ['run', 'doctor', 'shell', 'cache']) expect(stdout).toMatch(new RegExp(`^ {2}${command} `, 'm'));
    expect(stdout).toMatch(/0 passed, 1 failed, 2 wrong usage, 3 the host lacks something/);
  });

  test('no command at all shows the help, and exits with 2', async () => {
    const { exitCode, stderr } = await cli([]);
    expect(exitCode).toBe(2);
    expect(stderr).toMatch(/^Usage: rootport/);
  });
});

describe('a usage error exits with 2 and says what there is', () => {
  test.each([
    ['an unknown command', ['frobnicate'], /^error: unknown command 'frobnicate'/],
    ['an unknown option', ['run', '--frobnicate'], /^error: unknown option '--frobnicate'/],
    ['more retries than there can be', ['run', '--retries', '1000'], /^error: option '--retries <n>' argument '1000' is invalid\. It is not a whole number from 0 to 999\./],
    ['a suite that is not there', ['dev', 'images/probe', 'nowhere.suite.ts'], /^error: there is no suite nowhere\.suite\.ts\n$/],
    ['a suite, and devices for it', ['dev', 'images/probe', 'suites/msix', 'edu'], /^error: a suite plugs its own devices\n {2}hint: leave out edu\n$/],
    ['a suite, and a command for it', ['dev', 'images/probe', 'suites/msix', '--run', 'true'], /^error: --run is not for a suite\n {2}hint: /],
    ['a suite, and gdb', ['dev', 'images/probe', 'suites/msix', '--gdb'], /^error: --gdb is not for a suite\n {2}hint: leave out the suite; rootport shell has --gdb too\n$/],
    ['a round without end, once', ['dev', 'images/probe', '--gdb', '--once'], /^error: --gdb and --once: a round with gdb has no end of its own\n$/],
    ['tests to choose, of no suite', ['dev', 'images/probe', '-t', 'x'], /^error: -t chooses tests of a suite, and none is given\n$/],
    ['a share of no directory', ['shell', '--share', '/no/such'], /^error: --share: there is no directory \/no\/such\n {2}hint: DIRECTORY, or DIRECTORY:\/PATH/],
    ['a share that hides the guest\'s own', ['shell', '--share', 'suites:/usr/lib/'], /^error: --share: \/usr\/lib of the guest would be hidden\n {2}hint: take a path below \/mnt\n$/],
    ['two shares in one place', ['shell', '--share', 'suites', '--share', 'src:/mnt/x/../suites'], /^error: --share: two directories would be \/mnt\/suites\n/],
    ['an unknown device', ['shell', 'frobnicate'], /^error: there is no device named "frobnicate"\n {2}hint: the devices are edu, ivshmem, virtio-blk, virtio-net, virtio-rng, virtio-input, virtio-vsock, virtio-i2c, virtio-gpio, virtio-console\n$/],
    ['an unknown command of the cache', ['cache', 'frobnicate'], /^error: too many arguments for 'list'/],
    ['an argument where none is taken', ['doctor', 'edu'], /^error: too many arguments for 'doctor'/],
    ['an unknown option of a device', ['shell', 'virtio-blk:frob=1'], /^error: virtio-blk has no option "frob"\n {2}hint: its options are queues,/],
    ['options that make no device', ['shell', 'virtio-blk:queues=100'], /^error: virtioBlk: queues 100 is not a whole number from 1 to 64/],
    ['an unknown accelerator', ['run', '--accel', 'warp'], /Allowed choices are auto, kvm, tcg/],
    ['an unknown machine', ['shell', '--machine', 'q36'], /^error: there is no machine named "q36"\n {2}hint: the machines are q35,/],
    ['more CPUs than there are', ['shell', '--cpus', '1000'], /^error: cpus: 1000 is not a whole number from 1 to 288/],
    ['an unknown QEMU', ['doctor', '--qemu', '1.0'], /^error: there is no QEMU named "1.0"\n {2}hint: give 'host', a path, or one of 7.2, 10.0, 11.1/],
    ['an unknown kernel', ['doctor', '--kernel', '2.4'], /^error: there is no kernel named "2.4"\n {2}hint: the kernels are 6.1, 6.12/],
    ['a kernel path that leads nowhere', ['run', '--kernel', './no/such/tree'], /^error: there is no kernel at \/.*no\/such\/tree/],
    ['a count that is none', ['run', '--repeat', '0'], /^error: .*'--repeat <n>' argument '0' is invalid\. It is not a whole number from 1/],
    ['a number of workers that is none', ['run', '--workers', 'many'], /neither a number from 1 nor a percentage/],
    ['a pattern that does not parse', ['run', '-t', '('], /^error: -t: Invalid regular expression/],
    ['an unknown kind of cache entry', ['cache', 'clean', 'frobs'], /^error: the cache has no kind named frobs\n {2}hint: the kinds are trees,/],
    ['half a userland', ['doctor'], /^error: ROOTPORT_BUSYBOX and ROOTPORT_DROPBEAR are set together/, { ROOTPORT_BUSYBOX: '/bin/true' }],
  ] as [string, string[], RegExp, Record<string, string>?][])('%s', async (_condition, args, message, env = {}) => {
    const { exitCode, stdout, stderr } = await cli(args, env);
    expect(stderr).toMatch(message);
    expect(stderr).not.toMatch(/\n {4}at /);
    expect({ exitCode, stdout }).toEqual({ exitCode: 2, stdout: '' });
  });
});

describe('errors', () => {
  test('exit codes tell usage, environment and the rest apart', () => {
    expect(exitCodeOf(new UsageError('x'))).toBe(2);
    expect(exitCodeOf(new EnvironmentError('x'))).toBe(3);
    expect(exitCodeOf(new MachineExitError('x', 1, undefined))).toBe(1);
    expect(exitCodeOf(new Error('x'))).toBe(1);
  });

  test('an error is its message and its hint, without a stack', () => {
    expect(errorText(new UsageError('no such thing', { hint: 'take another' }), {})).toBe('error: no such thing\n  hint: take another\n');
  });

  test('with ROOTPORT_DEBUG set its stack and those of its causes are shown', () => {
    const text = errorText(new UsageError('outer', { cause: new Error('inner') }), { ROOTPORT_DEBUG: '1' });
    expect(text).toMatch(/^error: UsageError: outer\n {4}at [^]*caused by: Error: inner\n {4}at /);
  });

  test('an error that is none of rootport\'s own says how to learn more', () => {
    expect(errorText(new TypeError('x is undefined'), {})).toMatch(/^error: x is undefined\n {2}hint: .*ROOTPORT_DEBUG=1/);
  });
});

describe('the bin', () => {
  test('--version prints the package\'s version', async () => {
    expect(await rootport(['--version'])).toEqual({ exitCode: 0, stdout: version, stderr: '' });
  });

  test('a usage error is on standard error alone, and the exit code is 2', async () => {
    const { exitCode, stdout, stderr } = await rootport(['shell', 'frobnicate']);
    expect({ exitCode, stdout }).toEqual({ exitCode: 2, stdout: '' });
    expect(stderr).toMatch(/^error: there is no device named "frobnicate"\n {2}hint: /);
  });

  test('suites that this package does not have are refused before anything is prepared', async () => {
    const { exitCode, stderr } = await rootport(['run', 'frobnicate'], { env: { ROOTPORT_CACHE: '/proc/none' } });
    expect(exitCode).toBe(2);
    expect(stderr).toMatch(/^error: there is no suite named "frobnicate"\n {2}hint: the suites of .* are .*\bedu\b.*\bvirtio-blk\b/);
  });

  test('a reader that goes away ends it quietly', async () => {
    const { stderr } = await execa('sh', ['-c', `${process.execPath} ${MAIN} --help | true`]);
    expect(stderr).toBe('');
  });
});
