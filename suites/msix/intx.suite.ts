// INTx in a guest: a level that stays until its reason is gone, a line that two devices share, Interrupt Disable, and
// which line a pin becomes behind bridges: by hand, by Linux, and by QEMU's I/O APIC. Sources: PCI Local Bus 3.0, 2.2.6
// and 6.2.2; PCI-to-PCI Bridge 1.2, 9.1; QEMU hw/i386/acpi-build.c (build_q35_pci0_int, _PRT), hw/isa/piix.c.
import { describe, expect, test } from '@jest/globals';
import { EDU, edu, pc, q35, type BusPlace, type ProbedFunction } from 'rootport';
import { useMachine, type TestMachine } from 'rootport/jest';
import { BRIDGED_SLOTS, bridgedLine, BRIDGES, DEEP_SLOTS, deepLine } from '../bare/bridged-edu.ts';

const COMMAND = 0x04;
const INTX_DISABLE = 0x400;
const ACKNOWLEDGE = { bar: 0, width: 4, statusOffset: EDU.INTERRUPT_STATUS, acknowledgeOffset: EDU.INTERRUPT_ACKNOWLEDGE } as const;

const raise = (probe: ProbedFunction, bits = 1n): Promise<void> => probe.memWrite(0, EDU.INTERRUPT_RAISE, 4, bits);
const acknowledge = (probe: ProbedFunction, bits = 0xffffffffn): Promise<void> => probe.memWrite(0, EDU.INTERRUPT_ACKNOWLEDGE, 4, bits);
const count = async (probe: ProbedFunction): Promise<number> => (await probe.counter(0)).count;

const inSlot = (bus: string, slot: number): BusPlace => ({ bus, addr: `0x${slot.toString(16)}` });

/** An edu in that slot, its INTx counted. Quieted: the handler takes the reason away. */
async function opened(vm: TestMachine, place: BusPlace, { quieted = true } = {}): Promise<ProbedFunction> {
  const fn = await vm.plug(edu(), { port: place });
  expect(parseInt(fn.bdf.slice(8, 10), 16)).toBe(Number(place.addr));
  const probe = await vm.probe(fn);
  await probe.setAcknowledge(quieted ? ACKNOWLEDGE : undefined);
  await probe.enableVectors({ kind: 'intx' });
  return probe;
}

/** How often each pin of QEMU's I/O APIC was raised (HMP `info irq`), by pin. */
async function raisedPins(vm: TestMachine): Promise<Map<number, number>> {
  const [, table = ''] = (await vm.qmp.hmp('info irq')).split(/IRQ statistics for .*ioapic:/);
  return new Map([...table.matchAll(/^ *(\d+): (\d+)/gm)].map(([, pin, times]) => [Number(pin), Number(times)]));
}
/** The board's own: timer, serial console, clock, ACPI. */
const BOARD_PINS = [0, 2, 4, 8, 9];

/** Raise it once and see it handled once; what Linux has for its line, and the pins that QEMU raised. */
async function route(vm: TestMachine, place: BusPlace): Promise<{ sysfs: number; hwirq: number; lspci: number; qemu: number[] }> {
  const probe = await opened(vm, place);
  const before = await raisedPins(vm);
  await raise(probe);
  expect(await probe.waitForCount(0, 1)).toBe(1);
  const after = await raisedPins(vm);
  const { stdout } = await vm.guest.run(`cat /sys/bus/pci/devices/${probe.bdf}/irq; lspci -v -s ${probe.bdf} | grep -o 'IRQ [0-9]*'; grep ${probe.bdf} /proc/interrupts`);
  const [sysfs = '', lspci = '', line = ''] = stdout.trim().split('\n');
  return {
    sysfs: Number(sysfs), lspci: Number(lspci.slice(4)), hwirq: Number(/IO-APIC +(\d+)-fasteoi/.exec(line)?.[1]),
    qemu: [...after].filter(([pin, times]) => !BOARD_PINS.includes(pin) && times !== (before.get(pin) ?? 0)).map(([pin]) => pin),
  };
}

describe('on q35', () => {
  const vm = useMachine({ machine: q35({ ports: 1 }), extraArgs: BRIDGES });

  test.each(BRIDGED_SLOTS)('slot %i behind a bridge: Linux and QEMU have the line of (slot + pin) mod 4', async (slot) => {
    const line = bridgedLine(slot);
    expect(await route(vm, inSlot('conventional', slot))).toEqual({ sysfs: line, hwirq: line, lspci: line, qemu: [line] });
  });

  test.each(DEEP_SLOTS)('slot %i behind a bridge behind a bridge is swizzled twice', async (slot) => {
    const line = deepLine(slot);
    expect(await route(vm, inSlot('deeper', slot))).toEqual({ sysfs: line, hwirq: line, lspci: line, qemu: [line] });
  });

  test('a level: while its reason stands, every unmask brings it again; with the reason gone none does', async () => {
    const probe = await opened(vm, inSlot('conventional', 1), { quieted: false }); // its handler counts it, masks it, and leaves the reason
    await raise(probe);
    expect(await probe.waitForCount(0, 1)).toBe(1);
    expect([(await probe.counter(0)).masked, await probe.pendingBits()]).toEqual([true, 1n]);
    for (const times of [2, 3]) {
      await probe.unmaskVector(0);
      expect(await probe.waitForCount(0, times)).toBe(times);
    }
    await raise(probe, 2n);
    await acknowledge(probe, 1n); // one reason of two
    await probe.unmaskVector(0);
    expect(await probe.waitForCount(0, 4)).toBe(4);
    await acknowledge(probe, 2n);
    await probe.unmaskVector(0);
    expect([await count(probe), await probe.pendingBits(), (await probe.counter(0)).masked]).toEqual([4, 0n, false]);
    await raise(probe, 4n);
    expect(await probe.waitForCount(0, 5)).toBe(5);
    await acknowledge(probe);
    await expect(vm).toHaveCleanLog();
  });

  test('two devices on one line: both handlers are asked, each counts its own, and neither is lost when both raise it', async () => {
    const [one, other] = [await opened(vm, inSlot('conventional', 1)), await opened(vm, inSlot('deeper', 10))];
    const { irq } = await one.counter(0);
    expect((await other.counter(0)).irq).toBe(irq);
    const { stdout } = await vm.guest.run(`grep '^ *${irq}:' /proc/interrupts`);
    for (const { bdf } of [one, other]) expect(stdout).toContain(`rootport_probe-${bdf}-0`);
    const seen = async (): Promise<number[]> => [await count(one), await count(other)];
    await raise(one);
    await one.waitForCount(0, 1);
    expect(await seen()).toEqual([1, 0]);
    await raise(other);
    await other.waitForCount(0, 1);
    expect(await seen()).toEqual([1, 1]);
    expect([(await one.counter(0)).refused > 0, (await other.counter(0)).refused > 0]).toEqual([true, true]);
    // Raised behind the other's back: the line is high already, and there is no edge.
    for (const probe of [one, other]) await probe.configWrite(COMMAND, 2, await probe.configRead(COMMAND, 2) | INTX_DISABLE);
    for (const probe of [one, other]) await raise(probe);
    for (const probe of [one, other]) await probe.configWrite(COMMAND, 2, await probe.configRead(COMMAND, 2) & ~INTX_DISABLE);
    for (const probe of [one, other]) await probe.waitForCount(0, 2);
    expect(await seen()).toEqual([2, 2]);
    await expect(vm).toHaveCleanLog();
  });

  test('Interrupt Disable keeps the line low while the status bit tells; enabled again, the interrupt is handled once', async () => {
    const probe = await opened(vm, inSlot('conventional', 2));
    const command = await probe.configRead(COMMAND, 2);
    await probe.configWrite(COMMAND, 2, command | INTX_DISABLE);
    const before = await raisedPins(vm);
    await raise(probe);
    expect([await probe.pendingBits(), await count(probe)]).toEqual([1n, 0]);
    expect((await vm.guest.run(`lspci -vv -s ${probe.bdf}`)).stdout).toMatch(/DisINTx\+[^]*INTx\+/);
    const line = bridgedLine(2);
    expect((await raisedPins(vm)).get(line)).toBe(before.get(line));
    await probe.configWrite(COMMAND, 2, command);
    expect(await probe.waitForCount(0, 1)).toBe(1);
    expect(await probe.pendingBits()).toBe(0n);
    await expect(vm).toHaveCleanLog();
  });
});

describe('on pc', () => {
  const slots = [8, 9, 10, 11];
  const vm = useMachine({ machine: pc({ ports: 0 }), extraArgs: ['-device', 'pci-bridge,id=deeper,bus=pci.0,addr=0x5,chassis_nr=10'] });

  /** PIRQRC[A:D] of the PIIX3: which interrupt each of the board's four lines is steered to. */
  async function steeredTo(pirq: number): Promise<number> {
    const { stdout } = await vm.guest.run(`setpci -s 00:01.0 ${(0x60 + pirq).toString(16)}.b`);
    return parseInt(stdout, 16) & 0xf;
  }

  test.each(slots)('slot %i of the root bus: Linux and QEMU have what the PIIX3 steers line (slot - 1) mod 4 to', async (slot) => {
    const seen = await route(vm, inSlot('pci.0', slot));
    const line = await steeredTo((slot - 1) % 4);
    expect(seen).toEqual({ sysfs: line, hwirq: line, lspci: line, qemu: [line] });
  });

  test.each(slots)('slot %i behind a bridge in slot 5 is swizzled first', async (slot) => {
    const seen = await route(vm, inSlot('deeper', slot));
    const line = await steeredTo((slot + 5 - 1) % 4);
    expect(seen).toEqual({ sysfs: line, hwirq: line, lspci: line, qemu: [line] });
  });
});
