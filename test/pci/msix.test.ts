import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { UsageError } from '../../src/errors.ts';
import { configOf } from '../../src/pci/config-space.ts';
import { readMsiCapability } from '../../src/pci/msi.ts';
import {
  MSIX_TABLE_ENTRY, decodeMsixCapability, decodeMsixEntry, encodeMsixEntry, maskMsixVector, msixPbaBytes, msixTableBytes, readMsixCapability,
  readMsixEntry, readMsixPending, readMsixPendings, writeMsixControl, writeMsixEntry,
} from '../../src/pci/msix.ts';
import type { MsixCapability } from '../../src/pci/msix.ts';
import { dumpNames, lspci } from './lspci.ts';
import { SimulatedFunction } from './simulated-function.ts';

describe('capabilities that lspci has read too', () => {
  test.each(dumpNames)('%s: MSI-X is what lspci says, or not there', async (name) => {
    const { text, config } = lspci(name);
    const said = /\[([0-9a-f]+)\] MSI-X: Enable([+-]) Count=(\d+) Masked([+-])\n\t\tVector table: BAR=(\d) offset=([0-9a-f]+)\n\t\tPBA: BAR=(\d) offset=([0-9a-f]+)/.exec(text);
    const expected = said === null ? undefined : {
      offset: Number.parseInt(said[1] ?? '', 16),
      enabled: said[2] === '+',
      tableSize: Number(said[3]),
      functionMasked: said[4] === '+',
      tableBar: Number(said[5]),
      tableOffset: Number.parseInt(said[6] ?? '', 16),
      pbaBar: Number(said[7]),
      pbaOffset: Number.parseInt(said[8] ?? '', 16),
    };
    expect(await readMsixCapability(configOf(config))).toEqual(expected);
  });

  test.each(dumpNames)('%s: MSI is what lspci says, or not there', async (name) => {
    const { text, config } = lspci(name);
    const said = /\[([0-9a-f]+)\] MSI: Enable([+-]) Count=(\d+)\/(\d+) Maskable([+-]) 64bit([+-])\n\t\tAddress: ([0-9a-f]+) {2}Data: ([0-9a-f]+)/.exec(text);
    const msi = await readMsiCapability(configOf(config));
    if (said === null) return expect(msi).toBeUndefined();
    return expect(msi).toEqual({
      offset: Number.parseInt(said[1] ?? '', 16),
      enabled: said[2] === '+',
      vectorsEnabled: Number(said[3]),
      vectorsRequested: Number(said[4]),
      maskable: said[5] === '+',
      is64Bit: said[6] === '+',
      address: BigInt(`0x${said[7] ?? ''}`),
      data: Number.parseInt(said[8] ?? '', 16),
      mask: undefined,
      pending: undefined,
    });
  });
});

describe('MSI that QEMU has in no fixture', () => {
  const config = (control: number, words: number[]): Uint8Array => {
    const bytes = new Uint8Array(256);
    const view = new DataView(bytes.buffer);
    bytes[0x06] = 0x10;
    bytes[0x34] = 0x50;
    bytes[0x50] = 0x05;
    view.setUint16(0x52, control, true);
    for (const [at, word] of words.entries()) view.setUint32(0x54 + 4 * at, word, true);
    return bytes;
  };

  test('64-bit and maskable: address, data, mask and pending lie one after the other', async () => {
    expect(await readMsiCapability(configOf(config(0x01ab, [0xfee00000, 1, 0x4021, 0x5, 0xa])))).toEqual({
      offset: 0x50, enabled: true, vectorsRequested: 32, vectorsEnabled: 4, is64Bit: true, maskable: true, address: 0x1fee00000n, data: 0x4021, mask: 5, pending: 0xa,
    });
  });

  test('32-bit and maskable: no upper address word', async () => {
    expect(await readMsiCapability(configOf(config(0x0100, [0xfee00000, 0x4021, 0x5, 0xa])))).toMatchObject({ is64Bit: false, address: 0xfee00000n, data: 0x4021, mask: 5, pending: 0xa });
  });
});

describe('the capability', () => {
  test('a table size field of 2047 is 2048 vectors, with a table of 32 KiB and a PBA of 256 bytes', () => {
    const capability = decodeMsixCapability(0x40, 0xc7ff, 0xffff8005, 0x00010002);
    expect(capability).toEqual({ offset: 0x40, tableSize: 2048, enabled: true, functionMasked: true, tableBar: 5, tableOffset: 0xffff8000, pbaBar: 2, pbaOffset: 0x10000 });
    expect(msixTableBytes(capability)).toBe(32768);
    expect(msixPbaBytes(capability)).toBe(256);
    expect(msixPbaBytes({ ...capability, tableSize: 65 })).toBe(16);
  });
});

describe('the table entry', () => {
  test('has its four words where the specification says', () => {
    expect(encodeMsixEntry({ address: 0x1_fee0_1004n, data: 0x4021, masked: true })).toEqual(Uint8Array.of(0x04, 0x10, 0xe0, 0xfe, 1, 0, 0, 0, 0x21, 0x40, 0, 0, 1, 0, 0, 0));
    expect(MSIX_TABLE_ENTRY.sizeBytes).toBe(16);
  });

  test('comes back from its bytes as it was', () => {
    const entry = fc.record({ address: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }), data: fc.nat(0xffffffff), masked: fc.boolean() });
    fc.assert(fc.property(entry, (value) => expect(decodeMsixEntry(encodeMsixEntry(value))).toEqual(value)));
  });
});

describe('through PciAccess', () => {
  const at = async (): Promise<{ fn: SimulatedFunction; msix: MsixCapability }> => {
    const fn = new SimulatedFunction(lspci('qemu10.0-ivshmem'));
    const msix = await readMsixCapability(fn);
    if (msix === undefined) throw new Error('ivshmem has MSI-X');
    return { fn, msix };
  };

  test('an entry is written masked first and unmasked last, in words, and read back', async () => {
    const { fn, msix } = await at();
    const entry = { address: 0x1_fee0_0000n, data: 0x41, masked: false };
    await writeMsixEntry(fn, msix, 3, entry);
    expect(fn.writes).toEqual(['bar1+3c/4=1', 'bar1+30/4=fee00000', 'bar1+34/4=1', 'bar1+38/4=41', 'bar1+3c/4=0']);
    expect(await readMsixEntry(fn, msix, 3)).toEqual(entry);
    await writeMsixEntry(fn, msix, 3, { ...entry, masked: true });
    expect(await readMsixEntry(fn, msix, 3)).toEqual({ ...entry, masked: true });
  });

  test('masking sets the one bit and keeps the reserved ones', async () => {
    const { fn, msix } = await at();
    new DataView(fn.memory(1).buffer).setUint32(0x7c, 0xabcd0000, true);
    await maskMsixVector(fn, msix, 7, true);
    expect(new DataView(fn.memory(1).buffer).getUint32(0x7c, true)).toBe(0xabcd0001);
    await maskMsixVector(fn, msix, 7, false);
    expect(new DataView(fn.memory(1).buffer).getUint32(0x7c, true)).toBe(0xabcd0000);
  });

  test('pending bits are those of the vectors, over word limits', async () => {
    const { fn, msix } = await at();
    const wide = { ...msix, tableSize: 70 };
    const pba = new DataView(fn.memory(1).buffer, msix.pbaOffset);
    pba.setUint32(0, 0x80000001, true);
    pba.setUint32(4, 0x00000002, true);
    pba.setUint32(8, 0xffffffc0, true);
    expect(await readMsixPendings(fn, wide)).toEqual([0, 31, 33]);
    expect(await readMsixPending(fn, wide, 31)).toBe(true);
    expect(await readMsixPending(fn, wide, 32)).toBe(false);
    expect(await readMsixPending(fn, wide, 33)).toBe(true);
  });

  test('Enable and Function Mask are set in Message Control', async () => {
    const { fn, msix } = await at();
    await writeMsixControl(fn, msix, { enabled: true, functionMasked: false });
    await writeMsixControl(fn, msix, { enabled: true, functionMasked: true });
    expect(fn.writes).toEqual(['42/2=8000', '42/2=c000']);
  });

  test('a vector that the table does not have is a UsageError', async () => {
    const { fn, msix } = await at();
    for (const vector of [8, -1, 1.5]) {
      await expect(readMsixEntry(fn, msix, vector)).rejects.toBeInstanceOf(UsageError);
      await expect(readMsixPending(fn, msix, vector)).rejects.toThrow('vectors 0 to 7');
    }
    expect(fn.writes).toEqual([]);
  });
});
