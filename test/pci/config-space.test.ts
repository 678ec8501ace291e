import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { ProtocolError, UsageError } from '../../src/errors.ts';
import {
  COMMAND, COMMON_HEADER, STATUS, TYPE_0_HEADER, TYPE_1_HEADER, configOf, decodeHeader, readConfigSpace, readHeader,
} from '../../src/pci/config-space.ts';
import { dumpNames, lspci } from './lspci.ts';

describe('the tables', () => {
  // Linux include/uapi/linux/pci_regs.h has the same numbers under other names.
  test('pin every offset and width of the headers', () => {
    const pins = (fields: Record<string, { offset: number; widthBytes: number }>): string =>
      Object.entries(fields).map(([name, { offset, widthBytes }]) => `${offset.toString(16)}:${widthBytes} ${name}`).join('\n');
    expect(pins(COMMON_HEADER.fields)).toBe(`0:2 vendorId
2:2 deviceId
4:2 command
6:2 status
8:1 revisionId
9:1 programmingInterface
a:1 subclass
b:1 baseClass
c:1 cacheLineSize
d:1 latencyTimer
e:1 headerType
f:1 bist
34:1 capabilitiesPointer
3c:1 interruptLine
3d:1 interruptPin`);
    expect(pins(TYPE_0_HEADER.fields)).toBe(`10:4 bar0
14:4 bar1
18:4 bar2
1c:4 bar3
20:4 bar4
24:4 bar5
28:4 cardbusCisPointer
2c:2 subsystemVendorId
2e:2 subsystemId
30:4 expansionRom
3e:1 minGrant
3f:1 maxLatency`);
    expect(pins(TYPE_1_HEADER.fields)).toBe(`10:4 bar0
14:4 bar1
18:1 primaryBus
19:1 secondaryBus
1a:1 subordinateBus
1b:1 secondaryLatencyTimer
1c:1 ioBase
1d:1 ioLimit
1e:2 secondaryStatus
20:2 memoryBase
22:2 memoryLimit
24:2 prefetchableBase
26:2 prefetchableLimit
28:4 prefetchableBaseUpper
2c:4 prefetchableLimitUpper
30:2 ioBaseUpper
32:2 ioLimitUpper
38:4 expansionRom
3e:2 bridgeControl`);
  });
});

describe('headers that lspci has read too', () => {
  test.each(dumpNames)('%s: ids, class, command, status and interrupt are what lspci says', async (name) => {
    const { text, config } = lspci(name);
    const header = await readHeader(configOf(config));
    const [, classCode, vendor, device] = /\[([0-9a-f]{4})\]: .*\[([0-9a-f]{4}):([0-9a-f]{4})\]/.exec(text) ?? [];
    expect([header.classCode >> 8, header.vendorId, header.deviceId]).toEqual([classCode, vendor, device].map((word) => Number.parseInt(word ?? '', 16)));
    expect(header.revisionId).toBe(Number.parseInt(/\(rev ([0-9a-f]+)\)/.exec(text)?.[1] ?? '0', 16));
    const flag = (bits: number, bit: number): string => ((bits & bit) !== 0 ? '+' : '-');
    const { command, status } = header;
    expect(text).toContain(`Control: I/O${flag(command, COMMAND.IO)} Mem${flag(command, COMMAND.MEMORY)} BusMaster${flag(command, COMMAND.BUS_MASTER)} `);
    expect(text).toContain(`DisINTx${flag(command, COMMAND.INTX_DISABLE)}`);
    expect(text).toContain(`SERR${flag(command, COMMAND.SERR)}`);
    expect(text).toContain(`Status: Cap${flag(status, STATUS.CAP_LIST)} `);
    expect(text).toContain(`INTx${flag(status, STATUS.INTX)}\n`);
    expect(header.interruptPin).toBe(text.includes('Interrupt: pin A') ? 1 : 0);
    const subsystem = /Subsystem: .*\[([0-9a-f]{4}):([0-9a-f]{4})\]/.exec(text);
    if (header.type === 0) expect([header.subsystemVendorId, header.subsystemId]).toEqual([1, 2].map((at) => Number.parseInt(subsystem?.[at] ?? '', 16)));
  });

  test('a root port has the buses and windows that lspci says', () => {
    const header = decodeHeader(lspci('qemu10.0-root-port').config);
    expect(header).toMatchObject({
      type: 1, primaryBus: 0, secondaryBus: 1, subordinateBus: 1, memoryBase: 0xfe80, memoryLimit: 0xfe90, prefetchableBase: 0xfd01, prefetchableLimit: 0xfd11, ioBase: 0x10, ioLimit: 0x10,
    });
  });
});

describe('what is no header', () => {
  test('all ones is a ProtocolError that says that nothing is there', () => {
    expect(() => decodeHeader(new Uint8Array(64).fill(0xff))).toThrow(ProtocolError);
  });

  test('a CardBus header is a ProtocolError that names the type', () => {
    const config = lspci('qemu10.0-edu').config.slice();
    config[0x0e] = 0x82;
    expect(() => decodeHeader(config)).toThrow('header type 2');
  });

  test('fewer than 64 bytes is a UsageError', () => {
    expect(() => decodeHeader(new Uint8Array(63))).toThrow(UsageError);
  });

  test('any 64 bytes are a header or a ProtocolError', () => {
    fc.assert(fc.property(fc.uint8Array({ minLength: 64, maxLength: 64 }), (bytes) => {
      try {
        const header = decodeHeader(bytes);
        expect(header.type).toBe((bytes[0x0e] ?? 0) & 0x7f);
        expect(header.multiFunction).toBe((bytes[0x0e] ?? 0) > 0x7f);
      } catch (error) {
        expect(error).toBeInstanceOf(ProtocolError);
      }
    }));
  });
});

describe('configOf', () => {
  test('reads every width, little-endian, and reads back whole', async () => {
    const reader = configOf(Uint8Array.of(0x12, 0x34, 0x56, 0xf8));
    expect([await reader.configRead(0, 4), await reader.configRead(2, 2), await reader.configRead(1, 1)]).toEqual([0xf8563412, 0xf856, 0x34]);
    const { config } = lspci('qemu10.0-virtio-modern');
    expect(config).toHaveLength(4096);
    expect(await readConfigSpace(configOf(config), 4096)).toEqual(config);
  });

  test('reads ones past its bytes, and refuses offsets that no bus has', async () => {
    const reader = configOf(new Uint8Array(256));
    expect([await reader.configRead(0x100, 4), await reader.configRead(0xffe, 2), await reader.configRead(0x100, 1)]).toEqual([0xffffffff, 0xffff, 0xff]);
    for (const [offset, width] of [[0x1000, 4], [2, 4], [1, 2], [-4, 4], [0.5, 1]] as const) {
      expect(() => reader.configRead(offset, width)).toThrow(UsageError);
    }
  });
});
