// A PCI function of the test's own over vfio-user (QEMU 11.1): MSI-X table and PBA wherever a function may have them, BARs
// that a test answers, DMA. No device model of QEMU has table and PBA in different BARs.
import { beforeEach, describe, expect, test } from '@jest/globals';
import { bare, MachineExitError, pciDevice, q35, type BareFunction, type MsixMessages, type PciDevice } from 'rootport';
import { useBare } from 'rootport/jest';

const QEMU = '11.1';
const BRIDGE_CONTROL = 0x3e;
const SECONDARY_BUS_RESET = 0x40;

const PLACES = {
  'in different BARs, the PBA above': { table: { bar: 0, offset: 0 }, pba: { bar: 2, offset: 0x1000 } },
  'in different BARs, the PBA below': { table: { bar: 4, offset: 0x8000 }, pba: { bar: 0, offset: 0x800 } },
  'in one BAR, the PBA before the table': { table: { bar: 2, offset: 0x2000 }, pba: { bar: 2, offset: 0x40 } },
};
const COUNTS = [1, 16, 190, 2048];

describe.each(COUNTS)('MSI-X with %i vectors', (vectors) => {
  const devices = new Map<string, PciDevice>(Object.entries(PLACES).map(([name, places]) => [name, pciDevice({
    vendorId: 0x1234, deviceId: 0x5a5a,
    bars: { 0: { kind: 'mem32', sizeBytes: 0x10000 }, 2: { kind: 'mem64', sizeBytes: 0x10000, prefetchable: true }, 4: { kind: 'mem32', sizeBytes: 0x10000 } },
    msix: { vectors, ...places },
  })]));
  const vm = useBare({ qemu: QEMU, machine: q35({ ports: devices.size }), devices: [...devices.values()] });
  const some = [...new Set([0, 31, 32, 63, 64, vectors - 1].filter((vector) => vector < vectors))];
  const all = Array.from({ length: vectors }, (_, vector) => vector);

  describe.each(Object.entries(PLACES))('table and PBA %s', (name, { table, pba }) => {
    const device = devices.get(name) as PciDevice;
    let fn: BareFunction;
    let msix: MsixMessages;
    beforeEach(async () => {
      fn = await vm.functionOf(device);
      msix ??= await fn.enableMsix();
      await msix.control({ enabled: true, functionMasked: false });
      await msix.arrived();
    });

    test('the capability says where they are, and every entry reads back what was written to it', async () => {
      await expect(fn).toHaveMsix({ vectors, tableBar: table.bar, pbaBar: pba.bar });
      expect(msix.capability).toMatchObject({ tableOffset: table.offset, pbaOffset: pba.offset });
      for (const vector of some) expect(await msix.entry(vector)).toMatchObject({ address: msix.slots.addressOf(vector), masked: false });
    });

    test('every vector that is fired writes its own message, and no other\'s', async () => {
      const since = await vm.mark(fn);
      for (const vector of some) {
        expect(device.fire(vector)).toBe('delivered');
        await msix.next(vector);
      }
      await expect(fn).toHaveDelivered(some.map((vector) => ({ vector, exactly: 1 })), { since, others: 'none' });
      for (const vector of all) device.fire(vector);
      const arrived = new Set<number>();
      while (arrived.size < vectors) for (const vector of await msix.arrived()) arrived.add(vector);
      expect([...arrived].sort((a, b) => a - b)).toEqual(all);
    });

    test('under Function Mask what is fired is pending in the PBA\'s BAR; unmasked, each sends once', async () => {
      await msix.control({ enabled: true, functionMasked: true });
      for (const vector of some) expect([device.fire(vector), device.fire(vector)]).toEqual(['pending', 'pending']);
      expect([await msix.pending(), await msix.arrived()]).toEqual([some, []]);
      await msix.control({ enabled: true, functionMasked: false });
      const arrived: number[] = [];
      while (arrived.length < some.length) arrived.push(...await msix.arrived());
      expect(arrived.sort((a, b) => a - b)).toEqual(some);
      expect([await msix.pending(), await msix.arrived()]).toEqual([[], []]);
    });

    test('a vector that is masked sends nothing, and once when it is unmasked', async () => {
      const last = vectors - 1;
      await msix.mask(last);
      expect(device.fire(last)).toBe('delivered'); // to QEMU, which keeps it
      await vm.qtest.settle();
      expect(await msix.arrived()).toEqual([]);
      await msix.mask(last, false);
      await msix.next(last);
      expect(await msix.arrived()).toEqual([]);
    });

    test('the PBA is read-only, and beside table and PBA the BARs are the device\'s memory', async () => {
      await fn.memWrite(pba.bar, pba.offset, 4, 0xffff_ffffn);
      expect(await msix.pending()).toEqual([]);
      const pbaEnd = pba.offset + 8 * Math.ceil(vectors / 64);
      const tableEnd = table.offset + 16 * vectors;
      for (const [bar, offset] of [[pba.bar, pbaEnd], [table.bar, tableEnd]] as const) {
        const at = offset >= 0x10000 ? table.offset - 8 : offset;
        await fn.memWrite(bar, at, 4, 0x600d_0000n);
        expect(await fn.memRead(bar, at, 4)).toBe(0x600d_0000n);
        await fn.memWrite(bar, at, 4, 0n);
      }
    });

    test('disabled, what is fired is lost, and not stored', async () => {
      await msix.control({ enabled: false, functionMasked: false });
      for (const vector of some) expect(device.fire(vector)).toBe('lost');
      await msix.control({ enabled: true, functionMasked: false });
      await vm.qtest.settle();
      expect([await msix.pending(), await msix.arrived()]).toEqual([[], []]);
    });
  });
});

describe('BARs that a test answers', () => {
  const seen: string[] = [];
  let resets = 0;
  const device = pciDevice({
    vendorId: 0x1234, deviceId: 0x5a5b, classCode: 0x120000, revisionId: 7, subsystemVendorId: 0x1af4, subsystemId: 0x42,
    bars: {
      0: {
        kind: 'mem32', sizeBytes: 4096,
        read: (offset, into) => into.fill(offset + into.length),
        write: (offset, bytes) => seen.push(`${offset}: ${Buffer.from(bytes).toString('hex')}`),
      },
      1: { kind: 'io', sizeBytes: 64 },
      2: { kind: 'mem64', sizeBytes: 2 ** 33, prefetchable: true, read: (_, into) => into.fill(0xee) },
      4: { kind: 'mem64', sizeBytes: 2 ** 36, prefetchable: true },
    },
    onReset: () => { resets += 1; },
  });
  const vm = useBare({ qemu: QEMU, machine: q35({ ports: 1 }), devices: [device] });
  let fn: BareFunction;
  beforeEach(async () => { fn = await vm.functionOf(device); });

  test('the header is what was asked for, each BAR sizes as it says, and read-only bits stay', async () => {
    expect(await fn.configRead(0, 4)).toBe(0x5a5b_1234);
    expect(await fn.configRead(8, 4)).toBe(0x12_0000_07);
    expect(await fn.configRead(0x2c, 4)).toBe(0x0042_1af4);
    await expect(fn).toHaveBar({ bar: 0, sizeBytes: 4096, type: 'mem32', prefetchable: false });
    await expect(fn).toHaveBar({ bar: 1, sizeBytes: 64, type: 'io' });
    await expect(fn).toHaveBar({ bar: 2, sizeBytes: 2 ** 33, type: 'mem64', prefetchable: true });
    await fn.configWrite(0, 4, 0);
    expect(await fn.configRead(0, 4)).toBe(0x5a5b_1234);
  });

  test('reads and writes of every width come as they were made', async () => {
    for (const width of [1, 2, 4, 8] as const) {
      expect(await fn.memRead(0, 16, width)).toBe(BigInt(`0x${(16 + width).toString(16).repeat(width)}`));
    }
    seen.length = 0;
    for (const width of [1, 2, 4, 8] as const) await fn.memWrite(0, 8 * width, width, 0x1122_3344_5566_7788n & ((1n << BigInt(8 * width)) - 1n));
    await fn.memRead(0, 0, 4); // writes to memory are posted, and a read comes after them
    expect(seen).toEqual(['8: 88', '16: 8877', '32: 88776655', '64: 8877665544332211']);
    await fn.ioWrite(1, 4, 2, 0xcafe);
    expect(await fn.ioRead(1, 4, 2)).toBe(0xcafe);
    expect(await fn.memRead(2, 2 ** 33 - 4, 4)).toBe(0xeeee_eeeen);
  });

  test('a BAR without code is memory, and takes none of the host\'s for what was not written', async () => {
    for (const offset of [0, 2 ** 32, 2 ** 36 - 8]) {
      expect(await fn.memRead(4, offset, 8)).toBe(0n);
      await fn.memWrite(4, offset, 8, BigInt(offset) + 0x1122_3344n);
    }
    for (const offset of [0, 2 ** 32, 2 ** 36 - 8]) expect(await fn.memRead(4, offset, 8)).toBe(BigInt(offset) + 0x1122_3344n);
  });

  test('the device reads and writes guest RAM by the addresses that a driver would give it', async () => {
    const address = await vm.allocate(4096);
    await vm.qtest.write(address, Uint8Array.of(1, 2, 3, 4));
    const [view] = device.memory.spans(Number(address), 4096) ?? [];
    expect([...view?.subarray(0, 4) ?? []]).toEqual([1, 2, 3, 4]);
    view?.set([9, 8, 7], 4092);
    expect([...await vm.qtest.read(address + 4092n, 3)]).toEqual([9, 8, 7]);
    expect(device.memory.spans(2 ** 40, 1)).toBeUndefined();
  });

  test('a reset of the bus above resets it, and its BARs are placed nowhere', async () => {
    const port = await vm.functionOf('rp1');
    const before = resets;
    const control = await port.configRead(BRIDGE_CONTROL, 2);
    await port.configWrite(BRIDGE_CONTROL, 2, control | SECONDARY_BUS_RESET);
    await port.configWrite(BRIDGE_CONTROL, 2, control);
    expect(resets).toBe(before + 1);
    expect([await fn.configRead(0x04, 2), (await fn.configRead(0x10, 4) & ~0xf) >>> 0]).toEqual([0, 0]);
  });
});

describe('what QEMU does not survive', () => {
  const withMsix = (): PciDevice => pciDevice({ vendorId: 0x1234, deviceId: 0x5a5c, bars: { 0: { kind: 'mem32', sizeBytes: 8192 } }, msix: { vectors: 1, table: { bar: 0, offset: 0 }, pba: { bar: 0, offset: 4096 } } });

  test('an unplug of one with MSI-X is refused before QEMU is asked', async () => {
    const device = withMsix();
    await using machine = await bare({ qemu: QEMU, machine: q35({ ports: 1 }), devices: [device] });
    await expect(machine.unplug(device)).rejects.toThrow(/pci-device in rp1 \(dev0\) cannot be unplugged: QEMU 11\.1 aborts when a vfio-user function with MSI-X is unplugged[^]*close that, and start another/);
    expect(await (await machine.functionOf(device)).configRead(0, 2)).toBe(0x1234);
  });

  test('asked all the same, it aborts', async () => {
    const device = withMsix();
    await using machine = await bare({ qemu: QEMU, machine: q35({ ports: 1 }), devices: [device] });
    await machine.qmp.execute('device_del', { id: 'dev0' });
    const deleted = machine.qmp.expectEvent('DEVICE_DELETED', (event) => event.data?.['device'] === 'dev0', { timeoutMs: 10_000, what: 'DEVICE_DELETED' });
    await machine.slots.eject('rp1').catch(() => undefined);
    expect(await deleted.catch((error: unknown) => error)).toBeInstanceOf(MachineExitError);
  });

  test('one without MSI-X goes and comes back', async () => {
    const device = pciDevice({ vendorId: 0x1234, deviceId: 0x5a5d, bars: { 0: { kind: 'mem32', sizeBytes: 4096 } } });
    await using machine = await bare({ qemu: QEMU, machine: q35({ ports: 1 }) });
    for (let time = 0; time < 2; time += 1) {
      const fn = await machine.plug(device);
      await fn.memWrite(0, 0, 4, 0x1234n);
      expect(await fn.memRead(0, 0, 4)).toBe(0x1234n);
      expect((await machine.unplug(device)).leftovers).toEqual([]);
    }
  });

  test('what a BAR\'s read() throws is told, and not lost in QEMU\'s end', async () => {
    const device = pciDevice({ vendorId: 0x1234, deviceId: 0x5a5e, bars: { 0: { kind: 'mem32', sizeBytes: 4096, read: () => { throw new RangeError('my register is broken'); } } } });
    await using machine = await bare({ qemu: QEMU, machine: q35({ ports: 1 }), devices: [device] });
    const fn = await machine.functionOf(device);
    await expect(fn.memRead(0, 0, 4)).rejects.toThrow(/my register is broken/);
  });

  test.each(['7.2', '10.0'])('QEMU %s has no such device, and the error says which has', async (qemu) => {
    await expect(bare({ qemu, machine: q35({ ports: 1 }), devices: [withMsix()] })).rejects.toThrow(/has no vfio-user-pci[^]*qemu: '11\.1'/);
  });
});
