// What a reset takes and what the kernel gives back: Function Level Reset, a reset of the bus behind a port, and
// D3hot and back, through sysfs' reset_method (Linux drivers/pci/pci.c, pci_reset_function). The device has forgotten
// everything; config space, BARs and the vectors that Linux set up are as before; MSI-X that it did not is off.
// Less the kernel: suites/bare/reset.suite.ts.
import { afterEach, describe, expect, test } from '@jest/globals';
import { CAPABILITY_ID, findCapability, IVSHMEM, ivshmem, q35NativeHotplug, qemuDevice, readCapabilities, type Ivshmem, type PciFunction, type ProbedFunction } from 'rootport';
import { useMachine } from 'rootport/jest';

/** In BAR 4 of a modern virtio device of QEMU's. */
const DEVICE_STATUS = 0x14;

describe.each(['10.0', '7.2'])('QEMU %s', (qemu) => {
  let rng: PciFunction;
  let doorbell: Ivshmem;
  const inUse: ProbedFunction[] = [];
  afterEach(async () => { // before useMachine: while the machine is still there
    for (const probe of inUse.splice(0)) await probe.disableVectors();
  });
  const vm = useMachine({
    // Native: with ACPI's hot-plug QEMU's ports do not tell that their link is up again, and Linux gives the device up.
    qemu, machine: q35NativeHotplug({ ports: 2 }),
    afterBoot: async (machine) => {
      doorbell = ivshmem({ vectors: 2 });
      rng = await machine.plug(qemuDevice('virtio-rng-pci', { vectors: 2 }));
      await machine.plug(doorbell);
      await machine.probe(rng);
    },
  });

  const reset = (fn: PciFunction, method: string): Promise<unknown> => vm.guest.run(`echo ${method} >${fn.sysfs}/reset_method && echo 1 >${fn.sysfs}/reset`);
  /** All that Linux keeps of it; less Status. */
  const config = async (fn: PciFunction): Promise<string> => (await fn.configSpace()).fill(0, 6, 8).subarray(0, 0x100).toString('hex');
  const addresses = async (fn: PciFunction): Promise<unknown> => (await fn.vmm()).regions.map(({ bar, address }) => ({ bar, address }));

  async function enableVectors(probe: ProbedFunction): Promise<void> {
    await probe.enableVectors({ kind: 'msix', count: 2 });
    inUse.push(probe);
  }
  const capability = async (probe: ProbedFunction, id: number): Promise<number> => findCapability(await readCapabilities(probe), id)?.offset ?? 0;

  test('each function says how it can be reset', async () => {
    const methods = async (fn: PciFunction): Promise<string> => (await vm.guest.run(`cat ${fn.sysfs}/reset_method`)).stdout.trim();
    expect(await methods(rng)).toBe('flr pm bus');
    expect(await methods(await vm.functionOf(doorbell))).toBe('bus');
  });

  test.each(['flr', 'bus'])('%s: the device has forgotten all; config space, BARs and its driver\'s vectors are back', async (method) => {
    const probe = await vm.probe(rng);
    await enableVectors(probe);
    await probe.memWrite(4, DEVICE_STATUS, 1, 3n); // ACKNOWLEDGE, DRIVER
    const before = [await config(rng), await addresses(rng), await probe.tableEntry(0), await probe.tableEntry(1)];
    const since = (await vm.probeEvents(rng)).length;
    await reset(rng, method);
    expect((await vm.probeEvents(rng)).slice(since).map(({ kind }) => kind)).toEqual(['reset_prepare', 'reset_done']);
    expect(await probe.memRead(4, DEVICE_STATUS, 1)).toBe(0n);
    expect([await config(rng), await addresses(rng), await probe.tableEntry(0), await probe.tableEntry(1)]).toEqual(before);
  });

  test.each(['flr', 'bus'])('%s: MSI-X that was enabled behind the kernel\'s back is off, its table masked and empty', async (method) => {
    const probe = await vm.probe(rng);
    const control = await capability(probe, CAPABILITY_ID.MSI_X) + 2;
    await probe.configWrite(control, 2, await probe.configRead(control, 2) | 0x8000);
    await probe.memWrite(1, 0x00, 4, 0xfee00000n);
    await probe.memWrite(1, 0x0c, 4, 0n);
    expect(await probe.configRead(control, 2) & 0xc000).toBe(0x8000);
    expect(await probe.tableEntry(0)).toMatchObject({ address: 0xfee00000n, masked: false });
    await reset(rng, method);
    expect(await probe.configRead(control, 2) & 0xc000).toBe(0);
    expect(await probe.tableEntry(0)).toEqual({ address: 0n, data: 0, masked: true });
  });

  test('bus: vectors that fired before fire after it, each once', async () => {
    const fn = await vm.functionOf(doorbell);
    const probe = await vm.probe(fn);
    await enableVectors(probe);
    doorbell.fire(1);
    await probe.waitForCount(1, 1);
    await probe.memWrite(0, IVSHMEM.INTERRUPT_MASK, 4, 1n);
    await reset(fn, 'bus');
    expect(await probe.memRead(0, IVSHMEM.INTERRUPT_MASK, 4)).toBe(0n); // it was reset: nobody restores that
    const mark = await vm.mark(fn);
    doorbell.fire(0);
    doorbell.fire(1);
    await probe.waitForCount(0, 1);
    await probe.waitForCount(1, 2);
    await expect(fn).toHaveDelivered([{ vector: 0, exactly: 1 }, { vector: 1, exactly: 1 }], { since: mark });
  });

  test('D3hot keeps config space, and back in D0 its BARs are mapped and the device answers', async () => {
    const probe = await vm.probe(rng);
    const control = await capability(probe, CAPABILITY_ID.POWER_MANAGEMENT) + 4;
    await probe.memWrite(4, DEVICE_STATUS, 1, 3n);
    const before = [await config(rng), await addresses(rng)];
    await probe.configWrite(control, 2, 3);
    expect(await probe.configRead(control, 2) & 3).toBe(3);
    expect(await probe.configRead(0, 2)).toBe(0x1af4);
    expect(await rng.driver()).toBe('rootport_probe');
    await probe.configWrite(control, 2, 0);
    expect([await config(rng), await addresses(rng)]).toEqual(before);
    expect(await probe.memRead(4, DEVICE_STATUS, 1)).toBe(3n);
    const since = (await vm.probeEvents(rng)).length;
    await reset(rng, 'pm'); // the same, as the kernel does it
    expect((await vm.probeEvents(rng)).slice(since).map(({ kind }) => kind)).toEqual(['reset_prepare', 'reset_done']);
    expect([await config(rng), await addresses(rng), await probe.configRead(control, 2) & 3]).toEqual([...before, 0]);
    await reset(rng, 'flr');
  });
});
