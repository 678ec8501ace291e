// The kernel's GPIO core and its character device over our lines: values both ways, edges as interrupts. Debian's
// kernels have no driver for the device (GPIO_VIRTIO is off in 6.1 and 6.12): the one in driver/ is built for the
// guest's kernel. The guest's program is gpio-line.c, made by gcc on the host.
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from '@jest/globals';
import { q35, virtioGpio, type Machine, type PciFunction } from 'rootport';
import { useMachine } from 'rootport/jest';

// 6.1's gpiolib warns of itself when a chip goes whose interrupt a program has ("remove_proc_entry: removing
// non-empty directory 'irq/24'"); 6.12's does not.
const kernel = '6.12';
// QEMU 7.2's vhost-user-gpio-pci never offers VIRTIO_GPIO_F_IRQ to the driver: no interrupts.
const qemu = process.env['ROOTPORT_QEMU'] === '7.2' ? { qemu: '10.0' } : {};
const vm = useMachine({
  kernel,
  ...qemu,
  machine: q35({ ports: 4 }),
  warm: async (guest, machine) => {
    await uploadProgram(machine);
    await guest.run('modprobe virtio_pci');
    await guest.loadModule(await machine.buildModule(fileURLToPath(new URL('driver', import.meta.url))));
  },
});

async function uploadProgram(machine: Machine): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), 'gpio-line-'));
  try {
    const program = join(directory, 'gpio-line');
    execFileSync('gcc', ['-O2', '-Wall', '-static', '-s', '-o', program, fileURLToPath(new URL('gpio-line.c', import.meta.url))]);
    await machine.guest.upload(readFileSync(program), '/usr/bin/gpio-line', 0o755);
  } finally {
    rmSync(directory, { recursive: true });
  }
}

/** The character device that the guest made of the function. */
async function chip(fn: PciFunction): Promise<string> {
  await vm.guest.until(`[ -e ${fn.sysfs}/virtio*/gpiochip*/dev ]`, 'the GPIO chip', 10_000);
  return `/dev/${(await vm.guest.run(`basename ${fn.sysfs}/virtio*/gpiochip*`)).stdout.trim()}`;
}

/** Have the guest listen for edges, and write each into /tmp/edges: resolves once it listens. */
async function watch(node: string, line: number, edges: number) {
  const program = await vm.guest.start(`rm -f /tmp/watch; gpio-line watch ${node} ${line} ${edges} 2>/tmp/watch >/tmp/edges`);
  await vm.guest.until('grep -q ready /tmp/watch', 'the program to listen', 10_000);
  return program;
}

test('the guest has the lines with their names, reads what the test drives, and the test sees what the guest sets', async () => {
  const gpio = virtioGpio({ lines: ['led', '', 'button'] });
  const node = await chip(await vm.plug(gpio));
  expect((await vm.guest.run(`for line in 0 1 2; do gpio-line name ${node} $line; done`)).stdout).toBe('led\n\nbutton\n');
  gpio.line('button').drive(1);
  expect((await vm.guest.run(`gpio-line get ${node} 2; gpio-line get ${node} 1`)).stdout).toBe('1\n0\n');
  expect(gpio.line('button').direction).toBe('IN');
  await vm.guest.run(`gpio-line set ${node} 0 1`);
  expect(gpio.line('led')).toMatchObject({ direction: 'OUT', value: 1 });
  await vm.guest.run(`gpio-line set ${node} 0 0`);
  expect(gpio.line('led').value).toBe(0);
  await expect(vm).toHaveCleanLog();
});

test('edges that the test drives interrupt the guest, which hears of each', async () => {
  const gpio = virtioGpio({ lines: 4 });
  const node = await chip(await vm.plug(gpio));
  const program = await watch(node, 3, 4);
  expect(gpio.line(3).irqType).toBe('EDGE_BOTH');
  for (const [before, level] of ([1, 0, 1, 0] as const).entries()) {
    gpio.line(3).drive(level);
    await vm.guest.until(`[ $(wc -l </tmp/edges) -gt ${before} ]`, `edge ${before + 1} to be heard of`, 10_000);
  }
  await program.wait();
  expect((await vm.guest.readFile('/tmp/edges')).toString()).toBe('rising\nfalling\nrising\nfalling\n');
  // Four edges, and the buffer that came back when the program let go of the line.
  expect(gpio.queue(1).counts.completed).toBe(5);
  expect(gpio.line(3).irqType).toBe('NONE');
  await expect(vm).toHaveCleanLog();
});

test('a line that nobody watches interrupts nobody', async () => {
  const gpio = virtioGpio({ lines: 2 });
  const node = await chip(await vm.plug(gpio));
  const program = await watch(node, 0, 1);
  gpio.line(1).drive(1);
  gpio.line(1).drive(0);
  expect(gpio.queue(1).counts.completed).toBe(0);
  gpio.line(0).drive(1);
  await program.wait();
  expect((await vm.guest.readFile('/tmp/edges')).toString()).toBe('rising\n');
});

test('unplugged while a line is watched, it leaves nothing behind, and the program hears of it', async () => {
  const gpio = virtioGpio({ lines: 2 });
  const node = await chip(await vm.plug(gpio));
  const program = await watch(node, 0, 1);
  const report = await vm.unplug(gpio, { whenRemoving: () => gpio.line(1).drive(1) });
  expect(report.removeReturned).toBe(true);
  expect(report).toLeaveNothingBehind();
  expect((await program.settled()).exitCode).toBe(1); // its poll() ended with nothing to read
  expect(gpio.line(0)).toMatchObject({ direction: 'NONE', irqType: 'NONE' });
  await expect(vm).toHaveCleanLog();
});
