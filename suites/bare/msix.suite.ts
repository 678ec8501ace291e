// MSI-X to the letter (PCI Local Bus 3.0, 6.8.2), with 1, 16, 190 and 2048 vectors: ivshmem fires eventfds, each
// message is read back from guest RAM, and pci-testdev counts messages that are sent to it instead.
// RAM tells that a message came; the counter tells how often.
import { beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { ivshmem, q35, qemuDevice, type BareFunction, type MsixMessages } from 'rootport';
import { useBare } from 'rootport/jest';

const ON = { enabled: true, functionMasked: false };

describe.each(['7.2', '10.0'])('QEMU %s', (qemu) => {
  const COUNTS = [1, 16, 190, 2048];
  const devices = new Map(COUNTS.map((vectors) => [vectors, ivshmem({ vectors })]));
  const counter = qemuDevice('pci-testdev');
  const vm = useBare({ qemu, machine: q35({ ports: COUNTS.length + 1 }), devices: [...devices.values(), counter] });

  /** Messages that reach pci-testdev since this was called, each counted (QEMU: docs/specs/pci-testdev.rst). */
  async function countMessages(): Promise<{ address: bigint; data: number; count(): Promise<number> }> {
    const fn = await vm.functionOf(counter);
    await fn.memWrite(0, 0, 1, 0n);
    const { address } = await fn.bar(0);
    return {
      address: address + await fn.memRead(0, 4, 4),
      data: Number(await fn.memRead(0, 8, 1)),
      count: async () => {
        await vm.qtest.settle();
        return Number(await fn.memRead(0, 12, 4));
      },
    };
  }

  describe.each(COUNTS)('%i vectors', (vectors) => {
    const device = devices.get(vectors) ?? ivshmem();
    const last = vectors - 1;
    /** Some of all: the first, the last, and those around the words of the PBA. */
    const some = [...new Set([0, 31, 32, 63, 64, last].filter((vector) => vector < vectors))];
    const all = Array.from({ length: vectors }, (_, vector) => vector);
    let fn: BareFunction;
    let msix: MsixMessages;
    beforeAll(async () => {
      fn = await vm.functionOf(device);
    });

    test('table and PBA lie aligned in BAR 1, apart, and inside it', async () => {
      msix = await fn.enableMsix();
      const { tableSize, tableBar, tableOffset, pbaBar, pbaOffset } = msix.capability;
      expect({ tableSize, tableBar, pbaBar, tableOffset: tableOffset % 8, pbaOffset: pbaOffset % 8 })
        .toEqual({ tableSize: vectors, tableBar: 1, pbaBar: 1, tableOffset: 0, pbaOffset: 0 });
      expect(pbaOffset >= tableOffset + 16 * vectors || tableOffset >= pbaOffset + Math.ceil(vectors / 64) * 8).toBe(true);
      const end = Math.max(tableOffset + 16 * vectors, pbaOffset + Math.ceil(vectors / 64) * 8);
      expect(BigInt(end)).toBeLessThanOrEqual((await fn.bar(1)).sizeBytes);
    });

    describe('enabled, each entry pointing to RAM', () => {
      beforeEach(async () => {
        msix ??= await fn.enableMsix();
        await msix.control(ON);
        for (const vector of some) await msix.point(vector, vector);
        await msix.arrived();
      });

      test('every vector that is fired writes its own message, and no other\'s', async () => {
        for (const vector of some) {
          device.fire(vector);
          expect(await msix.arrived()).toEqual([vector]);
        }
        for (const vector of all) device.fire(vector);
        expect(await msix.arrived()).toEqual(all);
        expect(await msix.pending()).toEqual([]);
      });

      test('an entry reads back as it was written, and only Enable and Function Mask of Message Control can be written', async () => {
        const entry = { address: 0x12_3456_7890n, data: 0xdeadbeef, masked: true };
        await msix.pointAt(last, entry.address, entry.data, { masked: true });
        expect(await msix.entry(last)).toEqual(entry);
        await fn.configWrite(msix.capability.offset + 2, 2, 0xffff);
        expect(await fn.configRead(msix.capability.offset + 2, 2)).toBe(0xc000 | last);
      });

      test('a masked vector is pending and sends nothing; unmasked, it sends its message', async () => {
        for (const vector of some) await msix.mask(vector);
        for (const vector of some) {
          device.fire(vector);
          expect(await msix.arrived()).toEqual([]);
        }
        expect(await msix.pending()).toEqual(some);
        for (const vector of some) {
          await msix.mask(vector, false);
          expect(await msix.arrived()).toEqual([vector]);
        }
        expect(await msix.pending()).toEqual([]);
      });

      test('fired five times while masked, it sends exactly one message when unmasked', async () => {
        const at = await countMessages();
        await msix.pointAt(last, at.address, at.data, { masked: true });
        for (let i = 0; i < 5; i += 1) {
          device.fire(last);
          await vm.qtest.settle();
        }
        expect(await at.count()).toBe(0);
        await msix.mask(last, false);
        expect(await at.count()).toBe(1);
        await msix.mask(last);
        await msix.mask(last, false);
        expect(await at.count()).toBe(1);
      });

      test('fired five times unmasked and one by one, it sends exactly five messages', async () => {
        const at = await countMessages();
        await msix.pointAt(last, at.address, at.data);
        for (let i = 1; i <= 5; i += 1) {
          device.fire(last);
          expect(await at.count()).toBe(i);
        }
      });

      test('Function Mask holds every vector back; lifted, each sends once', async () => {
        await msix.control({ enabled: true, functionMasked: true });
        for (const vector of all) device.fire(vector);
        expect(await msix.arrived()).toEqual([]);
        expect(await msix.pending()).toEqual(all);
        await msix.control(ON);
        expect(await msix.arrived()).toEqual(all);
        expect(await msix.pending()).toEqual([]);
      });

      test('Function Mask that is lifted leaves a vector with its own mask pending', async () => {
        await msix.mask(last);
        await msix.control({ enabled: true, functionMasked: true });
        device.fire(last);
        await msix.control(ON);
        expect(await msix.arrived()).toEqual([]);
        expect(await msix.pending()).toEqual([last]);
        await msix.mask(last, false);
        expect(await msix.arrived()).toEqual([last]);
      });

      test('the PBA cannot be written: a pending bit is neither cleared nor set', async () => {
        const { pbaBar, pbaOffset } = msix.capability;
        await msix.mask(last);
        device.fire(last);
        await vm.qtest.settle();
        for (const value of [0n, 0xffffffffn]) {
          for (let at = 0; at < Math.ceil(vectors / 64) * 8; at += 4) await fn.memWrite(pbaBar, pbaOffset + at, 4, value);
          expect(await msix.pending()).toEqual([last]);
        }
        await msix.mask(last, false);
        expect(await msix.arrived()).toEqual([last]);
      });

      test('with MSI-X disabled a fire is lost: nothing is sent or pending, then or when it is enabled again', async () => {
        await msix.control({ enabled: false, functionMasked: false });
        device.fire(last);
        expect(await msix.arrived()).toEqual([]);
        await msix.control(ON);
        expect(await msix.arrived()).toEqual([]);
        expect(await msix.pending()).toEqual([]);
      });

      test('with bus mastering off a fire is lost and not stored', async () => {
        await fn.command({ BUS_MASTER: false });
        device.fire(last);
        expect(await msix.arrived()).toEqual([]);
        await fn.command({ BUS_MASTER: true });
        expect(await msix.arrived()).toEqual([]);
        expect(await msix.pending()).toEqual([]);
      });

      test('a pending vector that is pointed elsewhere sends its new message', async () => {
        await msix.mask(last);
        device.fire(last);
        await vm.qtest.settle();
        await msix.point(last, 0);
        expect(await msix.arrived()).toEqual([0]);
      });

      test('two entries with the same message send it each', async () => {
        const at = await countMessages();
        const two = [0, last];
        for (const vector of two) await msix.pointAt(vector, at.address, at.data);
        for (const vector of two) {
          device.fire(vector);
          await vm.qtest.settle();
        }
        expect(await at.count()).toBe(2);
      });
    });
  });
});
