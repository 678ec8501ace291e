// Hot-plug at the wrong moment, in every way that a machine has: native pciehp and ACPI on q35, ACPI on pc. While the
// driver's probe() runs, with a driver that hangs, by the slot's own power switch, without a word, eight at once,
// behind a bridge, and in both orders with the unload of the driver's module. Two versions of each, idle, in flight,
// twice, standing still, deaf: core.suite.ts.
import { describe, expect, test } from '@jest/globals';
import { edu, pc, q35, q35NativeHotplug, virtioBlk, virtioRng, type BusPlace, type Device } from 'rootport';
import { useMachine } from 'rootport/jest';
import { HotplugScene } from './hotplug-scene.ts';

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
  const native = preset === q35NativeHotplug;
  const scene = new HotplugScene(vm, { native });

  test('asked for while probe() runs, a device goes when probe() is over and not before, by way of remove()', async () => {
    const disk = virtioBlk({ capacityBytes: 2 ** 20 });
    await vm.guest.run('modprobe virtio_blk');
    disk.queue(0).hold();
    const fn = await vm.plug(disk, { waitForGuest: false });
    await disk.queue(0).nextRequest(); // the partition table: virtio_blk's probe() waits for it
    const during = async (): Promise<unknown> => [await scene.isThere(fn), disk.queue(0).waiting];
    if (native) { // the slot's indicator blinks until probe() is over: QEMU asks for nothing, and pciehp switches nothing off
      await expect(vm.unplug(disk)).rejects.toThrow('guest is busy (power indicator blinking)');
      const power = `/sys/bus/pci/slots/${await scene.slotOf(fn)}/power`;
      expect((await vm.guest.attempt(`echo 0 >${power}`)).stderr).toContain('No such device');
      expect(await during()).toEqual([true, 1]);
      disk.queue(0).release();
      // 1: pciehp is done with the slot, and switches off what it refused to before.
      await vm.guest.until(`[ "$(cat ${power})" = 1 ]`, 'probe() to be over', 10_000);
      expect(await scene.orderly(fn)).toMatchObject({ driver: 'virtio-pci', removeReturned: true, leftovers: [] });
      return;
    }
    let asked: unknown;
    const report = await vm.unplug(disk, {
      request: async () => {
        const heard = "awk '{ print $1 }' /sys/firmware/acpi/interrupts/gpe01"; // how often hot-plug's interrupt came
        const before = Number((await vm.guest.run(heard)).stdout);
        await vm.qmp.execute('device_del', { id: fn.id });
        await vm.guest.until(`[ $(${heard}) -gt ${before} ]`, 'the guest to hear of it', 10_000);
        asked = await during();
        disk.queue(0).release();
      },
    });
    expect(asked).toEqual([true, 1]);
    expect(report).toMatchObject({ driver: 'virtio-pci', removeReturned: true, leftovers: [] });
    await expect(vm).toHaveCleanLog();
  });

  test('a driver that hangs in remove() lets go after our deadline: the port is free then, and the back end closed', async () => {
    const { disk, fn } = await scene.plugReading();
    await expect(vm.unplug(disk, { timeoutMs: 700, ...(native ? { request: () => vm.guest.start(scene.powerOff(fn)) } : {}) }))
      .rejects.toThrow(/DEVICE_DELETED of dev\d+ \(virtio-blk in /);
    const gone = scene.deleted(fn);
    disk.queue(0).release();
    await gone;
    await vm.guest.until(`[ ! -e ${fn.sysfs} ]`, 'the guest to drop it', 10_000);
    // Asked again, the report of the unplug that came to its end without us.
    expect(await vm.unplug(disk)).toLeaveNothingBehind();
    await expect(vm.unplug(disk)).rejects.toThrow('that device is not plugged into this machine');
    // The same object, into the same port: sockets, chardev and ring state of the last time are gone.
    const next = await vm.plug(disk, { port: fn.port });
    expect(next.bdf).toBe(fn.bdf);
    expect(await scene.orderly(next)).toLeaveNothingBehind();
  });

  test('a slot switched off in sysfs lets its device go, watched or not, and takes the next', async () => {
    const fn = await scene.plugProbed();
    const report = await vm.unplug(fn, { request: () => vm.guest.start(scene.powerOff(fn)) });
    expect(report).toLeaveNothingBehind();
    expect((await scene.callbacks(fn)).slice(-2)).toEqual(['remove present', 'removed']);
    const unwatched = await vm.plug(virtioRng(), { port: fn.port });
    const gone = scene.deleted(unwatched);
    await vm.guest.run(scene.powerOff(unwatched));
    await gone;
    expect(vm.innards.plugged).toEqual([]);
    await expect(vm.unplug(unwatched)).rejects.toThrow('that device is not plugged into this machine');
    expect(await scene.orderly(await scene.plugProbed(fn.port))).toLeaveNothingBehind();
    await expect(vm).toHaveCleanLog();
  });

  test('as many at once as there are sockets come, each in its own, and go', async () => {
    const sockets = vm.ports.slice(0, preset === pc ? PORTS : PORTS - 1); // the switch is in the last
    const devices: Device[] = [...sockets.map((_, i) => (i % 2 === 0 ? edu() : virtioRng()))];
    const functions = await Promise.all([...devices.map((device) => vm.plug(device)), vm.plug(edu(), { port: behind })]);
    expect(new Set(functions.map(({ bdf }) => bdf)).size).toBe(sockets.length + 1);
    for (const report of await Promise.all(functions.map((fn) => scene.orderly(fn)))) expect(report).toLeaveNothingBehind();
    await expect(vm).toHaveCleanLog();
  });

  test('behind a bridge it works, and goes without the bridge', async () => {
    const fn = await scene.plugProbed(behind);
    const bridge = await scene.portOf(fn);
    expect(await scene.orderly(fn)).toLeaveNothingBehind();
    expect((await vm.guest.run(`cat /sys/bus/pci/devices/${bridge}/class`)).stdout).toBe('0x060400\n');
  });

  test('the driver\'s module unloaded before the device goes, or after: nothing is left of either', async () => {
    const before = await scene.plugProbed();
    await vm.guest.run('rmmod rootport_probe');
    expect(await before.driver()).toBeUndefined();
    expect(await before.messageIrqs()).toEqual([]);
    expect(await scene.orderly(before)).toLeaveNothingBehind();
    await vm.guest.loadModule(await vm.buildModule('images/probe'));
    const after = await scene.plugProbed();
    expect(await scene.orderly(after)).toLeaveNothingBehind();
    await vm.guest.run('rmmod rootport_probe');
    expect((await vm.guest.run('grep rootport_probe /proc/modules /proc/interrupts /proc/vmallocinfo /proc/iomem || :')).stdout).toBe('');
    await expect(vm).toHaveCleanLog();
  });

  if (native) {
    test('a card that is pulled without a word: remove() runs without its device, and nothing is left', async () => {
      const fn = await scene.plugProbed();
      const report = await vm.unplug(fn, { surprise: true });
      expect(report).toLeaveNothingBehind();
      expect((await scene.callbacks(fn)).slice(-2)).toEqual(['remove absent', 'removed']);
      expect((await vm.guest.dmesg()).split('\n').filter((line) => /pciehp: Slot\(\d+\): Card not present/.test(line))).not.toEqual([]);
      expect(await vm.unplug(await vm.plug(virtioRng(), { port: fn.port }), { surprise: true })).toLeaveNothingBehind();
      await expect(vm).toHaveCleanLog();
    });
  } else {
    test('a card cannot be pulled where nothing would tell the guest: a UsageError before anything happens', async () => {
      const fn = await scene.plugProbed();
      await expect(vm.unplug(fn, { surprise: true })).rejects.toThrow('machine: q35NativeHotplug()');
      expect(await vm.unplug(fn)).toLeaveNothingBehind();
    });
  }
});
