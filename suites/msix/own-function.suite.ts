// MSI-X of a function of the test's own (vfio-user, QEMU 11.1) in a guest: table and PBA in different BARs, as no device
// model of QEMU has them, and every vector from TypeScript to the handler.
import { beforeEach, describe, expect, test } from '@jest/globals';
import { pciDevice, q35, type PciDevice, type PciFunction, type ProbedFunction } from 'rootport';
import { useMachine } from 'rootport/jest';

const VECTORS = 16;

describe.each([
  ['the PBA above', { table: { bar: 0, offset: 0x800 }, pba: { bar: 2, offset: 0x1000 } }],
  ['the PBA below', { table: { bar: 2, offset: 0 }, pba: { bar: 0, offset: 0 } }],
])('table and PBA in different BARs, %s', (_, places) => {
  const vm = useMachine({ qemu: '11.1', machine: q35({ ports: 1 }) });
  let device: PciDevice;
  let fn: PciFunction;
  let probe: ProbedFunction;
  beforeEach(async () => {
    device = pciDevice({
      vendorId: 0x1234, deviceId: 0x5a5a,
      bars: { 0: { kind: 'mem32', sizeBytes: 0x4000 }, 2: { kind: 'mem64', sizeBytes: 0x10000, prefetchable: true }, 4: { kind: 'mem32', sizeBytes: 0x1000, read: (offset, into) => into.fill(0x40 + offset) } },
      msix: { vectors: VECTORS, ...places },
    });
    fn = await vm.plug(device);
    probe = await vm.probe(fn);
    await probe.enableVectors({ kind: 'msix', count: VECTORS });
  });

  test('guest and VMM find them there, and the BARs where the kernel put them', async () => {
    await expect(fn).toHaveMsix({ vectors: VECTORS, tableBar: places.table.bar, pbaBar: places.pba.bar });
    await expect(fn).toHaveBar({ bar: 0, sizeBytes: 0x4000, type: 'mem32' });
    await expect(fn).toHaveBar({ bar: 2, sizeBytes: 0x10000, type: 'mem64', prefetchable: true });
    expect(await probe.memRead(4, 8, 4)).toBe(0x48484848n);
  });

  test('every vector is delivered as often as it was fired, by all three witnesses, and masked ones once afterwards', async () => {
    for (const [vector, times] of [[0, 3], [7, 1], [15, 2]] as const) {
      for (let n = 1; n <= times; n += 1) {
        expect(device.fire(vector)).toBe('delivered');
        await probe.waitForCount(vector, n);
      }
    }
    await expect(fn).toHaveDelivered([{ vector: 0, exactly: 3 }, { vector: 7, exactly: 1 }, { vector: 15, exactly: 2 }], { others: 'none' });
    const { rows, interrupted } = await vm.ledger(fn);
    expect([interrupted, ...[0, 7, 15].map((vector) => rows[vector])]).toMatchObject([undefined, { fired: 3, sent: 3, handled: 3 }, { fired: 1, sent: 1, handled: 1 }, { fired: 2, sent: 2, handled: 2 }]);
    const since = await vm.mark(fn);
    await probe.maskVector(4);
    device.fire(4);
    device.fire(5); // behind it, so that 4 had its chance
    await probe.waitForCount(5, 1);
    expect((await probe.counter(4)).count).toBe(0);
    await probe.unmaskVector(4);
    await probe.waitForCount(4, 1);
    await expect(fn).toHaveDelivered([{ vector: 4, exactly: 1 }, { vector: 5, exactly: 1 }], { since, others: 'none' });
    await expect(vm).toHaveCleanLog();
  });

  test('the device reads and writes what a driver has allocated for DMA', async () => {
    const buffer = await probe.allocateDma({ sizeBytes: 8192 });
    await buffer.write(4094, Uint8Array.of(1, 2, 3));
    const views = device.memory.spans(Number(buffer.busAddress), 8192) ?? [];
    const bytes = Buffer.concat(views);
    expect([bytes.length, ...bytes.subarray(4094, 4097)]).toEqual([8192, 1, 2, 3]);
    views[0]?.set([7, 8, 9], 16);
    expect([...await buffer.read(16, 3)]).toEqual([7, 8, 9]);
    await buffer.free();
  });

  test('its unplug is refused, since QEMU would not survive it, and the machine goes on', async () => {
    await expect(vm.unplug(device)).rejects.toThrow(/cannot be unplugged: QEMU 11\.1 aborts/);
    device.fire(1);
    await probe.waitForCount(1, 1);
    await expect(fn).toHaveDelivered({ vector: 1, exactly: 1 });
  });
});
