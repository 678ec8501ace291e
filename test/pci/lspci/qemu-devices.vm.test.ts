// Every PCI device that QEMU 10.0 can make without a back end: our rendering against lspci's own, on the same bytes.
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from '@jest/globals';
import { silentProgress } from '../../../src/packages/index.ts';
import { ConfigImage } from '../../../src/pci/config-image.ts';
import { type LspciFunction, type LspciOptions, parseDump, parsePciIds, type PciIds, renderLspci } from '../../../src/pci/lspci/index.ts';
import { resolveQemu } from '../../../src/qemu/find.ts';
import { configOfType, pciDeviceTypes } from './qemu-devices.ts';
import { realLspci, userlandTree } from './real-lspci.ts';

describe('every device of QEMU 10.0', () => {
  const made = new Map<string, LspciFunction>();
  let ids: PciIds;

  beforeAll(async () => {
    const qemu = await resolveQemu('10.0', silentProgress);
    for (const type of await pciDeviceTypes(qemu)) {
      const bytes = await configOfType(qemu, type);
      if (bytes === undefined) continue;
      const index = made.size;
      made.set(type, { address: { domain: 0, bus: index >> 5, device: index & 31, function: 0 }, config: new ConfigImage(bytes) });
    }
    ids = parsePciIds(await readFile(join(await userlandTree(), 'usr/share/misc/pci.ids'), 'utf8'));
  }, 300_000);

  test('more than a hundred can be made', () => {
    expect(made.size).toBeGreaterThan(100);
    expect([...made.keys()]).toEqual(expect.arrayContaining(['edu', 'igb', 'nvme', 'pcie-root-port', 'virtio-net-pci', 'AMDVI-PCI', 'cxl-downstream', 'cxl-rp', 'cxl-upstream']));
  });

  const cases: [string, LspciOptions][] = [
    ['-vvv', { verbosity: 3 }], ['-v', { verbosity: 1 }], ['-nnvv', { numeric: 2, verbosity: 2 }], ['-vvvn', { numeric: 1, verbosity: 3 }], ['-mm', { machineReadable: 2 }],
    ['-t', { tree: true }], ['-xxxx', { dump: 4 }],
  ];
  test.each(cases)('lspci %s of them is printed byte for byte', async (words, options) => {
    const dump = renderLspci([...made.values()], { dump: 4 });
    expect(renderLspci(parseDump(dump), { ...options, ids })).toBe(await realLspci(dump, [words]));
  });
});
