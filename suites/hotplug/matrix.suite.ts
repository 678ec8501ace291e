// Hot-plug at the wrong moment, in every way that a machine has: native pciehp and ACPI on q35, ACPI on pc. While
// the driver's probe() or remove() runs, twice, with the machine standing still, with a guest that does not listen or
// whose driver hangs, by the slot's own power switch, without a word, with the same id, eight at once, behind a
// bridge, and in both orders with the unload of the driver's module. Used and idle: hotplug.suite.ts.
import { describe, expect, test } from '@jest/globals';
import {
  EDU, edu, pc, q35, q35NativeHotplug, virtioBlk, virtioRng, type BusPlace, type Device, type PciFunction, type UnplugReport,
} from 'rootport';
import { useMachine } from 'rootport/jest';

const PORTS = 8;
const SWITCH = ['-device', 'x3130-upstream,id=up,bus=rp8', '-device', 'xio3130-downstream,id=down,bus=up,chassis=99,slot=99'];
const BRIDGE = ['-device', 'pci-bridge,id=br,bus=pci.0,addr=0x6,chassis_nr=9'];
/** `behind`: below the switch or bridge of extraArgs. All three on both versions, less the guest: suites/bare. */
const CASES: { name: string; qemu: string; preset: typeof q35; extraArgs: string[]; behind: BusPlace }[] = [
  { name: 'q35, native', qemu: '10.0', preset: q35NativeHotplug, extraArgs: SWITCH, behind: { bus: 'down' } },
  { name: 'q35, ACPI', qemu: '7.2', preset: q35, extraArgs: SWITCH, behind: { bus: 'down' } },
  { name: 'pc, ACPI', qemu: '10.0', preset: pc, extraArgs: BRIDGE, behind: { bus: 'br', addr: '0x3' } },
];

describe.each(CASES)('$name, QEMU $qemu', ({ qemu, preset, extraArgs, behind }) => {
  const vm = useMachine({ qemu, machine: preset({ ports: PORTS }), extraArgs });
  const isNative = preset === q35NativeHotplug;

  /** Switch off the power of a function's slot, as an operator would. */
  const powerOff = (fn: PciFunction): string =>
    `for slot in /sys/bus/pci/slots/*; do [ "$(cat $slot/address)" != ${fn.bdf.slice(0, -2)} ] || echo 0 >$slot/power; done`;
  /** Of the 5 s for which pciehp waits after its button was pressed, no more than it takes it to hear of it. */
  const hurry = (fn: PciFunction): Promise<unknown> =>
    vm.guest.start(`until dmesg | tail -n 3 | grep -q 'Powering off due to button press'; do usleep 20000; done; ${powerOff(fn)}`);
  /** The orderly way that is the quickest here. */
  const orderly = (fn: PciFunction): Promise<UnplugReport> =>
    vm.unplug(fn, isNative ? { request: () => vm.guest.start(powerOff(fn)) } : {});
  const deleted = (fn: PciFunction): Promise<unknown> =>
    vm.qmp.expectEvent('DEVICE_DELETED', ({ data }) => data?.['device'] === fn.id, { timeoutMs: 30_000, what: `DEVICE_DELETED of ${fn.id}`, signal: vm.signal });
  const isThere = async (fn: PciFunction): Promise<boolean> => fn.vmm().then(() => true, () => false);
  /** The probe's driver callbacks for it, in order. */
  const callbacks = async (fn: PciFunction): Promise<string[]> => (await vm.probeEvents(fn)).map(({ kind, detail }) => `${kind} ${detail}`.trim());

  /** Edu answers through its driver, which is the probe. */
  async function plugProbed(port?: string | BusPlace): Promise<PciFunction> {
    const fn = await vm.plug(edu(), port === undefined ? {} : { port });
    const probe = await vm.probe(fn);
    await probe.enableVectors({ kind: 'msi' });
    expect(await probe.memRead(0, EDU.IDENTIFICATION, 4)).toBe(0x010000edn);
    return fn;
  }

  /** A disk whose driver waits for an answer; and the read that it waits for. */
  async function plugReading(): Promise<{ disk: ReturnType<typeof virtioBlk>; fn: PciFunction }> {
    const disk = virtioBlk({ capacityBytes: 2 ** 20 });
    const fn = await vm.plug(disk);
    const name = (await vm.guest.run(`ls ${fn.sysfs}/virtio*/block`)).stdout.trim();
    disk.queue(0).hold();
    await vm.guest.start(`dd if=/dev/${name} of=/dev/null bs=4k count=1 iflag=direct`);
    await disk.queue(0).nextRequest();
    return { disk, fn };
  }

  test('asked for while probe() runs, a device goes when probe() is over and not before, by way of remove()', async () => {
    const disk = virtioBlk({ capacityBytes: 2 ** 20 });
    await vm.guest.run('modprobe virtio_blk');
    disk.queue(0).hold();
    const fn = await vm.plug(disk, { waitForGuest: false });
    await disk.queue(0).nextRequest(); // the partition table: virtio_blk's probe() waits for it
    if (isNative) { // the slot's indicator blinks until probe() is over, and QEMU then asks for nothing
      await expect(vm.unplug(disk)).rejects.toThrow('guest is busy (power indicator blinking)');
      expect(await isThere(fn)).toBe(true);
      disk.queue(0).release();
      await vm.guest.until(`[ -e ${fn.sysfs}/virtio*/block/vda ] && [ "$(cat /sys/bus/pci/slots/1/power)" = 1 ]`, 'probe() to be over', 10_000);
      expect(await orderly(fn)).toLeaveNothingBehind();
      return;
    }
    let during: unknown;
    const report = await vm.unplug(disk, {
      request: async () => {
        await vm.qmp.execute('device_del', { id: fn.id });
        await vm.guest.run('usleep 100000'); // time to go wrong
        during = [await isThere(fn), disk.queue(0).waiting];
        disk.queue(0).release();
      },
    });
    expect(during).toEqual([true, 1]);
    expect(report).toLeaveNothingBehind();
    await expect(vm).toHaveCleanLog();
  });

  test('asked for again while remove() runs, and unplugged twice at once, it goes once', async () => {
    const { disk, fn } = await plugReading();
    let again: unknown;
    const first = vm.unplug(disk, {
      ...(isNative ? { request: () => vm.guest.start(powerOff(fn)) } : {}),
      whenRemoving: async () => {
        again = await vm.qmp.execute('device_del', { id: fn.id }).then(() => 'taken', (error: Error) => error.message);
        disk.queue(0).release();
      },
    });
    const second = vm.unplug(disk);
    expect(await first).toLeaveNothingBehind();
    expect(await second).toBe(await first);
    // QEMU's words; with ACPI, and natively when its own slot's button was not what began it, another request is no error.
    expect(again).toBe('taken');
    await expect(vm.unplug(disk)).rejects.toThrow('not plugged into this machine');
  });

  test('plugged and asked for while the machine stands still, it comes and goes when the machine goes on', async () => {
    await vm.qmp.execute('stop');
    const device = edu();
    const fn = await vm.plug(device, { waitForGuest: false });
    await vm.qmp.execute('cont');
    await vm.guest.until(`[ -e ${fn.sysfs}/driver_override ]`, 'the guest to find it', 10_000);
    await vm.probe(fn);
    const since = (await callbacks(fn)).length;
    let there = false;
    const report = await vm.unplug(device, {
      request: async () => {
        await vm.qmp.execute('stop');
        await vm.qmp.execute('device_del', { id: fn.id });
        there = await isThere(fn);
        await vm.qmp.execute('cont');
      },
    });
    expect(there).toBe(true);
    expect(report).toLeaveNothingBehind();
    expect((await callbacks(fn)).slice(since)).toEqual(['remove present', 'removed']);
  });

  test('a guest that does not listen lets nothing go: our deadline, our message, and the device works on', async () => {
    const fn = await plugProbed();
    const port = (await vm.guest.run(`basename $(dirname $(readlink -f ${fn.sysfs}))`)).stdout.trim();
    const pciehp = '/sys/bus/pci_express/drivers/pciehp';
    const [deaf, hearing] = isNative ? [`echo ${port}:pcie004 >${pciehp}/unbind`, `echo ${port}:pcie004 >${pciehp}/bind`]
      : ['echo disable >/sys/firmware/acpi/interrupts/gpe01', 'echo enable >/sys/firmware/acpi/interrupts/gpe01'];
    await vm.guest.run(deaf);
    await expect(vm.unplug(fn, { timeoutMs: 300 })).rejects.toThrow(
      new RegExp(`waited 300 ms for DEVICE_DELETED of ${fn.id} \\(edu in ${fn.port}\\), and it did not happen\n  hint: the guest did not let go`),
    );
    expect(await (await vm.probe(fn)).memRead(0, EDU.IDENTIFICATION, 4)).toBe(0x010000edn);
    await expect(vm.plug(edu(), { port: fn.port })).rejects.toThrow(`the port ${fn.port} is taken`);
    const gone = deleted(fn);
    await vm.guest.run(hearing);
    // A button that was pressed unheard is still pressed; an event of ACPI's is over, and asked for again.
    if (isNative) await Promise.all([gone, hurry(fn)]);
    else expect(await vm.unplug(fn)).toLeaveNothingBehind();
    expect((await callbacks(fn)).slice(-2)).toEqual(['remove present', 'removed']);
  });

  test('a driver that hangs in remove() lets go after our deadline: the port is free then, and the back end closed', async () => {
    const { disk, fn } = await plugReading();
    await expect(vm.unplug(disk, { timeoutMs: 700, ...(isNative ? { request: () => vm.guest.start(powerOff(fn)) } : {}) }))
      .rejects.toThrow(/DEVICE_DELETED of dev\d+ \(virtio-blk in /);
    const gone = deleted(fn);
    disk.queue(0).release();
    await gone;
    await vm.guest.until(`[ ! -e ${fn.sysfs} ]`, 'the guest to drop it', 10_000);
    // Asked again, the report of the unplug that came to its end without us.
    expect(await vm.unplug(disk)).toLeaveNothingBehind();
    await expect(vm.unplug(disk)).rejects.toThrow('that device is not plugged into this machine');
    // The same object, into the same port: sockets, chardev and ring state of the last time are gone.
    const next = await vm.plug(disk, { port: fn.port });
    expect(next.bdf).toBe(fn.bdf);
    expect(await orderly(next)).toLeaveNothingBehind();
  });

  test('a slot switched off in sysfs lets its device go, watched or not, and takes the next', async () => {
    const fn = await plugProbed();
    const report = await vm.unplug(fn, { request: () => vm.guest.start(powerOff(fn)) });
    expect(report).toLeaveNothingBehind();
    expect((await callbacks(fn)).slice(-2)).toEqual(['remove present', 'removed']);
    const unwatched = await vm.plug(virtioRng(), { port: fn.port });
    const gone = deleted(unwatched);
    await vm.guest.run(powerOff(unwatched));
    await gone;
    expect(vm.innards.plugged).toEqual([]);
    await expect(vm.unplug(unwatched)).rejects.toThrow('that device is not plugged into this machine');
    expect(await orderly(await plugProbed(fn.port))).toLeaveNothingBehind();
    await expect(vm).toHaveCleanLog();
  });

  test('the id of a device that went is good for the next', async () => {
    for (let i = 0; i < 3; i += 1) {
      const fn = await vm.plug(i % 2 === 0 ? virtioRng() : edu(), { id: 'same', port: vm.ports[i % 2] ?? '' });
      expect(fn.id).toBe('same');
      await expect(vm.plug(edu(), { id: 'same' })).rejects.toThrow('there is a device with the id same already');
      expect(await orderly(fn)).toLeaveNothingBehind();
    }
  });

  test('as many at once as there are sockets come, each in its own, and go', async () => {
    const sockets = vm.ports.slice(0, preset === pc ? PORTS : PORTS - 1); // the switch is in the last
    const devices: Device[] = [...sockets.map((_, i) => (i % 2 === 0 ? edu() : virtioRng()))];
    const functions = await Promise.all([...devices.map((device) => vm.plug(device)), vm.plug(edu(), { port: behind })]);
    expect(new Set(functions.map(({ bdf }) => bdf)).size).toBe(sockets.length + 1);
    for (const report of await Promise.all(functions.map(orderly))) expect(report).toLeaveNothingBehind();
    await expect(vm).toHaveCleanLog();
  });

  test('behind a bridge it works, and goes without the bridge', async () => {
    const fn = await plugProbed(behind);
    const bridge = (await vm.guest.run(`basename $(dirname $(readlink -f ${fn.sysfs}))`)).stdout.trim();
    expect(await orderly(fn)).toLeaveNothingBehind();
    expect((await vm.guest.run(`cat /sys/bus/pci/devices/${bridge}/class`)).stdout).toBe('0x060400\n');
    expect(await orderly(await plugProbed(behind))).toLeaveNothingBehind();
  });

  test('the driver\'s module unloaded before the device goes, or after: nothing is left of either', async () => {
    const before = await plugProbed();
    await vm.guest.run('rmmod rootport_probe');
    expect(await before.driver()).toBeUndefined();
    expect(await before.messageIrqs()).toEqual([]);
    expect(await orderly(before)).toLeaveNothingBehind();
    await vm.guest.loadModule(await vm.buildModule('images/probe'));
    const after = await plugProbed();
    expect(await orderly(after)).toLeaveNothingBehind();
    await vm.guest.run('rmmod rootport_probe');
    expect((await vm.guest.run('grep rootport_probe /proc/modules /proc/interrupts /proc/vmallocinfo /proc/iomem || :')).stdout).toBe('');
    await vm.guest.loadModule(await vm.buildModule('images/probe')); // for the next test
    await expect(vm).toHaveCleanLog();
  });

  if (isNative) {
    test('a card that is pulled without a word: remove() runs without its device, and nothing is left', async () => {
      const fn = await plugProbed();
      const report = await vm.unplug(fn, { surprise: true });
      expect(report).toLeaveNothingBehind();
      expect((await callbacks(fn)).slice(-2)).toEqual(['remove absent', 'removed']);
      expect((await vm.guest.dmesg()).split('\n').filter((line) => /pciehp: Slot\(\d+\): Card not present/.test(line))).not.toEqual([]);
      expect(await vm.unplug(await vm.plug(virtioRng(), { port: fn.port }), { surprise: true })).toLeaveNothingBehind();
      await expect(vm).toHaveCleanLog();
    });
  } else {
    test('a card cannot be pulled where nothing would tell the guest: a UsageError before anything happens', async () => {
      const fn = await plugProbed();
      await expect(vm.unplug(fn, { surprise: true })).rejects.toThrow('machine: q35NativeHotplug()');
      expect(await vm.unplug(fn)).toLeaveNothingBehind();
    });
  }
});
