// One clear typed error for each kind of bad input, and nothing left running.
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import { BootError, DeadlineError, EnvironmentError, GuestCommandError, GuestFault, MachineExitError, UsageError } from '../../src/errors.ts';
import { edu } from '../../src/devices/edu/index.ts';
import { boot } from '../../src/machine/boot.ts';
import { restore } from '../../src/machine/kept-snapshots.ts';
import type { Machine } from '../../src/machine/machine.ts';
import type { BootOptions } from '../../src/machine/options.ts';
import { q35 } from '../../src/qemu/preset.ts';
import { machineDirectories, machineName, machineProcesses } from './nothing-left.ts';

async function failure(work: Promise<unknown>): Promise<Error> {
  try {
    await work;
  } catch (error) {
    return error as Error;
  }
  throw new Error('it did not fail');
}

describe('a boot that cannot be', () => {
  afterEach(() => {
    expect(machineProcesses(machineName(process.pid))).toEqual([]);
    expect(machineDirectories(machineName(process.pid))).toEqual([]);
  });

  test.each<[string, BootOptions, new (...args: never[]) => Error, RegExp]>([
    ['an unknown kernel', { kernel: '5.4' }, UsageError, /no kernel named "5\.4"[^]*6\.1, 6\.12/],
    ['an unknown QEMU', { qemu: '9.9' }, UsageError, /no QEMU named "9\.9"[^]*7\.2, 10\.0, 11\.1/],
    ['a QEMU path that is not there', { qemu: '/nowhere/qemu' }, UsageError, /no QEMU at \/nowhere\/qemu/],
    ['a QEMU that is not one', { qemu: '/bin/true' }, EnvironmentError, /did not answer as QEMU does/],
    ['an unknown machine', { machine: { preset: 'amiga' } }, UsageError, /no machine named "amiga"[^]*q35/],
    ['an unknown option', { kernle: '6.1' } as BootOptions, UsageError, /no option "kernle"[^]*kernel/],
    ['an unknown accelerator', { accel: 'warp' as 'tcg' }, UsageError, /no accelerator named "warp"/],
    ['an unknown kernel module', { modules: ['flux_capacitor'] }, UsageError, /no module named flux_capacitor/],
    ['a kernel image that is not there', { kernel: { image: '/nowhere/bzImage' } }, UsageError, /image \/nowhere\/bzImage does not exist/],
    ['a kernel that is not one', { kernel: { image: '/bin/true.txt' } }, UsageError, /does not exist/],
    ['more devices than ports', { machine: q35({ ports: 1 }), devices: [edu(), edu()] }, UsageError, /2 devices do not fit into 1 ports/],
  ])('%s is named in one typed error', async (_, options, type, message) => {
    const error = await failure(boot(options));
    expect(error).toBeInstanceOf(type);
    expect(error.message).toMatch(message);
  });

  test('a QEMU that dies at start ends the boot with its own words and the line that repeats it', async () => {
    const error = await failure(boot({ extraArgs: ['-device', 'flux-capacitor'] })) as MachineExitError;
    expect(error).toBeInstanceOf(MachineExitError);
    expect(error.exitCode).toBe(1);
    expect(error.message).toMatch(/flux-capacitor/);
    expect(error.context?.stderr).toMatch(/not a valid device model name/);
    expect(error.context?.commandLine).toMatch(/-device flux-capacitor/);
  });

  test('a guest that never comes up is a BootError with the console, after the deadline asked for', async () => {
    // The kernel stops before it prints anything to the serial line that is ours to read.
    const error = await failure(boot({ timeoutMs: 400 }));
    expect(error).toBeInstanceOf(BootError);
    expect(error.message).toMatch(/did not come up in 0\.4 s/);
    expect(error.message).toMatch(/repro: .*qemu-system-x86_64/);
  });

  test('a guest that panics on its way up is a GuestFault that quotes the panic', async () => {
    const error = await failure(boot({ append: ['rdinit=/nowhere', 'init=/nowhere', 'panic=0'] })) as GuestFault;
    expect(error).toBeInstanceOf(GuestFault);
    expect(error.title).toMatch(/Kernel panic - not syncing/);
    expect(error.context?.consoleTail).toMatch(/Kernel panic/);
  });
});

describe('in a running machine', () => {
  let machine: Machine;
  let scratch: string;
  beforeAll(async () => {
    machine = await restore();
    scratch = await mkdtemp(join(tmpdir(), 'bad-module-'));
  });
  afterAll(async () => {
    await machine.close();
    await rm(scratch, { recursive: true });
  });

  test('an unknown port is a UsageError that lists the ports', async () => {
    const error = await failure(machine.plug(edu(), { port: 'rp9' }));
    expect(error).toBeInstanceOf(UsageError);
    expect(error.message).toMatch(/no port named "rp9"[^]*rp1, rp2, rp3, rp4/);
  });

  test('a fifth device in four ports is a UsageError, and unplugging frees a port', async () => {
    const devices = [edu(), edu(), edu(), edu()];
    for (const device of devices) await machine.plug(device);
    expect((await failure(machine.plug(edu()))).message).toMatch(/all 4 ports are taken/);
    for (const device of devices) await machine.unplug(device);
    const again = edu();
    expect((await machine.plug(again)).port).toBe('rp1');
    await machine.unplug(again);
  });

  test('a device that is not plugged cannot be unplugged', async () => {
    expect(await failure(machine.unplug(edu()))).toBeInstanceOf(UsageError);
  });

  test('a device model that QEMU does not have is QEMU\'s own error, and its port is free again', async () => {
    const device = edu();
    const bogus = { ...device, kind: 'bogus', attach: async () => ({ driver: 'bogus', properties: {}, chardevs: [], detach: async () => {} }) };
    const error = await failure(machine.plug(bogus));
    expect(error.message).toMatch(/QMP device_add: 'bogus' is not a valid device model name/);
    expect((await machine.plug(device)).port).toBe('rp1');
    await machine.unplug(device);
  });

  test('a command that fails rejects with its exit code and its stderr', async () => {
    const error = await failure(machine.guest.run('echo out; echo why >&2; exit 7')) as GuestCommandError;
    expect(error).toBeInstanceOf(GuestCommandError);
    expect([error.exitCode, error.stdout, error.stderr]).toEqual([7, 'out\n', 'why\n']);
  });

  test('a command killed by a signal says which', async () => {
    const error = await failure(machine.guest.run('kill -9 $$')) as GuestCommandError;
    expect(error).toBeInstanceOf(GuestCommandError);
    expect(error.signal).toMatch(/KILL/);
  });

  test('a command that hangs rejects at its deadline, and the guest still answers', async () => {
    const error = await failure(machine.guest.run('sleep 100', { timeoutMs: 300 }));
    expect(error).toBeInstanceOf(DeadlineError);
    expect(error.message).toMatch(/waited 300 ms for "sleep 100" to end in the guest/);
    expect((await machine.guest.run('echo alive')).stdout).toBe('alive\n');
  });

  test('a hung command in the kept shell rejects at its deadline, and the next one gets a new shell', async () => {
    expect(await failure(machine.guest.shell.run('sleep 100', { timeoutMs: 300 }))).toBeInstanceOf(DeadlineError);
    expect((await machine.guest.shell.run('echo alive')).stdout).toBe('alive\n');
  });

  test('a missing module directory, and one without a Kbuild, are UsageErrors', async () => {
    expect((await failure(machine.buildModule('/nowhere'))).message).toMatch(/module directory \/nowhere does not exist/);
    expect((await failure(machine.buildModule(scratch))).message).toMatch(/neither a Kbuild nor a Makefile/);
  });

  test('a module that does not compile is a BootError with the compiler\'s own diagnostics at the user\'s own path', async () => {
    await writeFile(join(scratch, 'Kbuild'), 'obj-m += broken.o\n');
    await writeFile(join(scratch, 'broken.c'), '#include <linux/module.h>\nint broken(void) { return missing_name; }\nMODULE_LICENSE("GPL");\n');
    const error = await failure(machine.buildModule(scratch));
    expect(error).toBeInstanceOf(BootError);
    expect(error.message).toContain(`${scratch}/broken.c:2:`);
    expect(error.message).toMatch(/missing_name.* undeclared/);
  });

  test('a module that does not load is a BootError with the errno and the kernel\'s last lines', async () => {
    await writeFile(join(scratch, 'Kbuild'), 'obj-m += refusing.o\n');
    await rm(join(scratch, 'broken.c'), { force: true });
    await writeFile(join(scratch, 'refusing.c'), `#include <linux/module.h>
static int __init refuse(void) { pr_err("refusing: not today\\n"); return -EPERM; }
module_init(refuse);
MODULE_LICENSE("GPL");
`);
    const error = await failure(machine.guest.loadModule(await machine.buildModule(scratch)));
    expect(error).toBeInstanceOf(BootError);
    expect(error.message).toMatch(/refusing\.ko does not load:.*Operation not permitted/);
    expect(error.message).toMatch(/refusing: not today/);
  });

  test('a module built for another kernel is refused before it is tried', async () => {
    const built = await machine.buildModule(scratch);
    const error = await failure(machine.guest.loadModule({ ...built, release: '9.9.9' }));
    expect(error).toBeInstanceOf(UsageError);
    expect(error.message).toMatch(/built for 9\.9\.9, and the guest runs/);
  });
});
