// Packages and files in a real guest: downloaded once, run there, and refused with a reason.
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { existsSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { UsageError } from '../../src/errors.ts';
import { checkPackages, ensureGuestPackages, type GuestPackage } from '../../src/image/index.ts';
import { CpioArchive } from '../../src/image/cpio.ts';
import { boot } from '../../src/machine/boot.ts';
import { silentProgress } from '../../src/packages/index.ts';
import { q35 } from '../../src/qemu/preset.ts';
import { parseCpio } from './cpio-reader.ts';
import { breakApt } from '../packages/broken-apt.ts';

let scratch: string;
const before = { ...process.env };
beforeEach(async () => { scratch = await mkdtemp(join(tmpdir(), 'packages-test-')); });
afterEach(async () => {
  for (const name of ['PATH', 'ROOTPORT_CACHE']) {
    if (before[name] === undefined) delete process.env[name];
    else process.env[name] = before[name];
  }
  await rm(scratch, { recursive: true, force: true });
});

/** A scratch cache, and what these packages bring into a guest. */
async function brought(packages: readonly GuestPackage[]): Promise<string[]> {
  process.env['ROOTPORT_CACHE'] = join(scratch, 'cache');
  checkPackages(packages);
  const archive = new CpioArchive();
  await (await ensureGuestPackages(packages, silentProgress))?.addTo(archive);
  return parseCpio(archive.finish()).map(({ name }) => name).filter((name) => name !== 'TRAILER!!!');
}

test('a package and a file are in the guest from its first process on; the second boot asks no apt', async () => {
  const firmware = join(scratch, 'firmware');
  await writeFile(firmware, 'some firmware');
  const options = { packages: ['strace', 'ethtool', 'mount', 'iperf3'], files: { '/lib/firmware/own.bin': firmware } };
  const first = await boot(options);
  try {
    // A real program, its library (libunwind), and a system call that it saw.
    expect((await first.guest.run('strace -e trace=execve true 2>&1')).stdout).toMatch(/^execve\(".*true"/m);
    expect((await first.guest.run('ethtool -i eth0')).stdout).toMatch(/^driver: virtio_net$/m);
    // iperf3 cancels threads, for which libc opens libgcc_s by itself.
    const { stdout } = await first.guest.run('iperf3 -s -1 -D && iperf3 -c 127.0.0.1 -n 1M -J', { timeoutMs: 60_000 });
    expect((JSON.parse(stdout) as { end: { sum_received: { bytes: number } } }).end.sum_received.bytes).toBeGreaterThanOrEqual(2 ** 20);
    expect((await first.guest.run('cat /lib/firmware/own.bin')).stdout).toBe('some firmware');
    // The shell is busybox's, which takes its own applets first; by its path the package's is had.
    expect((await first.guest.run('/usr/bin/mount --version')).stdout).toMatch(/^mount from util-linux/);
    expect((await first.guest.run('mount --help 2>&1')).stdout).toMatch(/^BusyBox /);
  } finally {
    await first.close();
  }
  const called = await breakApt(scratch);
  const second = await boot(options);
  await second.close();
  expect(existsSync(called)).toBe(false);
});

test('a package brings what it holds and links against, and not what else it depends on', async () => {
  const names = await brought(['xfsprogs']);
  expect(names).toEqual(expect.arrayContaining([
    'usr/sbin/mkfs.xfs', 'usr/lib/x86_64-linux-gnu/libinih.so.1', 'usr/lib/x86_64-linux-gnu/libicuuc.so.76', 'usr/lib64/ld-linux-x86-64.so.2',
    'usr/lib/x86_64-linux-gnu/libgcc_s.so.1',
  ]));
  expect(names.filter((name) => /python|dpkg|share\/(doc|man)\/|systemd\/|include/.test(name))).toEqual([]);
});

test('of a package only the programs asked for come, what they need, and what a link leads to in another', async () => {
  const names = await brought([{ name: 'xfsprogs', programs: ['mkfs.xfs'] }, { name: 'python3-minimal', programs: ['python3'] }]);
  expect(names.filter((name) => !name.includes('/lib') && !/^usr(\/s?bin)?$/.test(name)).sort()).toEqual(['usr/bin/python3', 'usr/bin/python3.13', 'usr/sbin/mkfs.xfs']);
  expect(names.some((name) => name.includes('libblkid'))).toBe(true);
  expect(names.some((name) => name.includes('libicu'))).toBe(false);
});

test.each<[string, GuestPackage[], RegExp]>([
  ['that Debian has not, or that is virtual with several that provide it', ['strace', 'no-such-thing', 'netcat'], /^Debian trixie has no package to install by the name of netcat, no-such-thing\n {2}hint: .*apt-cache search/],
  ['that is virtual, with one that provides it', ['e2fslibs'], /^packages: e2fslibs is a virtual package[^]*name one of them/],
  ['without the program asked for', [{ name: 'ethtool', programs: ['ethtool', 'mii-tool'] }], /^packages: ethtool has no program mii-tool\n {2}hint: it has ethtool$/],
])('a package %s is a UsageError that says what to do, and nothing is kept', async (_, packages, message) => {
  const error = await brought(packages).catch((one: unknown) => one) as UsageError;
  expect(error).toBeInstanceOf(UsageError);
  expect(error.message).toMatch(message);
  expect(await readdir(join(scratch, 'cache', 'partial'))).toEqual([]);
  expect(existsSync(join(scratch, 'cache', 'packages'))).toBe(false);
});

test('a guest with just the memory that its image needs has it whole; with less it is not booted', async () => {
  const big = join(scratch, 'big');
  await writeFile(big, Buffer.alloc(100 * 2 ** 20, 'rootport'));
  const files = { '/root/big': big };
  const refused = await boot({ files, machine: q35({ memoryMiB: 256 }) }).catch((one: unknown) => one) as UsageError;
  expect(refused).toBeInstanceOf(UsageError);
  const memoryMiB = Number(/give (\d+) or more/.exec(refused.message)?.[1]);
  const machine = await boot({ files, machine: q35({ memoryMiB }) });
  try {
    expect((await machine.guest.run('wc -c </root/big')).stdout.trim()).toBe(`${100 * 2 ** 20}`);
    expect((await machine.guest.run('tail -c 8 /root/big')).stdout).toBe('rootport');
  } finally {
    await machine.close();
  }
});
