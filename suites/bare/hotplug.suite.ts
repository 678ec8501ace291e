// Hot-plug and eject without an operating system: what a slot tells, what ends it, and that QEMU then lets the
// device go. Native root ports (PCIe Base 5.0, 6.7) and ACPI's registers, on two versions of QEMU.
import { afterEach, describe, expect, test } from '@jest/globals';
import { CAPABILITY_ID, EDU, edu, findCapability, ivshmem, pc, q35, q35NativeHotplug, readCapabilities, virtioRng, type BareFunction } from 'rootport';
import { useBare } from 'rootport/jest';

const MACHINES = [['q35, native', q35NativeHotplug], ['q35, ACPI', q35], ['pc, ACPI', pc]] as const;
const CASES = ['7.2', '10.0'].flatMap((qemu) => MACHINES.map(([name, preset]) => ({ qemu, name, preset })));

describe.each(CASES)('$name, QEMU $qemu', ({ qemu, preset }) => {
  const vm = useBare({ qemu, machine: preset({ ports: 3 }) });
  afterEach(async () => {
    for (const { device } of [...vm.innards.plugged]) await vm.unplug(device);
  });
  const port = (n: number): string => vm.ports[n] ?? '';
  /** edu's registers are there, and config space and QEMU agree on where. */
  async function expectEdu(fn: BareFunction): Promise<void> {
    expect(await fn.configRead(0, 4)).toBe(EDU.deviceId * 0x10000 + EDU.vendorId);
    expect(Number(await fn.memRead(0, EDU.IDENTIFICATION, 4)) & 0xffff).toBe(0x00ed);
    expect(BigInt((await fn.vmm()).regions[0]?.address ?? 0)).toBe((await fn.bar(0)).address);
  }

  test('a device that is added is told by its slot, and answers once its BARs are placed', async () => {
    expect(await vm.slots.events(port(0))).toEqual({ inserted: false, removalRequested: false });
    await expectEdu(await vm.plug(edu()));
  });

  test('a removal that is asked for is told, and the device works until it is ejected', async () => {
    const device = edu();
    const fn = await vm.plug(device);
    await vm.requestRemoval(device);
    expect(await vm.slots.events(port(0))).toEqual({ inserted: false, removalRequested: true });
    await expectEdu(fn);
    await vm.eject(device);
    expect(await fn.configRead(0, 4)).toBe(0xffffffff);
    await expect(fn.vmm()).rejects.toThrow(`QEMU no longer has ${fn.bdf}`);
  });

  test('a device that is ejected unasked is deleted: a surprise removal', async () => {
    const device = edu();
    const fn = await vm.plug(device);
    await vm.eject(device);
    expect(await fn.configRead(0, 4)).toBe(0xffffffff);
  });

  test('a device in one slot is untouched by the eject of another', async () => {
    const [first, second] = [edu(), edu()];
    const stays = await vm.plug(first);
    await vm.plug(second, { port: port(2) });
    await vm.unplug(second);
    await expectEdu(stays);
    expect(await vm.slots.events(port(0))).toEqual({ inserted: false, removalRequested: false });
  });

  test('ten plugs and unplugs in one port end each with a working device and an empty slot', async () => {
    for (let i = 0; i < 10; i += 1) {
      const device = edu();
      const fn = await vm.plug(device, { port: port(1) });
      await expectEdu(fn);
      await vm.unplug(device);
      expect(await fn.configRead(0, 4)).toBe(0xffffffff);
    }
  });

  test('ivshmem that is plugged sends its messages, and again after it was unplugged and plugged elsewhere', async () => {
    const device = ivshmem({ vectors: 4 });
    for (const at of [0, 1]) {
      const msix = await (await vm.plug(device, { port: port(at) })).enableMsix();
      device.fire(2);
      await msix.next(2);
      expect(await msix.arrived()).toEqual([]);
      await vm.unplug(device);
    }
  });

  test('a vhost-user device of ours comes with its virtio identity and goes', async () => {
    const device = virtioRng();
    const fn = await vm.plug(device);
    expect(await fn.configRead(0, 2)).toBe(0x1af4);
    await vm.unplug(device);
    expect(vm.innards.plugged).toEqual([]);
  });

  test('a free port is no device: a second unplug is a UsageError', async () => {
    const device = edu();
    await vm.plug(device);
    await vm.unplug(device);
    await expect(vm.unplug(device)).rejects.toThrow('not plugged into this machine');
  });
});

describe('a native slot', () => {
  const vm = useBare({ machine: q35NativeHotplug({ ports: 1 }) });

  test('without power hides its device: config space reads ones, until it has power again', async () => {
    const device = edu();
    const fn = await vm.plug(device);
    const port = await vm.functionOf('rp1');
    const slotControl = (await vm.functionOf('rp1').then(readSlotControl));
    // Power off while the indicator is on is no eject to QEMU (hw/pci/pcie.c, pcie_cap_slot_write_config).
    const before = await port.configRead(slotControl, 2);
    await port.configWrite(slotControl, 2, before | 0x0400);
    expect(await fn.configRead(0, 4)).toBe(0xffffffff);
    await port.configWrite(slotControl, 2, before);
    expect(await fn.configRead(0, 4)).toBe(EDU.deviceId * 0x10000 + EDU.vendorId);
    await vm.unplug(device);
  });
});

async function readSlotControl(port: BareFunction): Promise<number> {
  const found = findCapability(await readCapabilities(port), CAPABILITY_ID.PCI_EXPRESS);
  if (found === undefined) throw new Error('the port has no PCI Express capability');
  return found.offset + 0x18;
}
