// `rootport shell` with real guests: commands on standard input, a terminal, and its ends. Runs dist/.
import { mkdir, readdir, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, describe, expect, test } from '@jest/globals';
import { execa, type ResultPromise } from 'execa';
import { within } from '../../src/wait.ts';
import { allGone, commandOf, descendants } from './descendants.ts';
import { exitOf, MAIN, PACKAGE, rootport, start, temporary } from './rootport.ts';

const started: ResultPromise[] = [];
afterEach(() => { for (const child of started.splice(0)) child.kill('SIGKILL'); });

/** Resolves when what the stream said matches. */
function said(stream: NodeJS.ReadableStream, pattern: RegExp): Promise<string> {
  let text = '';
  const found = new Promise<string>((resolve) => {
    stream.on('data', (chunk: Buffer) => {
      text += chunk.toString('latin1');
      if (pattern.test(text)) resolve(text);
    });
  });
  return within(found, { timeoutMs: 90_000, what: `${String(pattern)} to be said` }).catch((error: Error) => { throw new Error(`${error.message}; it said:\n${text}`); });
}

describe('with commands on standard input', () => {
  test('they run in the guest beside the devices and the module, gdb\'s line follows each load, and the exit code is the shell\'s', async () => {
    const sections = '/sys/module/rootport_probe/sections';
    const child = execa(process.execPath, [MAIN, 'shell', '--cpus', '2', '--gdb', '--module', 'images/probe', 'edu', 'virtio-blk:queues=2,capacity=3M'], {
      cwd: PACKAGE, stdin: 'pipe', reject: false, timeout: 120_000,
    });
    started.push(child);
    const toldAgain = said(child.stderr, /^gdb [^]*^gdb .*\n/m);
    child.stdin.write([
      'lspci -nn -s 01:00.0', 'cat /sys/block/vda/size; ls /sys/block/vda/mq', 'echo to-stderr >&2',
      // What is loaded between goes where the module was, as a rule: vmalloc gives a place out again when it has purged it.
      `cat ${sections}/.text; rmmod rootport_probe; modprobe ext4; insmod /tmp/modules/rootport_probe.ko; cat ${sections}/.text\n`,
    ].join('\n'));
    await toldAgain;
    child.stdin.end('exit 7\n');
    const { exitCode, stdout, stderr } = await child;
    expect(exitCode).toBe(7);
    expect(stdout).toMatch(/^01:00\.0 .*\[1234:11e8\].*\n6144\n0\n1\n0x[0-9a-f]+\n0x[0-9a-f]+$/);
    const [before = '', after = ''] = stdout.split('\n').slice(-2);
    const gdb = (text: string): unknown => expect.stringMatching(new RegExp(`^gdb /\\S+/vmlinux -ex 'set confirm off' -ex 'target remote /\\S+/gdb' -ex 'add-symbol-file /\\S+/rootport_probe\\.ko ${text} -s \\.bss 0x`));
    const lines = stderr.split('\n').filter((line) => !line.startsWith('rootport: '));
    expect(lines).toEqual([
      expect.stringMatching(/^machine: q35, QEMU \d.*, Linux Debian 6\.1\..*, (kvm|tcg): /),
      gdb(before),
      '0000:01:00.0  edu in rp1, no driver',
      '0000:02:00.0  virtio-blk:queues=2,capacity=3M in rp2, driver virtio-pci',
      'to-stderr',
      gdb(after),
    ]);
  });

  test('a directory is shared both ways, and leads nowhere else; a shell that a signal ended exits as shells say it', async () => {
    const outside = temporary('outside'), directory = temporary('shared, here');
    try {
      await writeFile(join(outside, 'secret'), 'of the host\n');
      await mkdir(join(directory, 'a folder'));
      await writeFile(join(directory, 'a folder/from the host'), 'hello\n');
      await writeFile(join(directory, 'program'), '#!/bin/sh\necho "ran in $(cat /proc/sys/kernel/hostname)"\n', { mode: 0o755 });
      await symlink(join(outside, 'secret'), join(directory, 'link'));
      await symlink(outside, join(directory, 'way out'));
      const { exitCode, stdout, stderr } = await rootport(['shell', '--share', `${directory}:/mnt/shared here`], {
        input: [
          'cd "/mnt/shared here"', 'cat "a folder/from the host"', './program',
          'cat link "way out/secret"; ls ..; echo guest >"way out/secret"; echo guest >link',
          'echo "written by the guest" >"from the guest"; cp program "a folder/copied program"; chmod 600 program; rm "a folder/from the host"',
          'kill -9 $$\n',
        ].join('\n'),
      });
      expect(stderr).toContain(`/mnt/shared here  is ${directory}\n`);
      expect(stdout).toBe('hello\nran in rootport\nshared here');
      expect(stderr.match(/^cat: can't open .*: No such file or directory$/gm)).toHaveLength(2);
      expect(await readFile(join(outside, 'secret'), 'utf8')).toBe('of the host\n');
      expect(await readFile(join(directory, 'from the guest'), 'utf8')).toBe('written by the guest\n');
      expect(await readdir(join(directory, 'a folder'))).toEqual(['copied program']);
      expect((await execa(join(directory, 'a folder/copied program'))).stdout).toMatch(/^ran in /);
      expect((await stat(join(directory, 'program'))).mode & 0o777).toBe(0o600);
      expect(exitCode).toBe(137);
    } finally {
      for (const one of [outside, directory]) await rm(one, { recursive: true });
    }
  });

  test('a guest that powers itself off ends it well', async () => {
    const { exitCode, stderr } = await rootport(['shell'], { input: 'poweroff -f\nsleep 100\n' });
    expect(stderr).toMatch(/the guest powered off$/);
    expect(exitCode).toBe(0);
  });

  test('a guest whose kernel panics ends it with 1, and its report is shown', async () => {
    const { exitCode, stderr } = await rootport(['shell'], { input: 'echo c >/proc/sysrq-trigger\nsleep 100\n' });
    expect(stderr).toMatch(/^error: the guest kernel reported: .*sysrq triggered crash/im);
    expect(exitCode).toBe(1);
  });
});

test('on a terminal the shell has a terminal of the same size, follows a resize, and takes Ctrl-C', async () => {
  // script(1) gives the terminal; a resize from beside it reaches rootport as SIGWINCH.
  const command = `stty rows 33 cols 101; tty; exec ${process.execPath} ${MAIN} shell`;
  const child = execa('script', ['-qefc', command, '/dev/null'], { cwd: PACKAGE, stdin: 'pipe', reject: false, timeout: 120_000 });
  started.push(child);
  const step = async (input: string, pattern: RegExp): Promise<string> => {
    const answer = said(child.stdout, pattern);
    child.stdin.write(input);
    return answer;
  };
  const terminal = /(\/dev\/pts\/\d+)/.exec(await said(child.stdout, /\/dev\/pts\/\d+/))?.[1] ?? '';
  await said(child.stdout, /~ # /);
  await step('echo size=$(stty size) path=$PATH\r', /size=33 101 path=\/usr\/sbin:/);
  await execa('stty', ['-F', terminal, 'rows', '44', 'cols', '111']);
  await step('sleep 0.2; echo size=$(stty size)\r', /size=44 111/);
  const interrupted = said(child.stdout, /status=130/);
  // Said by the job itself, which is then the terminal's foreground: a ^C that comes between two commands
  // of the shell's own line reaches neither of them.
  await step('sh -c \'echo slee""ping; exec sleep 1000\'\r', /sleeping/);
  child.stdin.write('\u0003');
  child.stdin.write('echo status=$?\r');
  await interrupted;
  child.stdin.write('exit 5\r');
  expect((await child).exitCode).toBe(5);
});

test.each(['SIGINT', 'SIGTERM', 'SIGHUP'] as const)('%s ends the guest, and the exit code is 130', async (signal) => {
  const child = start(['shell', 'virtio-rng'], { input: 'echo up; sleep 1000\n' });
  started.push(child);
  await said(child.stdout, /up\n/);
  const pids = descendants(child.pid ?? 0);
  expect(pids.some((pid) => commandOf(pid).includes('qemu-system'))).toBe(true);
  child.kill(signal);
  expect(await exitOf(child)).toBe(130);
  await allGone([child.pid ?? 0, ...pids]);
  expect((await child).stderr).not.toContain('error:');
});

test('a signal while the guest boots leaves nothing either', async () => {
  const child = start(['shell']);
  started.push(child);
  const pids = await within((async () => {
    for (;;) {
      const now = descendants(child.pid ?? 0);
      if (now.some((pid) => commandOf(pid).includes('qemu-system'))) return now;
      await new Promise((resolve) => { setImmediate(resolve); });
    }
  })(), { timeoutMs: 60_000, what: 'QEMU to be started' });
  child.kill('SIGTERM');
  expect(await exitOf(child)).toBe(130);
  await allGone([child.pid ?? 0, ...pids]);
});
