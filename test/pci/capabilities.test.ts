import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { ProtocolError } from '../../src/errors.ts';
import { CAPABILITY_ID, EXTENDED_CAPABILITY_ID, checkExtent, findCapability, readCapabilities, readExtendedCapabilities } from '../../src/pci/capabilities.ts';
import { configOf } from '../../src/pci/config-space.ts';
import { readMsiCapability } from '../../src/pci/msi.ts';
import { readMsixCapability } from '../../src/pci/msix.ts';
import { readPcieCapability } from '../../src/pci/pcie.ts';
import { readVirtioCapabilities } from '../../src/pci/virtio-capabilities.ts';
import { dumpNames, lspci } from './lspci.ts';

describe('lists that lspci has walked too', () => {
  test.each(dumpNames)('%s: offsets, order and versions are what lspci says', async (name) => {
    const { config, capabilities, extended } = lspci(name);
    const standard = await readCapabilities(configOf(config));
    expect(standard.problems).toEqual([]);
    expect(standard.capabilities.map(({ offset }) => offset)).toEqual(capabilities);
    const long = await readExtendedCapabilities(configOf(config));
    expect(long.problems).toEqual([]);
    expect(long.capabilities.map(({ offset, version }) => ({ offset, version }))).toEqual(extended);
  });

  test('ids are those of the specification', async () => {
    const reader = configOf(lspci('qemu10.0-root-port').config);
    const standard = await readCapabilities(reader);
    expect(standard.capabilities.map(({ id }) => id)).toEqual([CAPABILITY_ID.PCI_EXPRESS, CAPABILITY_ID.MSI_X, CAPABILITY_ID.BRIDGE_SUBSYSTEM]);
    const long = await readExtendedCapabilities(reader);
    expect(long.capabilities.map(({ id }) => id)).toEqual([EXTENDED_CAPABILITY_ID.ADVANCED_ERROR_REPORTING, EXTENDED_CAPABILITY_ID.ACCESS_CONTROL_SERVICES]);
    expect(findCapability(standard, CAPABILITY_ID.MSI_X)?.offset).toBe(0x48);
    expect(findCapability(standard, CAPABILITY_ID.MSI)).toBeUndefined();
  });
});

/** A config space with STATUS.CAP_LIST and these bytes. */
function configWith(bytes: Record<number, number>, length = 256): Uint8Array {
  const config = new Uint8Array(length);
  config[0x06] = 0x10;
  for (const [at, value] of Object.entries(bytes)) config[Number(at)] = value;
  return config;
}

describe('lists that a broken device shows', () => {
  test('a loop ends the walk after each capability once, and is told', async () => {
    const list = await readCapabilities(configOf(configWith({ 0x34: 0x40, 0x40: 0x01, 0x41: 0x50, 0x50: 0x05, 0x51: 0x40 })));
    expect(list.capabilities.map(({ offset }) => offset)).toEqual([0x40, 0x50]);
    expect(list.problems).toEqual(['the pointer at 0x50 leads back to 0x40: the list is a loop']);
  });

  test('a pointer into the header is told, and what came before it is kept', async () => {
    const list = await readCapabilities(configOf(configWith({ 0x34: 0x40, 0x40: 0x01, 0x41: 0x10 })));
    expect(list.capabilities).toHaveLength(1);
    expect(list.problems).toEqual(["the pointer at 0x40 leads to 0x10, outside of the list's space"]);
  });

  test('a first pointer into the header is told', async () => {
    expect((await readCapabilities(configOf(configWith({ 0x34: 0x3c })))).problems).toEqual(["the first pointer leads to 0x3c, outside of the list's space"]);
  });

  test('a capability that reads all ones ends the walk, as when the device goes away', async () => {
    const list = await readCapabilities(configOf(configWith({ 0x34: 0x40, 0x40: 0xff, 0x41: 0xff })));
    expect(list).toEqual({ capabilities: [], problems: ['the first pointer leads to 0x40, which reads all ones'] });
  });

  test('the reserved low bits of a pointer are masked', async () => {
    const list = await readCapabilities(configOf(configWith({ 0x34: 0x43, 0x40: 0x01, 0x41: 0x52, 0x50: 0x05 })));
    expect(list.capabilities.map(({ offset }) => offset)).toEqual([0x40, 0x50]);
    expect(list.problems).toEqual([]);
  });

  test('without STATUS.CAP_LIST the pointer is not followed', async () => {
    const config = configWith({ 0x34: 0x40, 0x40: 0x01 });
    config[0x06] = 0;
    expect(await readCapabilities(configOf(config))).toEqual({ capabilities: [], problems: [] });
  });

  test('an extended list that loops or points below 0x100 is told', async () => {
    const loop = configWith({ 0x100: 1, 0x102: 0x02, 0x103: 0x10 }, 4096);
    expect((await readExtendedCapabilities(configOf(loop))).problems).toEqual(['the pointer at 0x100 leads back to 0x100: the list is a loop']);
    const below = configWith({ 0x100: 1, 0x102: 0x02, 0x103: 0x04 }, 4096);
    expect((await readExtendedCapabilities(configOf(below))).problems).toEqual(["the pointer at 0x100 leads to 0x40, outside of the list's space"]);
  });

  test('an empty extended list, and the ones of conventional PCI, are no list', async () => {
    expect(await readExtendedCapabilities(configOf(new Uint8Array(4096)))).toEqual({ capabilities: [], problems: [] });
    expect(await readExtendedCapabilities(configOf(new Uint8Array(256)))).toEqual({ capabilities: [], problems: [] });
  });

  test('a capability that runs out of config space is a ProtocolError', async () => {
    expect(() => checkExtent({ id: 0x11, offset: 0xf8, next: 0, version: 0 }, 12)).toThrow(ProtocolError);
    expect(() => checkExtent({ id: 0x11, offset: 0xf4, next: 0, version: 0 }, 12)).not.toThrow();
    await expect(readMsixCapability(configOf(configWith({ 0x34: 0xf8, 0xf8: 0x11 })))).rejects.toThrow('capability 0x11 at 0xf8 needs 12 bytes');
  });

  test('any config space is walked to an end, without an error other than ProtocolError', async () => {
    const space = fc.uint8Array({ minLength: 256, maxLength: 256 }).map((bytes) => {
      bytes[0x06] = (bytes[0x06] ?? 0) | 0x10;
      return bytes;
    });
    // A chain of plausible ids at any offset reaches the decoders oftener than noise does.
    const chain = fc.tuple(space, fc.array(fc.record({ at: fc.integer({ min: 0x10, max: 0x3f }), id: fc.constantFrom(5, 9, 0x10, 0x11) }), { minLength: 1, maxLength: 12 })).map(([bytes, links]) => {
      let pointer = 0x34;
      for (const { at, id } of links) {
        bytes[pointer] = at * 4;
        bytes[at * 4] = id;
        pointer = at * 4 + 1;
      }
      return bytes;
    });
    await fc.assert(fc.asyncProperty(fc.oneof(space, chain), async (bytes) => {
      const reader = configOf(bytes);
      const list = await readCapabilities(reader);
      expect(list.capabilities.length).toBeLessThanOrEqual(48);
      for (const read of [readMsiCapability, readMsixCapability, readPcieCapability, readVirtioCapabilities]) {
        await read(reader).catch((error: unknown) => expect(error).toBeInstanceOf(ProtocolError));
      }
    }));
    const noise = fc.array(fc.integer({ min: 0, max: 0xffffffff }), { minLength: 960, maxLength: 960 });
    await fc.assert(fc.asyncProperty(noise, async (words) => {
      const config = new Uint8Array(4096);
      new Uint32Array(config.buffer, 256).set(words);
      expect((await readExtendedCapabilities(configOf(config))).capabilities.length).toBeLessThanOrEqual(960);
    }), { numRuns: 20 });
  });
});
