// Against what `info mtree` of two QEMUs said of a q35 with edu in rp1 and virtio-rng in rp2.
import { readFileSync } from 'node:fs';
import { describe, expect, test } from '@jest/globals';
import { parseMemoryTrees, regionsAt } from '../../src/qemu/memory-tree.ts';

describe.each(['10.0', '7.2'])('info mtree of QEMU %s', (version) => {
  const text = readFileSync(new URL(`../fixtures/hmp/qemu${version}-info-mtree.txt`, import.meta.url), 'utf8');
  const trees = parseMemoryTrees(text);
  const at = (space: string, address: number): [string, bigint, bigint][] =>
    regionsAt(trees, space, BigInt(address)).map(({ name, start, sizeBytes }) => [name, start, sizeBytes]);
  const edu = Number.parseInt(/([0-9a-f]{16})-[0-9a-f]{16} \(prio 1, i\/o\): edu-mmio/.exec(text)?.[1] ?? '', 16);
  const msix = Number.parseInt(/([0-9a-f]{16})-[0-9a-f]{16} \(prio 1, i\/o\): vhost-user-rng-pci-msix/.exec(text)?.[1] ?? '', 16);

  test('a BAR behind a bridge is reached through the bridge\'s window', () => {
    expect(at('memory', edu)).toEqual([['edu-mmio', BigInt(edu), 0x100000n]]);
    expect(at('memory', edu + 0xfffff)).toEqual([['edu-mmio', BigInt(edu), 0x100000n]]);
    expect(at('memory', edu + 0x100000)).toEqual([]);
  });

  test('a BAR that is a container shows itself and what lies in it, and itself in its holes', () => {
    expect(at('memory', msix + 8)).toEqual([['vhost-user-rng-pci-msix', BigInt(msix), 0x1000n], ['msix-table', BigInt(msix), 0x20n]]);
    expect(at('memory', msix + 0x400)).toEqual([['vhost-user-rng-pci-msix', BigInt(msix), 0x1000n]]);
  });

  test('RAM hides what has a lower priority, and ports have a space of their own', () => {
    expect(at('memory', 0x200000)[0]?.[0]).toBe('ram');
    expect(at('I/O', 0x3f9)).toEqual([['serial', 0x3f8n, 8n]]);
    expect(at('I/O', 0x200)).toEqual([]);
    expect(at('memory', 0x3f9)[0]?.[0]).toBe('ram');
    expect(at('nonsense', 0)).toEqual([]);
  });
});

test('an alias that leads back to itself ends', () => {
  const trees = parseMemoryTrees([
    'address-space: memory', '  0000000000000000-00000000000000ff (prio 0, i/o): a',
    '    0000000000000000-00000000000000ff (prio 0, i/o): alias loop @a 0000000000000000-00000000000000ff', '',
  ].join('\n'));
  expect(regionsAt(trees, 'memory', 0n).length).toBeLessThan(20);
});
