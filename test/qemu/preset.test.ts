import { expect, test } from '@jest/globals';
import { UsageError } from '../../src/errors.ts';
import { findPreset, pc, portIds, q35, q35Iommu, q35NativeHotplug } from '../../src/qemu/preset.ts';

test.each([q35, q35NativeHotplug, q35Iommu, pc])('%p names a machine that there is, and keeps its options', (make) => {
  expect(make({ ports: 2, cpus: 3 })).toMatchObject({ ports: 2, cpus: 3 });
  expect(findPreset(make().preset).name).toBe(make().preset);
});

test('a machine that there is not is a UsageError that lists those there are', () => {
  expect(() => findPreset('amiga')).toThrow(UsageError);
  expect(() => findPreset('amiga')).toThrow(/no machine named "amiga"\n {2}hint: the machines are q35, q35-native-hotplug, q35-iommu, pc$/);
});

test('a name that every object has is no machine', () => {
  expect(() => findPreset('constructor')).toThrow(UsageError);
});

test('ports are rp1... on PCI Express and slot1... on a conventional bus', () => {
  expect(portIds(findPreset('q35'), 3)).toEqual(['rp1', 'rp2', 'rp3']);
  expect(portIds(findPreset('pc'), 2)).toEqual(['slot1', 'slot2']);
  expect(portIds(findPreset('q35'), 0)).toEqual([]);
});

test('a conventional bus has slots for 22, below the harness\'s own card', () => {
  expect(portIds(findPreset('pc'), 22)).toHaveLength(22);
  expect(() => portIds(findPreset('pc'), 23)).toThrow(/23 do not fit onto pci\.0/);
});
