// INTx as lines of the I/O APIC, and MSI as messages in RAM, without an operating system. Sources: PCI Local Bus 3.0,
// 2.2.6 and 6.8.1; PCI-to-PCI Bridge 1.2, 9.1 (pins behind bridges); QEMU hw/isa/lpc_ich9.c, hw/isa/piix.c.
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { EDU, edu, pc, q35, q35NativeHotplug, qemuDevice, type BareFunction } from 'rootport';
import { useBare } from 'rootport/jest';
import { BRIDGED_EDU, BRIDGED_SLOTS, bridgedLine, DEEP_SLOTS, deepLine } from './bridged-edu.ts';

const QEMUS = ['7.2', '10.0'];
const STATUS_INTX = 0x0008;

const raise = (fn: BareFunction, bits = 1n): Promise<void> => fn.memWrite(0, EDU.INTERRUPT_RAISE, 4, bits);
const acknowledge = (fn: BareFunction, bits = 1n): Promise<void> => fn.memWrite(0, EDU.INTERRUPT_ACKNOWLEDGE, 4, bits);
const hasIntxStatus = async (fn: BareFunction): Promise<boolean> => ((await fn.configRead(0x06, 2)) & STATUS_INTX) !== 0;

describe.each(QEMUS.flatMap((qemu) => [{ qemu, name: 'q35', preset: q35 }, { qemu, name: 'pc', preset: pc }]))('INTx on $name, QEMU $qemu', ({ qemu, preset }) => {
  const [first, second] = [edu(), edu()];
  const vm = useBare({ qemu, machine: preset({ ports: 2 }), devices: [first, second] });
  let fn: BareFunction;
  let line: number;
  beforeEach(async () => {
    fn = await vm.functionOf(first);
    line = await fn.intxLine();
  });
  afterEach(async () => {
    for (const one of [fn, await vm.functionOf(second)]) await acknowledge(one, 0xffffffffn);
    await vm.qtest.settle();
    expect(vm.intxRaised).toEqual([]);
  });

  test('the line is raised until the interrupt is acknowledged, and is the only one', async () => {
    await raise(fn);
    await vm.qtest.waitForIrq(line, 1);
    expect(vm.intxRaised).toEqual([line]);
    expect(await hasIntxStatus(fn)).toBe(true);
    await acknowledge(fn);
    await vm.qtest.waitForIrq(line, 0);
    expect(await hasIntxStatus(fn)).toBe(false);
  });

  test('a level: raised for two reasons, it stays until both are acknowledged, and moves once each way', async () => {
    const before = vm.qtest.irqEvents.filter((event) => event.line === line).length;
    await raise(fn, 1n);
    await raise(fn, 2n);
    await acknowledge(fn, 1n);
    await vm.qtest.settle();
    expect(vm.qtest.irqLevel(line)).toBe(1);
    await acknowledge(fn, 2n);
    await vm.qtest.settle();
    expect(vm.qtest.irqEvents.filter((event) => event.line === line).slice(before)).toEqual([{ line, level: 1 }, { line, level: 0 }]);
  });

  test('with INTx disabled the line stays low, the status bit tells; enabled again, it is raised', async () => {
    await fn.command({ INTX_DISABLE: true });
    await raise(fn);
    await vm.qtest.settle();
    expect([vm.intxRaised, await hasIntxStatus(fn)]).toEqual([[], true]);
    await fn.command({ INTX_DISABLE: false });
    await vm.qtest.waitForIrq(line, 1);
  });

  test('INTx disabled while the line is raised lowers it', async () => {
    await raise(fn);
    await vm.qtest.waitForIrq(line, 1);
    await fn.command({ INTX_DISABLE: true });
    await vm.qtest.waitForIrq(line, 0);
    await fn.command({ INTX_DISABLE: false });
    await vm.qtest.waitForIrq(line, 1);
  });

  test('two devices in neighbouring slots have lines that differ by the slots\' rule', async () => {
    const other = await vm.functionOf(second);
    await raise(fn);
    await raise(other);
    await vm.qtest.settle();
    expect(vm.intxRaised).toEqual([...new Set([line, await other.intxLine()])].sort((a, b) => a - b));
  });

  test('with MSI enabled the line stays low, and the message is in RAM', async () => {
    const msi = await fn.enableMsi();
    await raise(fn);
    expect(await msi.next()).toBe(0);
    expect(vm.intxRaised).toEqual([]);
    await acknowledge(fn);
    await msi.control(false);
  });

  test('MSI with bus mastering off is lost, then and when it is on again', async () => {
    const msi = await fn.enableMsi();
    await fn.command({ BUS_MASTER: false });
    await raise(fn);
    expect(await msi.arrived()).toBeUndefined();
    await fn.command({ BUS_MASTER: true });
    expect(await msi.arrived()).toBeUndefined();
    await acknowledge(fn);
    await msi.control(false);
  });
});

describe.each(QEMUS)('INTx behind bridges, QEMU %s', (qemu) => {
  const vm = useBare({ qemu, machine: q35({ ports: 1 }), extraArgs: BRIDGED_EDU });

  test.each(BRIDGED_SLOTS)('slot %i of a bridge raises the line of (slot + pin) mod 4', async (slot) => {
    const fn = await vm.functionOf(`edu${slot}`);
    const line = bridgedLine(slot);
    expect(await fn.intxLine()).toBe(line);
    await raise(fn);
    await vm.qtest.waitForIrq(line, 1);
    expect(vm.intxRaised).toEqual([line]);
    await acknowledge(fn);
    await vm.qtest.waitForIrq(line, 0);
  });

  test.each(DEEP_SLOTS)('slot %i of a bridge behind a bridge is swizzled twice', async (slot) => {
    const fn = await vm.functionOf(`deep${slot}`);
    const line = deepLine(slot);
    expect(await fn.intxLine()).toBe(line);
    await raise(fn);
    await vm.qtest.waitForIrq(line, 1);
    await acknowledge(fn);
    await vm.qtest.waitForIrq(line, 0);
  });

  test('bus numbers are nested, and every function behind is reached at its address', async () => {
    const buses = await Promise.all(['far', 'conventional', 'deeper'].map(async (id) => {
      const fn = await vm.functionOf(id);
      return [await fn.configRead(0x18, 1), await fn.configRead(0x19, 1), await fn.configRead(0x1a, 1)];
    }));
    expect(buses.map(([primary]) => primary).slice(1)).toEqual(buses.map(([, secondary]) => secondary).slice(0, 2));
    expect(new Set(buses.map(([, , subordinate]) => subordinate))).toEqual(new Set([buses[2]?.[1]]));
    for (const id of [...BRIDGED_SLOTS.map((slot) => `edu${slot}`), ...DEEP_SLOTS.map((slot) => `deep${slot}`)]) {
      const fn = await vm.functionOf(id);
      expect(Number(await fn.memRead(0, EDU.IDENTIFICATION, 4)) & 0xffff).toBe(0x00ed);
      expect(BigInt((await fn.vmm()).regions[0]?.address ?? 0)).toBe((await fn.bar(0)).address);
    }
  });

  test('two devices that share a line keep it raised until both are acknowledged', async () => {
    const [one, other] = [await vm.functionOf('edu1'), await vm.functionOf('edu5')];
    const line = await one.intxLine();
    expect(await other.intxLine()).toBe(line);
    await raise(one);
    await raise(other);
    await acknowledge(one);
    await vm.qtest.settle();
    expect(vm.qtest.irqLevel(line)).toBe(1);
    await acknowledge(other);
    await vm.qtest.waitForIrq(line, 0);
  });
});

describe.each(QEMUS)('MSI with two messages, of an ioh3420 root port, QEMU %s', (qemu) => {
  // Its hot-plug events are message 0, its error reports message 1 (hw/pci-bridge/ioh3420.c).
  const vm = useBare({
    qemu, machine: q35NativeHotplug({ ports: 0 }),
    extraArgs: ['-device', 'ioh3420,id=two,bus=pcie.0,addr=0x12.0,chassis=3,slot=3', '-device', 'edu,id=card,bus=two'],
  });
  const AER = 0x100;
  const ROOT_ERROR_COMMAND = AER + 0x2c;
  const SLOT_CONTROL = 0x90 + 0x18;
  let port: BareFunction;
  beforeEach(async () => {
    port = await vm.functionOf('two');
    expect(await port.configRead(AER, 2)).toBe(0x0001);
    expect(await port.configRead(0x90, 1)).toBe(0x10);
    await port.configWrite(0x98, 2, 0xf); // Device Control: report all errors
    await port.configWrite(ROOT_ERROR_COMMAND, 4, 0x7);
    await port.command({ SERR: true });
    await port.configWrite(0x3e, 2, 0x2); // Bridge Control: forward SERR
  });
  /** An internal way in: QEMU marks its own port with an uncorrectable error, and the port reports it. */
  const reportError = (): Promise<string> => vm.qmp.hmp('pcie_aer_inject_error two POISON_TLP');
  const clearErrors = async (): Promise<void> => {
    await port.configWrite(AER + 0x04, 4, 0xffffffff);
    await port.configWrite(AER + 0x10, 4, 0xffffffff);
    await port.configWrite(AER + 0x30, 4, 0x7f);
  };

  test('the function asks for two, with mask bits', async () => {
    const { capability } = await port.enableMsi();
    expect(capability).toMatchObject({ vectorsRequested: 2, maskable: true });
  });

  test('an error report is message 1', async () => {
    const msi = await port.enableMsi();
    await clearErrors();
    await reportError();
    expect(await msi.next()).toBe(1);
    await clearErrors();
  });

  test('granted one message only, the error report is message 0', async () => {
    const msi = await port.enableMsi(1);
    await clearErrors();
    await reportError();
    expect(await msi.next()).toBe(0);
    await clearErrors();
  });

  test('a masked message is pending and not sent; unmasked, it is sent once', async () => {
    const msi = await port.enableMsi();
    const since = await vm.mark(port);
    await clearErrors();
    await msi.mask(0b10);
    await reportError();
    expect([await msi.arrived(), await msi.pending()]).toEqual([undefined, 0b10]);
    expect((await vm.ledger(port, since)).rows).toMatchObject([{ sent: 0, pending: false, masked: false }, { sent: 0, pending: true, masked: true }]);
    await msi.mask(0);
    expect([await msi.arrived(), await msi.pending()]).toEqual([1, 0]);
    expect(await msi.arrived()).toBeUndefined();
    await expect(port).toHaveDelivered([{ vector: 0, exactly: 0 }, { vector: 1, exactly: 1 }], { since });
    await clearErrors();
  });

  test('a hot-plug event is message 0', async () => {
    const msi = await port.enableMsi();
    const control = await port.configRead(SLOT_CONTROL, 2);
    await port.configWrite(SLOT_CONTROL, 2, control | 0x0021); // attention button, hot-plug interrupt
    await vm.qmp.execute('device_del', { id: 'card' });
    expect(await msi.next()).toBe(0);
  });
});

describe.each(QEMUS)('MSI-X in a BAR with other registers, QEMU %s', (qemu) => {
  // No device model of QEMU has table and PBA in different BARs (own-function.suite.ts has); these have them beside registers, or alone.
  const models = { 'nvme, shared': qemuDevice('nvme', { serial: 'x' }), 'nvme, alone': qemuDevice('nvme', { serial: 'y', 'msix-exclusive-bar': true }), e1000e: qemuDevice('e1000e', { romfile: '' }), 'nec-usb-xhci': qemuDevice('nec-usb-xhci', { msix: 'on', msi: 'off' }) };
  const vm = useBare({ qemu, machine: q35({ ports: 4 }), devices: Object.values(models) });

  test.each([
    ['nvme, shared', 0], ['nvme, alone', 4], ['e1000e', 3], ['nec-usb-xhci', 0],
  ] as const)('of %s is in BAR %i, and every entry reads back what was written to it', async (name, bar) => {
    const fn = await vm.functionOf(models[name]);
    const msix = await fn.enableMsix();
    const { tableBar, pbaBar, tableSize, tableOffset, pbaOffset } = msix.capability;
    expect([tableBar, pbaBar]).toEqual([bar, bar]);
    expect(pbaOffset >= tableOffset + 16 * tableSize).toBe(true);
    for (let vector = 0; vector < tableSize; vector += 1) {
      expect(await msix.entry(vector)).toEqual({ address: msix.slots.addressOf(vector), data: 0x51000000 + vector, masked: false });
    }
    expect(await msix.pending()).toEqual([]);
  });
});

describe.each(QEMUS)('MSI-X of e1000e by its own cause register, QEMU %s', (qemu) => {
  const card = qemuDevice('e1000e', { romfile: '' });
  const vm = useBare({ qemu, machine: q35({ ports: 1 }), devices: [card] });
  const [ICS, IMS, IVAR, EIAC] = [0x00c8, 0x00d0, 0x00e4, 0x00dc];

  test('each cause set by software sends the message of the vector that it is routed to', async () => {
    const fn = await vm.functionOf(card);
    const msix = await fn.enableMsix();
    // RxQ0, RxQ1, TxQ0, TxQ1, Other to vectors 0 to 4, each valid (82574L, 10.2.4.2).
    await fn.memWrite(0, IVAR, 4, 0x000c_ba98n);
    await fn.memWrite(0, EIAC, 4, 0x01f0_0000n);
    await fn.memWrite(0, IMS, 4, 0x01f0_0000n);
    for (let vector = 0; vector < 5; vector += 1) {
      await fn.memWrite(0, ICS, 4, BigInt(1 << (20 + vector)));
      await msix.next(vector);
      // QEMU 10.0 sends a second one of the cause that still stands.
      expect((await msix.arrived()).filter((other) => other !== vector)).toEqual([]);
    }
  });
});
