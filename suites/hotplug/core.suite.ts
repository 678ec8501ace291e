// The core of hot-plug in every way that a machine has, on two versions of QEMU: idle, in flight and asked for twice, with
// the machine standing still, with a guest that does not listen, and the same id again. What is rarer is matrix.suite.ts's.
import { describe, expect, test } from '@jest/globals';
import { EDU, edu, pc, q35, q35NativeHotplug, virtioRng } from 'rootport';
import { useMachine } from 'rootport/jest';
import { HotplugScene } from './hotplug-scene.ts';

const PRESETS = [['q35, native', q35NativeHotplug], ['q35, ACPI', q35], ['pc, ACPI', pc]] as const;
const CASES = ['7.2', '10.0'].flatMap((qemu) => PRESETS.map(([name, preset]) => ({ qemu, name, preset })));

describe.each(CASES)('$name, QEMU $qemu', ({ qemu, preset }) => {
  const vm = useMachine({ qemu, machine: preset({ ports: 2 }) });
  const native = preset === q35NativeHotplug;
  const scene = new HotplugScene(vm, { native });

  test('idle, it goes by way of its driver\'s remove(), and leaves nothing behind', async () => {
    const fn = await scene.plugProbed();
    const report = await scene.asked(fn);
    expect(report).toMatchObject({ driver: 'rootport_probe', removeReturned: true });
    expect(report).toLeaveNothingBehind();
    expect((await scene.callbacks(fn)).slice(-2)).toEqual(['remove present', 'removed']);
    await expect(vm).toHaveCleanLog();
  });

  test('with a request in flight, asked for again while remove() waits for it, and unplugged twice at once, it goes once', async () => {
    const { disk, fn, io } = await scene.plugReading();
    let during: unknown;
    const first = vm.unplug(disk, {
      ...(native ? { request: () => vm.guest.start(scene.powerOff(fn)) } : {}),
      whenRemoving: async () => {
        const again = await vm.qmp.execute('device_del', { id: fn.id }).then(() => 'taken', (error: Error) => error.message);
        during = [again, disk.queue(0).waiting];
        disk.queue(0).release();
      },
    });
    const second = vm.unplug(disk);
    expect(await first).toLeaveNothingBehind();
    expect(await second).toBe(await first);
    // With ACPI, and natively when its own slot's button was not what began it, another request is no error.
    expect(during).toEqual(['taken', 1]);
    expect((await io.settled()).exitCode).toBe(0); // completed, not lost
    await expect(vm.unplug(disk)).rejects.toThrow('not plugged into this machine');
    await expect(vm).toHaveCleanLog();
  });

  test('plugged and asked for while the machine stands still, it comes and goes when the machine goes on', async () => {
    await vm.qmp.execute('stop');
    const device = edu();
    const fn = await vm.plug(device, { waitForGuest: false });
    await vm.qmp.execute('cont');
    await vm.guest.until(`[ -e ${fn.sysfs}/driver_override ]`, 'the guest to find it', 10_000);
    await vm.probe(fn);
    const since = (await scene.callbacks(fn)).length;
    let there = false;
    const report = await vm.unplug(device, {
      request: async () => {
        await vm.qmp.execute('stop');
        await vm.qmp.execute('device_del', { id: fn.id });
        there = await scene.isThere(fn);
        await vm.qmp.execute('cont');
        if (native) await scene.hurry(fn);
      },
    });
    expect(there).toBe(true);
    expect(report).toLeaveNothingBehind();
    expect((await scene.callbacks(fn)).slice(since)).toEqual(['remove present', 'removed']);
  });

  test('a guest that does not listen lets nothing go: our deadline, our message, and the device works on', async () => {
    const fn = await scene.plugProbed();
    const pciehp = '/sys/bus/pci_express/drivers/pciehp';
    const [deaf, hearing] = native ? [`echo ${await scene.portOf(fn)}:pcie004 >${pciehp}/unbind`, `echo ${await scene.portOf(fn)}:pcie004 >${pciehp}/bind`]
      : ['echo disable >/sys/firmware/acpi/interrupts/gpe01', 'echo enable >/sys/firmware/acpi/interrupts/gpe01'];
    await vm.guest.run(deaf);
    await expect(vm.unplug(fn, { timeoutMs: 300 })).rejects.toThrow(
      new RegExp(`waited 300 ms for DEVICE_DELETED of ${fn.id} \\(edu in ${fn.port}\\), and it did not happen\n  hint: the guest did not let go`),
    );
    expect(await (await vm.probe(fn)).memRead(0, EDU.IDENTIFICATION, 4)).toBe(0x010000edn);
    await expect(vm.plug(edu(), { port: fn.port })).rejects.toThrow(`the port ${fn.port} is taken`);
    const gone = scene.deleted(fn);
    await vm.guest.run(hearing);
    // A button that was pressed unheard is still pressed; an event of ACPI's is over, and asked for again.
    if (native) await Promise.all([gone, scene.hurry(fn)]);
    else expect(await vm.unplug(fn)).toLeaveNothingBehind();
    expect((await scene.callbacks(fn)).slice(-2)).toEqual(['remove present', 'removed']);
  });

  test('the id of a device that went is good for the next, in this port and in another', async () => {
    for (const [device, port] of [[virtioRng(), 0], [edu(), 1]] as const) {
      const fn = await vm.plug(device, { id: 'same', port: vm.ports[port] ?? '' });
      expect(fn.id).toBe('same');
      await expect(vm.plug(edu(), { id: 'same' })).rejects.toThrow('there is a device with the id same already');
      expect(await scene.orderly(fn)).toLeaveNothingBehind();
    }
  });
});
