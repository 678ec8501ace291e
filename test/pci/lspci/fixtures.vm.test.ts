// Every dump of test/fixtures/lspci, as a guest's lspci wrote it: our rendering of its bytes against the real lspci's.
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from '@jest/globals';
import { type LspciOptions, parseDump, parsePciIds, type PciIds, renderLspci } from '../../../src/pci/lspci/index.ts';
import { dumpNames, lspci } from '../lspci.ts';
import { realLspci, userlandTree } from './real-lspci.ts';

let ids: PciIds;
beforeAll(async () => {
  ids = parsePciIds(await readFile(join(await userlandTree(), 'usr/share/misc/pci.ids'), 'utf8'));
}, 120_000);

test('there are dumps of both QEMUs, of every device that FACTS were taken from', () => {
  expect(dumpNames.length).toBeGreaterThanOrEqual(13);
  expect(dumpNames).toEqual(expect.arrayContaining(['qemu10.0-edu', 'qemu10.0-ivshmem', 'qemu7.2-root-port', 'qemu10.0-virtio-transitional']));
});

describe.each(dumpNames)('%s', (name) => {
  const cases: [string, LspciOptions][] = [
    ['-vvv', { verbosity: 3 }], ['-v', { verbosity: 1 }], ['-nnvv', { numeric: 2, verbosity: 2 }], ['-vvb', { verbosity: 2, busView: true }],
    ['-xxxx', { dump: 4 }], ['-vmm', { verbosity: 1, machineReadable: 2 }], ['-tv', { tree: true, verbosity: 1 }],
  ];
  test.each(cases)('%s is what lspci prints of the same bytes', async (words, options) => {
    const { text } = lspci(name);
    expect(renderLspci(parseDump(text), { ...options, ids })).toBe(await realLspci(text, [words]));
  });
});
