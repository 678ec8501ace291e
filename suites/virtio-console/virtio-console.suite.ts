// The in-tree virtio_console (drivers/char/virtio_console.c) over our back end: a console (hvc) and character devices
// (vportNpM), both ways; ports that come and go; and an unplug while somebody reads. Needs QEMU 11.1, which carries any
// virtio device.
import { createHash, randomBytes } from 'node:crypto';
import { describe, expect, test } from '@jest/globals';
import { q35, virtioConsole, type ConsolePort, type PciFunction, type VirtioConsole } from 'rootport';
import { useMachine } from 'rootport/jest';

const vm = useMachine({ machine: q35({ ports: 6 }), qemu: '11.1' });
const MIB = 2 ** 20;
const HANG_MS = 500;
const md5 = (bytes: Uint8Array): string => createHash('md5').update(bytes).digest('hex');

interface Plugged {
  readonly device: VirtioConsole;
  readonly fn: PciFunction;
  /** Of the character device of a port: `/dev/vport1p0`. */
  node(port: ConsolePort): Promise<string>;
}

async function plug(device: VirtioConsole): Promise<Plugged> {
  const fn = await vm.plug(device);
  const node = async ({ id }: ConsolePort): Promise<string> => {
    const { stdout } = await vm.guest.run(`ls ${fn.sysfs}/virtio*/virtio-ports | grep 'p${id}$'`);
    return `/dev/${stdout.trim()}`;
  };
  return { device, fn, node };
}

/** Wait until the guest has a port of this name. */
const named = (fn: PciFunction, name: string): Promise<void> =>
  vm.guest.until(`grep -qx ${name} ${fn.sysfs}/virtio*/virtio-ports/*/name`, `the guest to have the port ${name}`, 5000);

test('a console is 1af4:1043, driven by virtio_console: it shows what the guest prints, the guest reads what is typed, and it has the size that it is given', async () => {
  const { device, fn } = await plug(virtioConsole({ size: { columns: 100, rows: 30 } }));
  expect((await vm.guest.run(`cat ${fn.sysfs}/device; basename $(readlink ${fn.sysfs}/virtio*/driver)`)).stdout).toBe('0x1043\nvirtio_console\n');
  const port = device.port(0);
  await port.guestOpened();
  const hvc = '/dev/hvc0'; // the first console of this guest
  // Held open: the settings of a terminal go with the last who has it open.
  await vm.guest.start(`sleep 1000 <${hvc}`);
  await vm.guest.run(`stty -F ${hvc} raw -echo`);

  await vm.guest.run(`echo 'login:' >${hvc}`);
  expect(await port.readUntil('login:')).toBe('login:');
  const reader = await vm.guest.start(`head -n 1 <${hvc}`);
  await port.write('root\n');
  expect((await reader.wait()).stdout).toBe('root\n');

  const { stdout } = await vm.guest.run(`dd if=/dev/urandom of=/tmp/out bs=1k count=64 2>/dev/null; md5sum </tmp/out`);
  if (port.unreadBytes > 0) await port.read();
  const writing = await vm.guest.start(`cat /tmp/out >${hvc}`);
  expect(md5(await port.readExactly(65536, { timeoutMs: 30_000 }))).toBe(stdout.slice(0, 32));
  await writing.wait();

  const size = async (): Promise<string> => (await vm.guest.run(`stty -F ${hvc} size`)).stdout.trim();
  expect(await size()).toBe('30 100');
  device.resize({ columns: 132, rows: 43 });
  await vm.guest.until(`[ "$(stty -F ${hvc} size)" = '43 132' ]`, 'the console to have its new size', 5000);
  await expect(vm).toHaveCleanLog();
});

describe('a port', () => {
  test('carries 1 MiB each way, unchanged, and has the name that it was given', async () => {
    const { device, fn, node } = await plug(virtioConsole({ ports: [{ console: true }, { name: 'org.rootport.data' }] }));
    await named(fn, 'org.rootport.data');
    const port = device.port(1);
    const path = await node(port);
    const reader = await vm.guest.start(`head -c ${MIB} ${path} | md5sum`);
    const bytes = randomBytes(MIB);
    await port.write(bytes, { timeoutMs: 30_000 });
    expect((await reader.wait()).stdout.slice(0, 32)).toBe(md5(bytes));
    await port.guestOpened(false);
    const { stdout } = await vm.guest.run('dd if=/dev/urandom of=/tmp/mib bs=64k count=16 2>/dev/null; md5sum </tmp/mib');
    const writer = await vm.guest.start(`cat /tmp/mib >${path}`);
    expect(md5(await port.readExactly(MIB, { timeoutMs: 30_000 }))).toBe(stdout.slice(0, 32));
    await writer.wait();
    expect(device.refused).toEqual([]);
    expect(await vm.unplug(device)).toLeaveNothingBehind();
    await expect(vm).toHaveCleanLog();
  });

  test('keeps what is written to it until the guest opens it; closed at this end it reads as ended and takes no writes, and opened it goes on', async () => {
    const { device, node } = await plug(virtioConsole({ ports: [{ name: 'late' }, { name: 'shut', open: false }] }));
    const [late, shut] = [device.port(0), device.port(1)];
    await expect(late.write('are you there?\n', { timeoutMs: 100 })).rejects.toThrow('waited 100 ms for port 0 of the guest to take 15 bytes');
    expect(late.unsentBytes).toBe(15);
    expect((await vm.guest.run(`head -n 1 ${await node(late)}`)).stdout).toBe('are you there?\n');
    expect(late.unsentBytes).toBe(0);

    const path = await node(shut);
    expect((await vm.guest.run(`cat ${path}`)).stdout).toBe('');
    const writer = await vm.guest.start(`echo waited >${path}`);
    await expect(writer.settled({ timeoutMs: HANG_MS })).rejects.toThrow('waited');
    shut.setOpen(true);
    expect(await shut.readUntil('waited\n')).toBe('waited\n');
    await writer.wait();
  });

  test('whose device takes nothing from its queue stops who writes, until it does', async () => {
    const { device, node } = await plug(virtioConsole({ ports: [{ name: 'held' }] }));
    const port = device.port(0);
    const path = await node(port);
    device.queue(1).hold();
    const writer = await vm.guest.start(`dd if=/dev/zero of=${path} bs=4k count=160 2>/dev/null`);
    await device.queue(1).nextRequest();
    // The driver's queue has room for 128 writes.
    await expect(writer.settled({ timeoutMs: HANG_MS })).rejects.toThrow('waited');
    device.queue(1).release();
    expect((await port.readExactly(160 * 4096)).every((byte) => byte === 0)).toBe(true);
    await writer.wait();
    await expect(vm).toHaveCleanLog();
  });
});

describe('ports that come and go', () => {
  test('are added and removed while the device runs; the id of one that went is given again', async () => {
    const { device, fn, node } = await plug(virtioConsole({ ports: [{ console: true }] }));
    for (const round of ['first', 'second']) {
      const port = device.addPort({ name: `org.rootport.${round}` });
      expect(port.id).toBe(1);
      await named(fn, `org.rootport.${round}`);
      const path = await node(port);
      await vm.guest.run(`echo ${round} >${path}`);
      expect(await port.readUntil('\n')).toBe(`${round}\n`);
      device.removePort(port);
      await vm.guest.until(`[ ! -e ${path} ]`, 'the port to go', 5000);
      await expect(port.read({ timeoutMs: 1000 })).rejects.toThrow('was removed');
    }
    expect(device.ports.map(({ id }) => id)).toEqual([0]);
    expect(device.refused).toEqual([]);
    await expect(vm).toHaveCleanLog();
  });
});

test('a port removed, and a device unplugged, while somebody blocks in a read of it ends the read, and leaves nothing behind', async () => {
  const { device, fn, node } = await plug(virtioConsole({ ports: [{ console: true }, { name: 'read' }] }));
  const brief = device.addPort({ name: 'brief' });
  await named(fn, 'brief');
  const first = await vm.guest.start(`cat ${await node(brief)}`);
  await brief.guestOpened();
  device.removePort(brief);
  expect(await first.settled()).toMatchObject({ exitCode: 1, stderr: expect.stringContaining('No such device') });
  await named(fn, 'read');
  const port = device.port(1);
  const reader = await vm.guest.start(`cat ${await node(port)}`);
  await port.guestOpened();
  expect(await vm.unplug(device)).toLeaveNothingBehind();
  expect(await reader.settled()).toMatchObject({ exitCode: 1, stderr: expect.stringContaining('No such device') });
  await expect(vm).toHaveCleanLog();
});

describe('without multiport', () => {
  test('there is one console, resized through config space', async () => {
    const { device, fn } = await plug(virtioConsole({ multiport: false, size: { columns: 80, rows: 25 } }));
    expect((await vm.guest.run(`ls ${fn.sysfs}/virtio*/virtio-ports | wc -l`)).stdout.trim()).toBe('1');
    const hvc = '/dev/hvc0'; // the first console of this guest
    await vm.guest.run(`echo up >${hvc}`);
    await device.port(0).readUntil('up');
    device.resize({ columns: 70, rows: 20 });
    await vm.guest.until(`[ "$(stty -F ${hvc} size)" = '20 70' ]`, 'the console to have its new size', 5000);
    expect(() => device.addPort()).toThrow('all that there can be');
    await expect(vm).toHaveCleanLog();
  });
});

test('a character written to emerg_wr arrives before any driver is bound', async () => {
  const { device, fn } = await plug(virtioConsole());
  const probe = await vm.probe(fn);
  const { bar, offset } = await deviceConfig(fn);
  for (const character of 'panic') await probe.memWrite(bar, offset + 8, 4, BigInt(character.charCodeAt(0)));
  await probe.memRead(bar, offset, 4); // the writes before it have arrived
  expect(device.emergency).toBe('panic');
});

/** Where the device-specific config space is: the PCI capability of type 4 (virtio 1.2, 4.1.4.6). */
async function deviceConfig(fn: PciFunction): Promise<{ bar: number; offset: number }> {
  const { stdout } = await vm.guest.run(`lspci -vv -s ${fn.bdf} | grep DeviceCfg -A 1`);
  const [, bar, offset] = /BAR=(\d+) offset=([0-9a-f]+)/.exec(stdout) ?? [];
  return { bar: Number(bar), offset: parseInt(offset ?? '', 16) };
}
