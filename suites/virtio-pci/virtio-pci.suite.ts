// virtio over PCI as Linux' virtio_pci takes it: each layout of QEMU, modern unless forced to legacy, the PCI_CFG window
// beside the BARs, and BAR 4 moved under a driver. virtio 1.2, 4.1.4; Linux drivers/virtio/virtio_pci_{modern,legacy}.c.
// What a driver finds without an operating system is suites/bare/virtio-pci.suite.ts's.
import { beforeEach, describe, expect, test } from '@jest/globals';
import { openVirtioTransport, pc, q35, qemuDevice, virtioBlk, virtioRng, type PciAccess, type PciFunction, type VirtioBlk } from 'rootport';
import { useMachine, type TestMachine } from 'rootport/jest';

const LAYOUTS = {
  modern: { 'disable-legacy': 'on' },
  transitional: { 'disable-legacy': 'off' },
  legacy: { 'disable-legacy': 'off', 'disable-modern': true },
  'modern-pio-notify': { 'disable-legacy': 'on', 'modern-pio-notify': true },
  'page-per-vq': { 'disable-legacy': 'on', 'page-per-vq': true },
  /** PCI Express: modern; conventional PCI: transitional. */
  'bus-made': {},
} as const;
type Layout = keyof typeof LAYOUTS;

/** VIRTIO_F_VERSION_1. */
const VERSION_1 = 32;

/** What the driver made of an entropy device of this layout: its device id, whether it is modern, and the BARs that it claimed. */
async function driven(vm: TestMachine, layout: Layout): Promise<{ fn: PciFunction; id: string; version1: boolean; claims: string[] }> {
  await vm.guest.run('modprobe virtio_rng');
  const fn = await vm.plug(qemuDevice('virtio-rng-pci', LAYOUTS[layout]));
  await vm.guest.until(`[ -e ${fn.sysfs}/msi_irqs ] && grep -q virtio_rng /sys/class/misc/hw_random/rng_current`, 'virtio_rng to serve the device', 10_000);
  expect(await fn.driver()).toBe('virtio-pci');
  const features = (await vm.guest.run(`cat ${fn.sysfs}/virtio*/features`)).stdout.trim();
  const bars = new Map((await fn.guestResources()).map(({ index, start }) => [start, index]));
  const { stdout } = await vm.guest.run('grep -h virtio-pci- /proc/ioports /proc/iomem');
  const claims = [...stdout.matchAll(/^ *([0-9a-f]+)-[0-9a-f]+ : (virtio-pci-\w+)$/gm)]
    .map(([, start = '', driver = '']) => [bars.get(BigInt(`0x${start}`)), driver] as const)
    .filter(([bar]) => bar !== undefined).map(([bar, driver]) => `BAR ${bar} ${driver}`);
  expect((await vm.guest.run('dd if=/dev/hwrng bs=64 count=4 iflag=fullblock 2>/dev/null | wc -c')).stdout.trim()).toBe('256');
  return { fn, id: (await vm.guest.run(`cat ${fn.sysfs}/device`)).stdout.trim(), version1: features[VERSION_1] === '1', claims };
}

describe('unless forced, with prefetchable windows of 16 MiB', () => {
  // The device that has a page for each queue has a BAR of 8 MiB: the 2 MiB that ports have else are too few.
  const vm = useMachine({
    machine: q35({ ports: 1 }), extraArgs: ['-global', 'pcie-root-port.pref64-reserve=16M'],
  });

  describe('the layout', () => {
    const NOTIFY = (multiplier: string): string => `VirtIO: Notify\n\t\tBAR=4 offset=00003000 size=${multiplier === '00001000' ? '00400000' : '00001000'} multiplier=${multiplier}`;
    const STRUCTURES = ['VirtIO: CommonCfg\n\t\tBAR=4 offset=00000000', 'VirtIO: ISR\n\t\tBAR=4 offset=00001000', 'VirtIO: DeviceCfg\n\t\tBAR=4 offset=00002000'];
    test.each([
      ['bus-made', true, ['BAR 4 virtio-pci-modern'], [...STRUCTURES, NOTIFY('00000004')]],
      ['modern', true, ['BAR 4 virtio-pci-modern'], [...STRUCTURES, NOTIFY('00000004')]],
      ['transitional', true, ['BAR 4 virtio-pci-modern'], [...STRUCTURES, NOTIFY('00000004')]],
      ['legacy', false, ['BAR 0 virtio-pci-legacy'], []],
      ['modern-pio-notify', true, ['BAR 2 virtio-pci-modern', 'BAR 4 virtio-pci-modern'], [...STRUCTURES, 'VirtIO: Notify\n\t\tBAR=2 offset=00000000 size=00000004 multiplier=00000000']],
      ['page-per-vq', true, ['BAR 4 virtio-pci-modern'], [...STRUCTURES, NOTIFY('00001000')]],
    ] as const)('of a %s device: VERSION_1 accepted is %p, the driver claims what it uses, and entropy comes', async (layout, version1, claims, structures) => {
      const seen = await driven(vm, layout);
      expect([seen.id, seen.version1, seen.claims]).toEqual([['transitional', 'legacy'].includes(layout) ? '0x1005' : '0x1044', version1, claims]);
      const { stdout } = await vm.guest.run(`lspci -vv -s ${seen.fn.bdf}`);
      for (const structure of structures) expect(stdout).toContain(structure);
      expect([...stdout.matchAll(/VirtIO: (?:CommonCfg|ISR|DeviceCfg|Notify)/g)]).toHaveLength(layout === 'modern-pio-notify' ? 5 : structures.length);
      await expect(seen.fn).toHaveMsix({ vectors: 2, tableBar: 1, tableOffset: 0, pbaBar: 1, pbaOffset: 0x800 });
      await expect(vm).toHaveCleanLog();
    });
  });

  describe('the PCI_CFG window', () => {
    test('reads and writes what the BARs have: the common configuration at every width, and the device\'s own', async () => {
      const disk = virtioBlk({ capacityBytes: 3 << 20 });
      const fn = await vm.plug(disk);
      const probe = await vm.probe(fn);
      const [direct, window] = [await openVirtioTransport(probe, 'bars'), await openVirtioTransport(probe, 'pci-cfg')];
      // By the width of each register, and all of it by words.
      for (const [width, first, end] of [[1, 0x14, 0x16], [2, 0x10, 0x20], [4, 0x00, 0x38]] as const) {
        for (let at = first; at < end; at += width) {
          expect([width, at, await window.read('COMMON_CFG', at, width)]).toEqual([width, at, await direct.read('COMMON_CFG', at, width)]);
        }
      }
      for (const at of [0, 4]) expect(await window.read('DEVICE_CFG', at, 4)).toBe(await direct.read('DEVICE_CFG', at, 4));
      expect(await window.read('DEVICE_CFG', 0, 4)).toBe((3 << 20) / 512);
      // Written through one, read through the other: device_status (0x14), driver_feature_select (0x08), queue_size (0x18).
      for (const [writer, reader] of [[direct, window], [window, direct]] as const) {
        for (const [at, width, value] of [[0x14, 1, 0], [0x14, 1, 1], [0x14, 1, 3], [0x08, 4, 1], [0x18, 2, 64]] as const) {
          await writer.write('COMMON_CFG', at, width, value);
          expect([at, await reader.read('COMMON_CFG', at, width)]).toEqual([at, value]);
        }
      }
      await direct.write('COMMON_CFG', 0x14, 1, 0);
      await expect(vm).toHaveCleanLog();
    });

    test('by setpci, beside a driver that is up, reads the status that the driver wrote, and its queue', async () => {
      const fn = await vm.plug(virtioRng());
      const window = await openVirtioTransport(await bySetpci(fn), 'pci-cfg');
      const { stdout } = await vm.guest.run(`cat ${fn.sysfs}/virtio*/status`);
      expect([await window.read('COMMON_CFG', 0x14, 1), Number(stdout)]).toEqual([0xf, 0xf]);
      await window.write('COMMON_CFG', 0x16, 2, 0);
      expect(await window.read('COMMON_CFG', 0x1c, 2)).toBe(1); // queue_enable
      expect(await window.read('COMMON_CFG', 0x12, 2)).toBe(1); // num_queues
    });
  });

  describe('BAR 4 moved', () => {
    let disk: VirtioBlk;
    let fn: PciFunction;
    let dev: string;
    beforeEach(async () => {
      disk = virtioBlk({ capacityBytes: 2 ** 22 });
      fn = await vm.plug(disk);
      dev = (await vm.guest.run(`ls ${fn.sysfs}/virtio*/block`)).stdout.trim();
    });
    const address = async (): Promise<bigint> => {
      const bar = (await fn.guestResources()).find(({ index }) => index === 4);
      if (bar === undefined) throw new Error(`the guest shows no BAR 4 of ${fn.bdf}`);
      return bar.start;
    };
    /** By setpci; QEMU has it there at once, the kernel's resources know nothing of it. */
    const move = async (to: bigint): Promise<void> => {
      await vm.guest.run(`setpci -s ${fn.bdf} COMMAND=2:2 BASE_ADDRESS_4=${to.toString(16)}`);
      expect((await fn.vmm()).regions.find(({ bar }) => bar === 4)?.address).toBe(Number(to));
    };
    const read = (): Promise<unknown> => vm.guest.run(`dd if=/dev/${dev} of=/dev/null bs=4k count=1 iflag=direct 2>/dev/null`);
    const taken = (): number => disk.queue(0).counts.taken;

    test('under the driver: its notification is lost and the request waits; one through PCI_CFG serves it; moved back, all is well', async () => {
      await read();
      const [before, takenBefore] = [await address(), taken()];
      await move(before + 0x10000n);
      const waiting = await vm.guest.start(`dd if=/dev/${dev} of=/dev/null bs=4k count=1 iflag=direct 2>/dev/null`);
      await vm.guest.until(`grep -q '^ *1 ' /sys/block/${dev}/inflight`, 'the request to be in flight', 10_000);
      expect(taken()).toBe(takenBefore);
      // The window goes by the structure, wherever its BAR is.
      const window = await openVirtioTransport(await bySetpci(fn), 'pci-cfg');
      await window.write('NOTIFY_CFG', 0, 2, 0);
      expect((await waiting.settled()).exitCode).toBe(0);
      expect(taken()).toBe(takenBefore + 1);
      await move(before);
      await read();
      expect(taken()).toBe(takenBefore + 2);
      await expect(vm).toHaveCleanLog();
    });

    test('with no driver, removed and rescanned, the driver is up at what the kernel assigned, and all sides have that', async () => {
      await vm.guest.run(`echo ${fn.bdf} >${fn.sysfs}/driver/unbind`);
      await move((await address()) + 0x20000n);
      await vm.guest.run(`echo 1 >${fn.sysfs}/remove && echo 1 >/sys/bus/pci/rescan`);
      await vm.guest.until(`[ -e ${fn.sysfs}/virtio*/block/*/dev ]`, 'the disk to be back', 10_000);
      dev = (await vm.guest.run(`ls ${fn.sysfs}/virtio*/block`)).stdout.trim();
      await expect(fn).toBeMappedAt({ bar: 4, address: await address() });
      const before = taken();
      await read();
      expect(taken()).toBe(before + 1);
      await expect(vm).toHaveCleanLog();
    });
  });

  /** Config space by setpci, a process an access; what it had before the first write is read of one image. */
  async function bySetpci(fn: PciFunction): Promise<PciAccess> {
    const image = await fn.configSpace();
    let written = false;
    const setpci = async (offset: number, width: 1 | 2 | 4, value?: number): Promise<string> =>
      (await vm.guest.shell.run(`setpci -s ${fn.bdf} ${offset.toString(16)}.${{ 1: 'b', 2: 'w', 4: 'l' }[width]}${value === undefined ? '' : `=${value.toString(16)}`}`)).stdout;
    const none = (): Promise<never> => Promise.reject(new Error('setpci reaches config space only'));
    return {
      configRead: async (offset, width) => (written ? parseInt(await setpci(offset, width), 16) : image.readUIntLE(offset, width)),
      configWrite: async (offset, width, value) => {
        written = true;
        await setpci(offset, width, value);
      },
      memRead: none, memWrite: none, ioRead: none, ioWrite: none,
    };
  }
});

describe('forced to legacy by the module\'s parameter', () => {
  const vm = useMachine({ machine: q35({ ports: 1 }), append: ['virtio_pci.force_legacy=1'] });

  test.each([
    ['transitional', false, ['BAR 0 virtio-pci-legacy']],
    ['legacy', false, ['BAR 0 virtio-pci-legacy']],
    ['modern', true, ['BAR 4 virtio-pci-modern']], // there is no legacy interface to be forced to
  ] as const)('a %s device: VERSION_1 accepted is %p, and entropy comes', async (layout, version1, claims) => {
    const seen = await driven(vm, layout);
    expect([seen.version1, seen.claims]).toEqual([version1, claims]);
    await expect(vm).toHaveCleanLog();
  });
});

describe('on pc, whose bus is conventional PCI', () => {
  const vm = useMachine({ machine: pc({ ports: 1 }) });

  test.each([
    ['bus-made', '0x1005', true, ['BAR 4 virtio-pci-modern']],
    ['modern', '0x1044', true, ['BAR 4 virtio-pci-modern']],
    ['legacy', '0x1005', false, ['BAR 0 virtio-pci-legacy']],
  ] as const)('a %s device is %s, VERSION_1 accepted is %p, the driver claims what it uses, and entropy comes over MSI-X', async (layout, deviceId, version1, claims) => {
    const { fn, ...seen } = await driven(vm, layout);
    expect(seen).toEqual({ id: deviceId, version1, claims });
    await expect(fn).toHaveMsix({ vectors: 2, tableBar: 1, tableOffset: 0, pbaBar: 1, pbaOffset: 0x800 });
    await expect(fn).toHaveDelivered({ vector: 1, atLeast: 1 });
    await expect(vm).toHaveCleanLog();
  });
});
