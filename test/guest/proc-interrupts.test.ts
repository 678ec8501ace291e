import { readFileSync } from 'node:fs';
import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { interruptOf, parseInterrupts } from '../../src/guest/proc-interrupts.ts';

const recorded = readFileSync(new URL('../fixtures/guest/interrupts.txt', import.meta.url), 'utf8');

describe('parseInterrupts of a guest with two CPUs', () => {
  const table = parseInterrupts(recorded);

  test('has every line of the text', () => {
    expect(table.cpus).toEqual([0, 1]);
    expect(table.lines).toHaveLength(recorded.trimEnd().split('\n').length - 1);
  });

  test('an IO-APIC line has chip, pin, flow and name, its counts per CPU', () => {
    expect(interruptOf(table, 0)).toEqual({
      label: '0', irq: 0, counts: [110, 0], total: 110, chip: 'IO-APIC', hwirq: 2, flow: 'edge', actions: ['timer'], description: 'IO-APIC   2-edge      timer',
    });
    expect(interruptOf(table, 9)).toMatchObject({ flow: 'fasteoi', actions: ['acpi'] });
  });

  test('a shared MSI has both names, spaces and all', () => {
    expect(interruptOf(table, 24)).toMatchObject({ chip: 'PCI-MSI', hwirq: 32768, actions: ['PCIe PME', 'aerdrv'] });
  });

  test("the architecture's lines have a label and no number; machine-wide ones a single count", () => {
    expect(table.lines.find(({ label }) => label === 'LOC')).toMatchObject({ irq: undefined, counts: [516, 555], total: 1071, description: 'Local timer interrupts', actions: [] });
    expect(table.lines.find(({ label }) => label === 'ERR')).toMatchObject({ counts: [0], description: '' });
  });
});

describe('parseInterrupts of forms that other kernels print', () => {
  const line = (text: string, cpus = ' CPU0 CPU2 '): unknown => parseInterrupts(`${cpus}\n${text}\n`).lines[0];

  test('the per-device MSI-X chips of 6.12, recorded', () => {
    const table = parseInterrupts(readFileSync(new URL('../fixtures/guest/interrupts-6.12.txt', import.meta.url), 'utf8'));
    expect(interruptOf(table, 25)).toMatchObject({ chip: 'PCI-MSIX-0000:00:03.0', hwirq: 0, flow: 'edge', actions: ['PCIe PME', 'aerdrv'] });
  });

  test('the vector of a per-device MSI-X chip is its hwirq', () => {
    expect(line(' 30:          0        512  PCI-MSIX-0000:01:00.0   1-edge      virtio0-requests')).toMatchObject({
      irq: 30, counts: [0, 512], chip: 'PCI-MSIX-0000:01:00.0', hwirq: 1, flow: 'edge', actions: ['virtio0-requests'],
    });
  });

  test('offline CPUs are left out, and the others keep their numbers', () => {
    expect(parseInterrupts('       CPU0       CPU2       CPU11\n').cpus).toEqual([0, 2, 11]);
  });

  test('counts of ten digits and interrupt numbers of four', () => {
    expect(line('1024: 4294967295 4294967295   PCI-MSI 1572864-edge      eth0')).toMatchObject({ irq: 1024, total: 8589934590, hwirq: 1572864 });
  });

  test("arm64's level and edge words", () => {
    expect(line(' 11:       2345         12     GICv3  27 Level     arch_timer')).toMatchObject({ chip: 'GICv3', hwirq: 27, flow: 'level', actions: ['arch_timer'] });
  });

  test('an interrupt that nobody has requested has no actions', () => {
    expect(line(' 25:          0          0   PCI-MSI 49152-edge    ')).toMatchObject({ chip: 'PCI-MSI', actions: [] });
  });

  test('a name that begins with a number', () => {
    expect(line(' 25:          0          0   PCI-MSI 49152-edge      8250 port, nvme0q1')).toMatchObject({ actions: ['8250 port', 'nvme0q1'] });
  });
});

test('any text is taken without an error', () => {
  fc.assert(fc.property(fc.string(), fc.string(), fc.nat(), (a, b, n) => {
    const table = parseInterrupts(`CPU0 CPU1${a}\n ${n}: ${n} ${b}\n${b}`);
    expect(table.lines.every(({ counts, total }) => counts.length <= table.cpus.length && total >= 0)).toBe(true);
  }));
});
