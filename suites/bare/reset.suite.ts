// What a reset leaves of a function, without an operating system that gives anything back: Function Level Reset
// (PCIe Base 5.0, 6.6.2), the Secondary Bus Reset of the port above (PCI-to-PCI Bridge 1.2, 3.2.5.18), and D3hot.
import { afterEach, describe, expect, test } from '@jest/globals';
import { CAPABILITY_ID, edu, EDU, findCapability, q35NativeHotplug, qemuDevice, readCapabilities, type BareFunction } from 'rootport';
import { useBare } from 'rootport/jest';

const COMMAND = 0x04, BAR = [0x10, 0x14, 0x18, 0x1c, 0x20, 0x24] as const, BRIDGE_CONTROL = 0x3e;
const SECONDARY_BUS_RESET = 0x40;
const INITIATE_FLR = 0x8000;
/** In BAR 4 of a modern virtio device of QEMU's. */
const DEVICE_STATUS = 0x14;

describe.each(['7.2', '10.0'])('QEMU %s', (qemu) => {
  const vm = useBare({ qemu, machine: q35NativeHotplug({ ports: 2 }) });
  afterEach(async () => {
    for (const { device } of [...vm.innards.plugged]) await vm.unplug(device);
  });
  const rng = (): Promise<BareFunction> => vm.plug(qemuDevice('virtio-rng-pci', { vectors: 2 }));

  const capability = async (fn: BareFunction, id: number): Promise<number> => findCapability(await readCapabilities(fn), id)?.offset ?? 0;
  /** COMMAND and BARs, as registers. */
  const placed = async (fn: BareFunction): Promise<number[]> => {
    const values = [await fn.configRead(COMMAND, 2)];
    for (const at of BAR) values.push((await fn.configRead(at, 4) & ~0xf) >>> 0);
    return values;
  };
  const flr = async (fn: BareFunction): Promise<void> => {
    const control = await capability(fn, CAPABILITY_ID.PCI_EXPRESS) + 0x08;
    await fn.configWrite(control, 2, await fn.configRead(control, 2) | INITIATE_FLR);
    expect(await fn.configRead(control, 2) & INITIATE_FLR).toBe(0); // it always reads 0
  };
  const busReset = async (): Promise<void> => {
    const port = await vm.functionOf('rp1');
    const before = await port.configRead(BRIDGE_CONTROL, 2);
    await port.configWrite(BRIDGE_CONTROL, 2, before | SECONDARY_BUS_RESET);
    await port.configWrite(BRIDGE_CONTROL, 2, before);
  };

  test.each([['Function Level Reset', flr], ['Secondary Bus Reset', busReset]] as const)(
    '%s: BARs, COMMAND and MSI-X are as at power-on, QEMU maps nothing, and what was there can be put back', async (_name, reset) => {
      const fn = await rng();
      const before = await placed(fn);
      await fn.enableMsix();
      await fn.memWrite(4, DEVICE_STATUS, 1, 3n);
      const msix = await capability(fn, CAPABILITY_ID.MSI_X) + 2;
      expect(await fn.configRead(msix, 2) & 0x8000).toBe(0x8000);
      await reset(fn);
      expect(await placed(fn)).toEqual([0, 0, 0, 0, 0, 0, 0]);
      expect(await fn.configRead(msix, 2) & 0xc000).toBe(0);
      for (const { address } of (await fn.vmm()).regions) expect(address).toBe(-1);
      expect(await fn.configRead(0, 2)).toBe(0x1af4);
      for (const [i, at] of BAR.entries()) await fn.configWrite(at, 4, before[i + 1] ?? 0);
      await fn.configWrite(COMMAND, 2, before[0] ?? 0);
      expect(await placed(fn)).toEqual(before);
      expect(await fn.memRead(4, DEVICE_STATUS, 1)).toBe(0n); // the device too was reset
      expect(await fn.memRead(1, 0x0c, 4)).toBe(1n); // vector 0 is masked
    },
  );

  test('a Secondary Bus Reset reaches what is behind the port and nothing else', async () => {
    const [behind, beside] = [await vm.plug(edu()), await vm.plug(edu())];
    for (const fn of [behind, beside]) await fn.memWrite(0, EDU.LIVENESS, 4, 0x12345678n);
    await busReset();
    expect((await placed(behind)).slice(0, 2)).toEqual([0, 0]);
    expect(await beside.memRead(0, EDU.LIVENESS, 4)).toBe(BigInt(~0x12345678 >>> 0));
  });

  test(`D3hot and back leaves BARs, COMMAND and MSI-X alone; meanwhile memory is ${qemu === '7.2' ? 'still' : 'not'} decoded`, async () => {
    const fn = await rng();
    await fn.enableMsix();
    await fn.memWrite(4, DEVICE_STATUS, 1, 3n);
    const mapped = (await fn.vmm()).regions.map(({ address }) => address);
    const msix = await capability(fn, CAPABILITY_ID.MSI_X) + 2;
    const control = await capability(fn, CAPABILITY_ID.POWER_MANAGEMENT) + 4;
    const before = [...await placed(fn), await fn.configRead(msix, 2)];
    await fn.configWrite(control, 2, 3);
    expect(await fn.configRead(control, 2) & 3).toBe(3);
    expect([...await placed(fn), await fn.configRead(msix, 2)]).toEqual(before);
    for (const { address } of (await fn.vmm()).regions) expect(address === -1).toBe(qemu !== '7.2');
    expect(await fn.memRead(4, DEVICE_STATUS, 1)).toBe(qemu === '7.2' ? 3n : 0n);
    await fn.configWrite(control, 2, 0);
    expect([...await placed(fn), await fn.configRead(msix, 2)]).toEqual(before);
    expect((await fn.vmm()).regions.map(({ address }) => address)).toEqual(mapped);
    expect([await fn.configRead(control, 2) & 3, await fn.memRead(4, DEVICE_STATUS, 1)]).toEqual([0, 3n]);
  });
});
