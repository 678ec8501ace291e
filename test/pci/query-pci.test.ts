import { readFileSync } from 'node:fs';
import { describe, expect, test } from '@jest/globals';
import { barOfRegion, findByAddress, findByQdevId, functionsOf } from '../../src/pci/query-pci.ts';
import type { QueryPciBus } from '../../src/pci/query-pci.ts';
import { lspci } from './lspci.ts';

const buses = JSON.parse(readFileSync(new URL('../fixtures/qmp/qemu10.0-query-pci.json', import.meta.url), 'utf8')) as QueryPciBus[];

describe('the query-pci answer of QEMU 10.0', () => {
  test('functions behind ports are found, each once', () => {
    const functions = functionsOf(buses);
    expect(new Set(functions.map(({ bus, slot, function: fn }) => `${bus}:${slot}.${fn}`)).size).toBe(functions.length);
    expect(functions.length).toBe(readFileSync(new URL('../fixtures/qmp/qemu10.0-query-pci.json', import.meta.url), 'utf8').match(/"qdev_id"/g)?.length);
  });

  test('the device id of -device and the guest address find the same function', () => {
    const edu = findByQdevId(buses, 'd0');
    expect(edu).toMatchObject({ bus: 1, slot: 0, function: 0, id: { vendor: 0x1234, device: 0x11e8 } });
    expect(findByAddress(buses, { bus: 1, slot: 0, function: 0 })).toBe(edu);
    expect(findByQdevId(buses, 'nothere')).toBeUndefined();
    expect(findByAddress(buses, { bus: 250, slot: 0, function: 0 })).toBeUndefined();
  });

  test.each([['d0', 'qemu10.0-edu'], ['d1', 'qemu10.0-virtio-modern'], ['d3', 'qemu10.0-ivshmem']])('the BARs of %s are those that lspci saw in the guest', (id, name) => {
    expect(findByQdevId(buses, id)?.regions.map(barOfRegion)).toEqual(lspci(name).regions);
  });

  test('an I/O region has no memory words, and one that is off has no address', () => {
    expect(barOfRegion({ bar: 0, type: 'io', address: 0xe000, size: 32 })).toEqual({ index: 0, kind: 'io', prefetchable: false, address: 0xe000n, sizeBytes: 32n });
    expect(barOfRegion({ bar: 4, type: 'memory', address: -1, size: 16384, prefetch: true, mem_type_64: true })).toMatchObject({ kind: 'mem64', address: undefined });
  });
});
