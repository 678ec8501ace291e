// Other machines, QEMUs and kernels than the default: each boots, and takes and gives up a device.
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, expect, test } from '@jest/globals';
import { edu } from '../../src/devices/edu/index.ts';
import { virtioBlk } from '../../src/devices/virtio-blk/index.ts';
import { virtioRng } from '../../src/devices/virtio-rng/index.ts';
import { buildModule, resolveKernel, resolveUserland } from '../../src/image/index.ts';
import { boot } from '../../src/machine/boot.ts';
import type { Machine } from '../../src/machine/machine.ts';
import type { BootOptions } from '../../src/machine/options.ts';
import { packageFile, silentProgress } from '../../src/packages/index.ts';
import { pc, q35NativeHotplug } from '../../src/qemu/preset.ts';

let machine: Machine | undefined;
const scratch: string[] = [];
afterEach(async () => {
  await machine?.close();
  machine = undefined;
  for (const path of scratch.splice(0)) await rm(path, { recursive: true });
});

test.each<[string, BootOptions, RegExp]>([
  ['QEMU 7.2', { qemu: '7.2' }, /QEMU 7\.2.*Linux Debian 6\.1/],
  ['QEMU 11.1', { qemu: '11.1' }, /QEMU 11\.1/],
  ['pc', { machine: pc() }, /^pc, /],
  ['q35 with native hot-plug', { machine: q35NativeHotplug() }, /^q35-native-hotplug, /],
])('%s boots, and edu is plugged, seen by the guest and unplugged', async (_, options, description) => {
  machine = await boot(options);
  expect(machine.description).toMatch(description);
  const device = edu();
  const fn = await machine.plug(device);
  expect((await machine.guest.run(`cat ${fn.sysfs}/vendor ${fn.sysfs}/device`)).stdout).toBe('0x1234\n0x11e8\n');
  await machine.unplug(device);
  expect((await machine.guest.attempt(`[ -e ${fn.sysfs} ]`)).exitCode).toBe(1);
});

test('a disk and a card that it boots with have their drivers when boot() resolves, as plugged ones have', async () => {
  machine = await boot({ devices: [virtioBlk({ capacityBytes: 2 ** 20 }), edu(), virtioRng()] });
  const { stdout } = await machine.guest.run('ls /sys/block; cat /sys/class/misc/hw_random/rng_current');
  expect(stdout).toMatch(/^vda$/m);
  expect(stdout).toMatch(/^virtio_rng/m);
});

test('kernel 6.12 boots, and the probe module is built for it and loads', async () => {
  machine = await boot({ kernel: '6.12' });
  expect((await machine.guest.run('uname -r')).stdout).toMatch(/^6\.12\./);
  await machine.guest.loadModule(await machine.buildModule(packageFile('images/probe')));
  expect((await machine.guest.run('lsmod')).stdout).toMatch(/^rootport_probe /m);
});

test('a kernel of one\'s own, handed over as image, modules and build directory, boots, and a module is built for it and loads', async () => {
  const { tools } = await resolveUserland(undefined, silentProgress);
  const debian = await resolveKernel('6.1', tools, silentProgress);
  const { bzImage = '', modulesDir = '', buildDir = '' } = debian;
  const own = { image: bzImage, modulesDir, buildDir };
  machine = await boot({ kernel: own });
  expect(machine.description).toContain(`Linux own ${debian.release}`);
  const directory = await mkdtemp(join(tmpdir(), 'own-module-'));
  scratch.push(directory);
  await writeFile(join(directory, 'Kbuild'), 'obj-m += hello.o\n');
  await writeFile(join(directory, 'hello.c'), `#include <linux/module.h>
static int __init hello(void) { pr_info("hello: from ${directory}\\n"); return 0; }
module_init(hello);
MODULE_LICENSE("GPL");
`);
  await machine.guest.loadModule(await buildModule(directory, machine.parts.kernel));
  expect(await machine.guest.dmesg()).toContain(`hello: from ${directory}`);
});
