// Capabilities that no device of QEMU has, and CXL's with registers by chance: our rendering against the real lspci's.
// Left out is what lspci 3.13 ends at itself: reserved kinds in CXL's ranges (SIGSEGV), EA entries over the end of config space.
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeAll, expect, test } from '@jest/globals';
import { parsePciIds, type PciIds, renderLspci } from '../../../src/pci/lspci/index.ts';
import { type Chance, chanceOf, conventional, extended, type Fill, functionsOf } from './made-function.ts';
import { realLspci, userlandTree } from './real-lspci.ts';

const FUNCTIONS = 150;
const HYPERTRANSPORT_KINDS = [0x00, 0x20, 0x40, 0x80, 0x88, 0x90, 0x98, 0xa0, 0xa8, 0xb0, 0xb8, 0xc0, 0xc8, 0xd0];
const CXL_LENGTHS = [0x10, 0x14, 0x18, 0x20, 0x24, 0x28, 0x2c, 0x30, 0x38, 0x3c, 0x40];

const hyperTransportKind: Fill = (bytes, offset, chance) => {
  const kind = HYPERTRANSPORT_KINDS[chance(HYPERTRANSPORT_KINDS.length)] ?? 0;
  bytes[offset + 3] = kind | ((bytes[offset + 3] ?? 0) & (kind < 0x40 ? 0x1f : 0x07));
};

/** Up to four entries, each with as many words (4 or 6) as its two addresses can ask for. */
const fewEntries: Fill = (bytes, offset, chance) => {
  bytes[offset + 2] = chance(5);
  for (let at = offset + 4; at < 256; at += 4) bytes[at] = ((bytes[at] ?? 0) & ~7) | (4 + 2 * chance(2));
};

/** What lspci reads without a look at the length: it ends at bytes that the capability has not. */
function leastBytes(id: number, revision: number): number {
  if (id === 2) return 0x2c;
  return id === 7 ? [0x10, 0x14, 0x20, 0x20][revision] ?? 0 : 0;
}

function cxl(id: number): Fill {
  return (bytes, offset, chance) => {
    const revision = chance(4);
    const lengthBytes = Math.max(CXL_LENGTHS[chance(CXL_LENGTHS.length)] ?? 0, leastBytes(id, revision));
    bytes.set([0x98, 0x1e, revision | ((lengthBytes & 0xf) << 4), lengthBytes >> 4, id, 0], offset + 4);
    // Type, class and timeout of the two ranges: kinds that there are.
    if (id === 0) for (const at of [0x1c, 0x1d, 0x2c, 0x2d]) bytes[offset + at] = (bytes[offset + at] ?? 0) & 0x03;
  };
}

type Make = (chance: Chance) => Uint8Array;
const KINDS: [string, Make][] = [
  ['AGP', (chance) => conventional(0x02, chance)], ['PCI-X', (chance) => conventional(0x07, chance)], ['HyperTransport', (chance) => conventional(0x08, chance, hyperTransportKind)],
  ['Enhanced Allocation', (chance) => conventional(0x14, chance, fewEntries)], ['Vital Product Data', (chance) => conventional(0x03, chance)],
  ['Virtual Channel', (chance) => extended(0x02, chance)], ['Virtual Channel (9)', (chance) => extended(0x09, chance)], ['Root Complex Link', (chance) => extended(0x05, chance)],
  ['event collector', (chance) => extended(0x07, chance)], ['Multicast', (chance) => extended(0x12, chance)], ['lane margining', (chance) => extended(0x27, chance)],
  ['IDE', (chance) => extended(0x30, chance)], ['AER', (chance) => extended(0x01, chance)], ['SR-IOV', (chance) => extended(0x10, chance)], ['DPC', (chance) => extended(0x1d, chance)],
  ...[0, 2, 3, 4, 5, 6, 7, 8, 9].map((id): [string, Make] => [`CXL's DVSEC ${id}`, (chance) => extended(0x23, chance, cxl(id))]),
];

let ids: PciIds;
beforeAll(async () => {
  ids = parsePciIds(await readFile(join(await userlandTree(), 'usr/share/misc/pci.ids'), 'utf8'));
}, 120_000);

test.each(KINDS)('%s is printed byte for byte, whatever its registers hold', async (name, make) => {
  const chance = chanceOf(name.length * 7919 + 1);
  const functions = functionsOf(Array.from({ length: FUNCTIONS }, () => make(chance)));
  const dump = renderLspci(functions, { dump: 4 });
  for (const [words, verbosity] of [['-vvv', 3], ['-v', 1]] as const) {
    const [ours, real] = [renderLspci(functions, { verbosity, ids }), await realLspci(dump, [words])];
    // One function's text at a time: a difference of all of them is nothing to read.
    const [ourTexts, realTexts] = [ours.split('\n\n'), real.split('\n\n')];
    expect(realTexts).toHaveLength(FUNCTIONS + 1);
    for (const [index, text] of realTexts.entries()) expect(ourTexts[index]).toBe(text);
  }
}, 60_000);
