// The rendering against what lspci 3.13 printed of the same bytes, and against bytes by chance.
import { readFileSync } from 'node:fs';
import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { UsageError } from '../../../src/errors.ts';
import { ConfigImage } from '../../../src/pci/config-image.ts';
import { type LspciFunction, type LspciOptions, parseDump, parseIds, parsePciIds, parseSlot, renderLspci } from '../../../src/pci/lspci/index.ts';

const fixture = (name: string): string => readFileSync(new URL(`../fixtures/${name}`, import.meta.url), 'utf8');
const ids = parsePciIds(fixture('pci.ids'));
const ADDRESS = { domain: 0, bus: 0, device: 3, function: 0 };

describe('a dump is rendered byte for byte as lspci does', () => {
  const cases: [string, string, LspciOptions][] = [
    ['qemu-devices', '-vvv', { verbosity: 3 }], ['qemu-devices', '-v', { verbosity: 1 }], ['qemu-devices', '-nn', { numeric: 2 }],
    ['qemu-devices', '-mm', { machineReadable: 2 }], ['qemu-devices', '-vmm', { verbosity: 1, machineReadable: 2 }],
    ['made', '-vvv', { verbosity: 3 }], ['tree', '-t', { tree: true }], ['tree', '-tvn', { tree: true, verbosity: 1, numeric: 1 }],
  ];
  test.each(cases)('%s with %s', (name, words, options) => {
    expect(renderLspci(parseDump(fixture(`${name}.txt`)), { ...options, ids })).toBe(fixture(`${name}${words}.txt`));
  });

  test('what -xxxx writes is read back as the same bytes', () => {
    const functions = parseDump(fixture('qemu-devices.txt'));
    const whole = functions.map(({ address, config }) => ({ address, config: new ConfigImage(Uint8Array.from([...config.bytes, ...new Uint8Array(4096 - config.sizeBytes)])) }));
    const again = parseDump(renderLspci(whole, { dump: 4 }));
    expect(again.map(({ config }) => Buffer.from(config.bytes).toString('hex'))).toEqual(whole.map(({ config }) => Buffer.from(config.bytes).toString('hex')));
  });
});

describe('selection', () => {
  const functions = parseDump(fixture('tree.txt'));
  const shown = (options: LspciOptions): string[] => renderLspci(functions, options).trim().split('\n').map((line) => line.split(' ')[0] ?? '');

  test('-s takes domain, bus, device and function, each or none', () => {
    expect(shown({ selection: parseSlot('03:') })).toEqual(['03:00.0', '03:00.1']);
    expect(shown({ selection: parseSlot('0:0:2.0') })).toEqual(['00:02.0']);
    expect(shown({ selection: parseSlot('.1') })).toEqual(['03:00.1']);
  });

  test('-d takes vendor, device and class', () => {
    expect(shown({ selection: parseIds('1b36:c') })).toHaveLength(5);
    expect(shown({ selection: parseIds('::0604') })).toHaveLength(5);
    expect(shown({ selection: parseIds('8086:') })).toEqual(['']);
  });

  test.each([['-s', () => parseSlot('20')], ['-s', () => parseSlot('x')], ['-d', () => parseIds('1b36')], ['-d', () => parseIds('99999:')]])('%s refuses what is no number of its range', (_, parse) => {
    expect(parse).toThrow(UsageError);
  });
});

describe('config space by chance', () => {
  const sizes = fc.constantFrom(64, 256, 4096);
  /** A list of capabilities that have a text, their registers and their pointers to the next by chance. */
  const listed = fc.tuple(fc.constantFrom(0x02, 0x07, 0x08, 0x10, 0x11, 0x14), fc.constantFrom(0x02, 0x05, 0x07, 0x10, 0x12, 0x23, 0x30), fc.nat(9), fc.boolean(), fc.uint8Array({ minLength: 4096, maxLength: 4096 }))
    .map(([id, extendedId, cxlId, ending, bytes]) => {
      bytes[0x06] = (bytes[0x06] ?? 0) | 0x10;
      bytes.set([0x40], 0x34);
      bytes.set([0x10, 0x60], 0x40);
      bytes[0x60] = id;
      // At the very end of config space, its registers are past it.
      const [next, last] = ending ? [0xff80, 0xff8] : [0x2000, 0x200];
      for (const at of [0x100, last]) bytes.set([extendedId, 0, 1 | (next & 0xf0), next >> 8, 0x98, 0x1e], at);
      bytes.set([cxlId, 0], 0x108);
      bytes[0x0e] = cxlId & 1;
      return new ConfigImage(bytes.subarray(0, 4096));
    });
  const config = sizes.chain((size) => fc.tuple(fc.uint8Array({ minLength: size, maxLength: size }), fc.constantFrom(0, 1, 2)).map(([bytes, type]) => {
    bytes[0x06] = (bytes[0x06] ?? 0) | 0x10;
    bytes[0x0e] = type;
    return new ConfigImage(bytes);
  }));

  /** Counts the reads of a config space, and fails the test at one outside of it that was not asked for with has(). */
  class Watched extends ConfigImage {
    reads = 0;
    override u8(offset: number): number {
      this.reads += 1;
      return super.u8(offset);
    }
    override u16(offset: number): number {
      this.reads += 1;
      return super.u16(offset);
    }
    override u32(offset: number): number {
      this.reads += 1;
      return super.u32(offset);
    }
  }

  test('it is shown without an exception and with an end, whatever the verbosity', () => {
    fc.assert(fc.property(fc.oneof(config, listed), fc.constantFrom<0 | 1 | 2 | 3>(0, 1, 2, 3), fc.boolean(), ({ bytes }, verbosity, busView) => {
      const watched = new Watched(bytes);
      const text = renderLspci([{ address: ADDRESS, config: watched }], { verbosity, busView, ids });
      expect(text.startsWith('00:03.0 ')).toBe(true);
      // Every capability is looked at once, and no more than a few hundred words of it.
      expect(watched.reads).toBeLessThan(20_000);
      expect(text).not.toMatch(/undefined|NaN/);
    }), { numRuns: 800 });
  });

  test('bytes past its end have no say', () => {
    fc.assert(fc.property(fc.uint8Array({ minLength: 256, maxLength: 256 }), fc.uint8Array({ minLength: 64, maxLength: 64 }), (bytes, after) => {
      bytes[0x06] = (bytes[0x06] ?? 0) | 0x10;
      const memory = new Uint8Array([...bytes, ...after]);
      const render = (image: Uint8Array): string => renderLspci([{ address: ADDRESS, config: new ConfigImage(image) }], { verbosity: 3, ids });
      const first = render(memory.subarray(0, 256));
      memory.fill(0, 256);
      expect(render(memory.subarray(0, 256))).toBe(first);
    }), { numRuns: 100 });
  });

  test('buses and bridges by chance are a tree with an end', () => {
    const bridge = fc.tuple(fc.nat(5), fc.nat(31), fc.nat(6), fc.nat(6), fc.boolean()).map(([bus, device, secondary, subordinate, isBridge]): LspciFunction => {
      const bytes = new Uint8Array(64);
      bytes.set([0x36, 0x1b]);
      bytes[0x0e] = isBridge ? 1 : 0;
      bytes.set([bus, secondary, subordinate], 0x18);
      return { address: { domain: 0, bus, device, function: 0 }, config: new ConfigImage(bytes) };
    });
    fc.assert(fc.property(fc.array(bridge, { maxLength: 12 }), (functions) => {
      const text = renderLspci(functions, { tree: true });
      expect(text.split('\n').length).toBeLessThan(100);
    }));
  });
});

test('a list that loops is told and ends, and what follows is shown', () => {
  const bytes = new Uint8Array(256);
  bytes.set([0x86, 0x80]);
  bytes[0x06] = 0x10;
  bytes[0x34] = 0x40;
  bytes.set([0x0c, 0x50], 0x40);
  bytes.set([0x0f, 0x40], 0x50);
  const text = renderLspci([{ address: ADDRESS, config: new ConfigImage(bytes) }], { verbosity: 1, ids });
  expect(text).toContain('\tCapabilities: [40] Hot-plug capable\n\tCapabilities: [50] Secure device <?>\n\tCapabilities: [40] <chain looped>\n');
});
