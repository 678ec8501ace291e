// MSI of several messages, and MSI beside MSI-X, in a guest whose interrupts are remapped: without remapping Linux on
// x86 grants one message (arch/x86/kernel/apic/msi.c: no MSI_FLAG_MULTI_PCI_MSI). PCI Local Bus 3.0, 6.8.1 and 6.8.3.1.
import { expect, test } from '@jest/globals';
import { errnoNameOf, q35Iommu, type PciFunction, type ProbedFunction, type VectorKind } from 'rootport';
import { useMachine } from 'rootport/jest';
import { openInterrupters, xhci, XHCI_INTERRUPTERS } from './xhci.ts';

let fn: PciFunction;
let probe: ProbedFunction;
let raise: (interrupter: number) => Promise<void>;
const vm = useMachine({
  machine: q35Iommu({ ports: 1 }),
  // QEMU's xHCI is taken from its bus by an unplug and never deleted (no DEVICE_DELETED, 7.2 and 10.0): it stays.
  afterBoot: async (machine) => {
    fn = await machine.plug(xhci());
    probe = await machine.probe(fn);
    raise = await openInterrupters(probe);
  },
});

/** Raise each, one after the other, and see which counter moves. */
async function movedBy(interrupters: readonly number[]): Promise<number[][]> {
  const moved: number[][] = [];
  for (const interrupter of interrupters) {
    const before = await probe.counters();
    await raise(interrupter);
    await probe.waitForCount(interrupter, (before[interrupter]?.count ?? 0) + 1);
    moved.push((await probe.counters()).map(({ count }, vector) => count - (before[vector]?.count ?? 0)));
  }
  return moved;
}

/** 1 for the vector itself, 0 for every other. */
const alone = (count: number): number[][] => Array.from({ length: count }, (_, vector) => new Array<number>(count).fill(0).with(vector, 1));

test.each([XHCI_INTERRUPTERS, 4, 1])('granted %i MSI messages, each interrupter sends its own, handled once, and no other', async (count) => {
  const vectors = await probe.enableVectors({ kind: 'msi', count });
  const first = vectors[0]?.irq ?? 0;
  expect(vectors.map(({ irq }) => irq)).toEqual(vectors.map((_, vector) => first + vector));
  expect(await movedBy(vectors.map(({ vector }) => vector))).toEqual(alone(count));
  await expect(fn).toHaveDelivered({ vector: count - 1, exactly: 1 });
  // Multiple Message Enable, bits 6:4 of Message Control: the logarithm of what was granted, in steps of a power of two.
  expect((await vm.guest.run(`lspci -vv -s ${fn.bdf}`)).stdout).toContain(`MSI: Enable+ Count=${count}/${XHCI_INTERRUPTERS} `);
  await expect(vm).toHaveCleanLog();
});

test('a fifth message of four is none: an interrupter beyond the granted ones is folded onto them', async () => {
  await probe.enableVectors({ kind: 'msi', count: 4 });
  await raise(6);
  expect(await probe.waitForCount(2, 1)).toBe(1);
  expect((await probe.counters()).map(({ count }) => count)).toEqual([0, 0, 1, 0]);
});

test('every MSI-X vector of the same function is its interrupter\'s, too', async () => {
  await probe.enableVectors({ kind: 'msix', count: XHCI_INTERRUPTERS });
  expect(await movedBy(Array.from({ length: XHCI_INTERRUPTERS }, (_, vector) => vector))).toEqual(alone(XHCI_INTERRUPTERS));
});

test.each([['msi', 'msix'], ['msix', 'msi']] as const)('with %s enabled Linux refuses %s and says so, and the first goes on', async (first, second) => {
  await probe.enableVectors({ kind: first, count: 1 });
  const refusal = await probe.enableBeside(second).then(() => undefined, (error: unknown) => error);
  expect(errnoNameOf(refusal)).toBe('EINVAL');
  expect(String(refusal)).toContain(`the kernel gave no ${second} vector beside ${first}`);
  // drivers/pci/msi: "can't enable MSI (MSI-X already enabled)", "can't enable MSI-X (MSI IRQ already assigned)".
  const names = { msi: 'MSI', msix: 'MSI-X' } satisfies Record<Exclude<VectorKind, 'intx'>, string>;
  expect(await vm.guest.dmesg()).toMatch(new RegExp(`${fn.bdf}: can't enable ${names[second]} \\(${names[first]}( IRQ)? already (enabled|assigned)\\)`));
  const { stdout } = await vm.guest.run(`lspci -vv -s ${fn.bdf}`);
  expect([/ MSI: Enable([+-])/.exec(stdout)?.[1], / MSI-X: Enable([+-])/.exec(stdout)?.[1]]).toEqual(first === 'msi' ? ['+', '-'] : ['-', '+']);
  expect(await movedBy([0])).toEqual([[1]]);
});

test('with one kind given back, Linux grants the other', async () => {
  await probe.enableVectors({ kind: 'msi', count: 2 });
  expect(await movedBy([1])).toEqual([[0, 1]]);
  await probe.disableVectors();
  await probe.enableVectors({ kind: 'msix', count: 2 });
  expect(await movedBy([1])).toEqual([[0, 1]]);
  await expect(vm).toHaveCleanLog();
});
