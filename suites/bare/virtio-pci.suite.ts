// virtio over PCI without an operating system (virtio 1.2, 4.1): where each kind of device has its structures, a driver
// brought up from TypeScript against back ends in this process, and the same through the PCI_CFG capability.
import { beforeEach, describe, expect, test } from '@jest/globals';
import { q35, qemuDevice, virtioBlk, virtioRng, type BareFunction } from 'rootport';
import { useBare } from 'rootport/jest';

const [COMMON, NOTIFY, ISR, DEVICE, PCI_CFG] = [1, 2, 3, 4, 5];
const PATTERN = Uint8Array.of(0xde, 0xad, 0xbe, 0xef, 0x42);

describe.each(['7.2', '10.0'])('QEMU %s', (qemu) => {
  const layouts = {
    modern: qemuDevice('virtio-rng-pci', { 'disable-legacy': 'on' }),
    transitional: qemuDevice('virtio-rng-pci', { 'disable-legacy': 'off' }),
    legacy: qemuDevice('virtio-rng-pci', { 'disable-legacy': 'off', 'disable-modern': true }),
    'modern-pio-notify': qemuDevice('virtio-rng-pci', { 'disable-legacy': 'on', 'modern-pio-notify': true }),
    'page-per-vq': qemuDevice('virtio-rng-pci', { 'disable-legacy': 'on', 'page-per-vq': true }),
  } as const;
  const rng = virtioRng({ source: PATTERN });
  const disk = virtioBlk({ capacityBytes: 1 << 20 });
  const vm = useBare({ qemu, machine: q35({ ports: 7 }), devices: [...Object.values(layouts), rng, disk] });

  describe('the layout', () => {
    const bars = async (fn: BareFunction): Promise<string[]> =>
      (await fn.bars()).map(({ index, kind, prefetchable, sizeBytes }) => `${index} ${kind}${prefetchable ? ' prefetchable' : ''} ${sizeBytes}`);
    const structures = async (fn: BareFunction): Promise<string[]> => (await fn.virtio()).transport.capabilities
      .map(({ cfgType, bar, structureOffset, notifyOffMultiplier }) => `${cfgType} ${bar}+0x${structureOffset.toString(16)}${notifyOffMultiplier === undefined ? '' : ` x${notifyOffMultiplier}`}`)
      .filter((text) => !text.startsWith(`${PCI_CFG} `)).sort();
    const MODERN = [`${COMMON} 4+0x0`, `${NOTIFY} 4+0x3000 x4`, `${ISR} 4+0x1000`, `${DEVICE} 4+0x2000`].sort();
    const MSIX = '1 mem32 4096';
    const MODERN_BAR = '4 mem64 prefetchable 16384';

    test.each([
      ['modern', 0x1044, [MSIX, MODERN_BAR]],
      ['transitional', 0x1005, ['0 io 32', MSIX, MODERN_BAR]],
      ['legacy', 0x1005, ['0 io 32', MSIX]],
      ['modern-pio-notify', 0x1044, [MSIX, '2 io 4', MODERN_BAR]],
      ['page-per-vq', 0x1044, [MSIX, '4 mem64 prefetchable 8388608']],
    ] as const)('of a %s device has device id %i and its BARs', async (name, deviceId, expected) => {
      const fn = await vm.functionOf(layouts[name]);
      expect(await fn.configRead(0, 4)).toBe(deviceId * 0x10000 + 0x1af4);
      expect(await bars(fn)).toEqual(expected);
    });

    test.each([
      ['modern', MODERN],
      ['transitional', MODERN],
      ['modern-pio-notify', [...MODERN, `${NOTIFY} 2+0x0 x0`].sort()],
      ['page-per-vq', MODERN.map((text) => text.replace('x4', 'x4096'))],
    ] as const)('of a %s device has its structures', async (name, expected) => {
      expect(await structures(await vm.functionOf(layouts[name]))).toEqual(expected);
    });

    test('of a legacy device has no vendor capability: the modern driver is refused', async () => {
      await expect((await vm.functionOf(layouts.legacy)).virtio()).rejects.toThrow(/no virtio capability/);
    });

    test.each(Object.keys(layouts) as (keyof typeof layouts)[])('of a %s device has two MSI-X vectors, the PBA at 0x800 of BAR 1', async (name) => {
      const { capability } = await (await vm.functionOf(layouts[name])).enableMsix();
      expect(capability).toMatchObject({ tableBar: 1, tableOffset: 0, pbaBar: 1, pbaOffset: 0x800, tableSize: 2 });
    });
  });

  describe.each(['bars', 'pci-cfg'] as const)('a driver that goes through %s', (through) => {
    test.each(['modern', 'transitional', 'modern-pio-notify', 'page-per-vq'] as const)('brings a %s device of QEMU up and is served', async (name) => {
      const driver = await (await vm.functionOf(layouts[name])).virtio(through);
      await driver.negotiate();
      const queue = await driver.setUpQueue(0, { size: 8 });
      await driver.driverOk();
      const at = await vm.allocate(64);
      expect(await queue.request([{ address: at, lengthBytes: 64, writable: true }])).toBe(64);
      expect((await vm.qtest.read(at, 64)).some((byte) => byte !== 0)).toBe(true);
      await driver.reset();
    });

    describe('and the entropy device of this process', () => {
      let fn: BareFunction;
      beforeEach(async () => {
        fn = await vm.functionOf(rng);
      });

      test('gets its bytes, and the queue\'s own MSI-X message', async () => {
        const msix = await fn.enableMsix();
        const driver = await fn.virtio(through);
        await driver.negotiate();
        const queue = await driver.setUpQueue(0, { size: 4, vector: 1 });
        await driver.driverOk();
        const at = await vm.allocate(64);
        for (let i = 0; i < 20; i += 1) { // more than the ring has entries
          expect(await queue.request([{ address: at, lengthBytes: PATTERN.length, writable: true }])).toBe(PATTERN.length);
          expect(await vm.qtest.read(at, PATTERN.length)).toEqual(PATTERN);
          await msix.next(1);
        }
        expect(await msix.arrived()).toEqual([]);
        await driver.reset();
      });

      test('with the vector masked the request is served, and its message waits', async () => {
        const msix = await fn.enableMsix();
        const driver = await fn.virtio(through);
        await driver.negotiate();
        const queue = await driver.setUpQueue(0, { size: 4, vector: 1 });
        await driver.driverOk();
        await msix.mask(1);
        await queue.request([{ address: await vm.allocate(64), lengthBytes: PATTERN.length, writable: true }]);
        expect(await msix.arrived()).toEqual([]);
        await msix.mask(1, false);
        await msix.next(1);
        await driver.reset();
      });
    });

    test('writes a sector of the disk of this process and reads it back', async () => {
      const fn = await vm.functionOf(disk);
      const driver = await fn.virtio(through);
      await driver.negotiate();
      const queue = await driver.setUpQueue(0);
      await driver.driverOk();
      expect(await driver.transport.read('DEVICE_CFG', 0, 4)).toBe((1 << 20) / 512);
      const [header, data, status] = [await vm.allocate(16), await vm.allocate(512), await vm.allocate(1)];
      const sector = Uint8Array.from({ length: 512 }, (_, i) => (i * 7) & 0xff);
      const request = async (type: 0 | 1): Promise<number> => {
        await vm.qtest.write(header, Uint8Array.of(type, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0)); // sector 3
        await vm.qtest.fill(status, 1, 0xff);
        return queue.request([
          { address: header, lengthBytes: 16 }, { address: data, lengthBytes: 512, writable: type === 0 }, { address: status, lengthBytes: 1, writable: true },
        ]);
      };
      await vm.qtest.write(data, sector);
      expect([await request(1), await vm.qtest.memoryRead(status, 1)]).toEqual([1, 0n]);
      await vm.qtest.fill(data, 512, 0);
      expect([await request(0), await vm.qtest.memoryRead(status, 1)]).toEqual([513, 0n]);
      expect(await vm.qtest.read(data, 512)).toEqual(sector);
      await driver.reset();
    });
  });

  test('every register of the common configuration reads the same in the BAR and through PCI_CFG', async () => {
    const fn = await vm.functionOf(layouts.modern);
    const [direct, window] = [await fn.virtio('bars'), await fn.virtio('pci-cfg')];
    for (const field of ['device_feature', 'config_msix_vector', 'num_queues', 'device_status', 'config_generation', 'queue_size', 'queue_notify_off', 'queue_desc'] as const) {
      expect([field, await window.get(field)]).toEqual([field, await direct.get(field)]);
    }
    for (const width of [1, 2, 4] as const) expect(await window.transport.read('COMMON_CFG', 0x18, width)).toBe(await direct.transport.read('COMMON_CFG', 0x18, width));
  });

  test('the BAR of a live device is moved, and the next request is served there', async () => {
    const fn = await vm.functionOf(rng);
    const driver = await fn.virtio();
    await driver.negotiate();
    const queue = await driver.setUpQueue(0, { size: 4 });
    await driver.driverOk();
    const at = await vm.allocate(64);
    const serve = (): Promise<number> => queue.request([{ address: at, lengthBytes: PATTERN.length, writable: true }]);
    expect(await serve()).toBe(PATTERN.length);
    const { address } = await fn.bar(4);
    await fn.moveBar(4, address + 0x8000n);
    expect(await vm.qtest.memoryRead(address + 0x14n, 1)).toBe(0n);
    expect(await serve()).toBe(PATTERN.length);
    await fn.moveBar(4, address);
    expect(await serve()).toBe(PATTERN.length);
    await driver.reset();
  });
});
