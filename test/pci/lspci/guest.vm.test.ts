// Every function of a running machine, read through its guest and rendered here, against the guest's own lspci.
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { edu, ivshmem, virtioBlk, virtioRng } from '../../../src/index.ts';
import { readPciFunctions } from '../../../src/guest/pci-functions.ts';
import { boot } from '../../../src/machine/boot.ts';
import type { Machine } from '../../../src/machine/machine.ts';
import { type LspciFunction, type LspciOptions, parsePciIds, type PciIds, renderLspci } from '../../../src/pci/lspci/index.ts';
import { userlandTree } from './real-lspci.ts';

describe('a running machine with four devices plugged', () => {
  let machine: Machine;
  let functions: LspciFunction[];
  let ids: PciIds;

  beforeAll(async () => {
    machine = await boot({ qemu: '10.0', extraArgs: ['-global', 'pcie-root-port.pref64-reserve=1G', '-device', 'e1000e,romfile=', '-device', 'nvme,serial=x'] });
    for (const device of [edu(), ivshmem({ vectors: 4 }), virtioBlk({ capacityBytes: 2 ** 20 }), virtioRng()]) await machine.plug(device);
    ids = parsePciIds(await readFile(join(await userlandTree(), 'usr/share/misc/pci.ids'), 'utf8'));
    functions = await readPciFunctions(machine.guest, { modules: true });
  }, 300_000);
  afterAll(async () => { await machine?.close(); });

  const cases: [string, LspciOptions][] = [
    ['-vvv', { verbosity: 3 }], ['-vv', { verbosity: 2 }], ['-v', { verbosity: 1 }], ['', {}], ['-k', { drivers: true }], ['-vvb', { verbosity: 2, busView: true }],
    ['-nnv', { verbosity: 1, numeric: 2 }], ['-vmm', { verbosity: 1, machineReadable: 2 }], ['-vmmk', { verbosity: 1, machineReadable: 2, drivers: true }], ['-mm', { machineReadable: 2 }], ['-tv', { tree: true, verbosity: 1 }], ['-t', { tree: true }],
    ['-xxxx', { dump: 4 }], ['-xxx', { dump: 3 }], ['-x', { dump: 1 }], ['-D', { domains: true }], ['-s 01:', { selection: { bus: 1 } }],
    ['-d 1af4:', { selection: { vendorId: 0x1af4 } }],
  ];

  test('the guest has functions on every port, and conventional ones', () => {
    expect(functions.length).toBeGreaterThan(10);
    expect(functions.filter((fn) => fn.config.sizeBytes === 256).length).toBeGreaterThan(1);
    expect(functions.filter((fn) => fn.config.sizeBytes === 4096).length).toBeGreaterThan(6);
  });

  test.each(cases)('lspci %s of the guest is printed byte for byte', async (words, options) => {
    // Without aliases of modules libkmod complains on stderr.
    const { stdout } = await machine.guest.run(`lspci ${words} 2>/dev/null`, { timeoutMs: 60_000 });
    expect(renderLspci(functions, { ...options, ids })).toBe(stdout);
  }, 90_000);
});
