// AER's registers by name, out of a config space of QEMU's.
import { readFileSync } from 'node:fs';
import { expect, test } from '@jest/globals';
import { CORRECTABLE_ERRORS, decodeAer, isFatal, UNCORRECTABLE_ERRORS } from '../../src/pci/aer.ts';
import { ConfigImage } from '../../src/pci/config-image.ts';
import { parseDump } from '../../src/pci/lspci/index.ts';

test('a root port after reset has no error, QEMU\'s masks, and the fatal ones of the specification', () => {
  const [port] = parseDump(readFileSync(new URL('../fixtures/lspci/qemu10.0-root-port.txt', import.meta.url), 'utf8'));
  const config = port?.config ?? new ConfigImage(new Uint8Array());
  expect(decodeAer(config, 0x100)).toEqual({
    offset: 0x100,
    uncorrectable: { status: [], mask: ['UncorrIntErr', 'TLPBlockedErr'], severity: ['DLP', 'SDES', 'FCP', 'RxOF', 'MalfTLP', 'UncorrIntErr'] },
    correctable: { status: [], mask: ['AdvNonFatalErr', 'CorrIntErr', 'HeaderOF'] },
    firstErrorPointer: 0, headerLog: [0, 0, 0, 0],
  });
  expect(isFatal(config, 0x100, 'RxOF')).toBe(true);
  expect(isFatal(config, 0x100, 'CmpltTO')).toBe(false);
});

test('every bit of the tables is told by its own name', () => {
  for (const [names, at, part] of [[UNCORRECTABLE_ERRORS, 0x04, 'uncorrectable'], [CORRECTABLE_ERRORS, 0x10, 'correctable']] as const) {
    for (const [name, number] of Object.entries(names)) {
      const bytes = new Uint8Array(0x2c);
      new DataView(bytes.buffer).setUint32(at, 2 ** number, true);
      expect(decodeAer(new ConfigImage(bytes), 0)?.[part].status).toEqual([name]);
    }
  }
});

test('a capability that runs out of what was read is none', () => {
  expect(decodeAer(new ConfigImage(new Uint8Array(0x2b)), 0)).toBeUndefined();
});
