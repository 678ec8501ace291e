import { describe, expect, test } from '@jest/globals';
import { configOf, decodeHeader } from '../../src/pci/config-space.ts';
import { VIRTIO_PCI_CAP, VIRTIO_PCI_CFG_TYPE, readVirtioCapabilities, virtioDeviceId } from '../../src/pci/virtio-capabilities.ts';
import { dumpNames, lspci } from './lspci.ts';

const TYPE_OF_WORD: Record<string, number> = {
  CommonCfg: VIRTIO_PCI_CFG_TYPE.COMMON_CFG,
  Notify: VIRTIO_PCI_CFG_TYPE.NOTIFY_CFG,
  ISR: VIRTIO_PCI_CFG_TYPE.ISR_CFG,
  DeviceCfg: VIRTIO_PCI_CFG_TYPE.DEVICE_CFG,
  '<unknown>': VIRTIO_PCI_CFG_TYPE.PCI_CFG,
};

test('struct virtio_pci_cap has the offsets of the specification', () => {
  expect(Object.entries(VIRTIO_PCI_CAP.fields).map(([name, { offset, widthBytes }]) => `${name} ${offset}:${widthBytes}`)).toEqual([
    'cap_vndr 0:1', 'cap_next 1:1', 'cap_len 2:1', 'cfg_type 3:1', 'bar 4:1', 'id 5:1', 'offset 8:4', 'length 12:4',
  ]);
});

describe('readVirtioCapabilities', () => {
  test.each(dumpNames)('%s: structures are where lspci says', async (name) => {
    const { config, text } = lspci(name);
    const said = [...text.matchAll(/\[([0-9a-f]+)\] Vendor Specific Information: VirtIO: (\S+)\n\t\tBAR=(\d) offset=([0-9a-f]+) size=([0-9a-f]+)(?: multiplier=([0-9a-f]+))?/g)];
    expect(await readVirtioCapabilities(configOf(config))).toEqual(said.map(([, offset = '', word = '', bar, at = '', size = '', multiplier]) => ({
      offset: Number.parseInt(offset, 16),
      cfgType: TYPE_OF_WORD[word],
      bar: Number(bar),
      id: 0,
      structureOffset: BigInt(`0x${at}`),
      lengthBytes: BigInt(`0x${size}`),
      notifyOffMultiplier: multiplier === undefined ? undefined : Number.parseInt(multiplier, 16),
    })));
    expect(said.length > 0).toBe(name.includes('virtio') && !name.includes('legacy'));
  });

  const withCap = (at: number, bytes: number[]): Uint8Array => {
    const config = new Uint8Array(256);
    config[0x06] = 0x10;
    config[0x34] = at;
    config.set(bytes, at);
    return config;
  };

  test('a shared memory region has 64-bit offset and length, and its id', async () => {
    const bytes = [9, 0, 24, 8, 2, 7, 0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0x20, 1, 0, 0, 0, 2, 0, 0, 0];
    expect(await readVirtioCapabilities(configOf(withCap(0x40, bytes)))).toEqual([
      { offset: 0x40, cfgType: 8, bar: 2, id: 7, structureOffset: 0x1_0000_1000n, lengthBytes: 0x2_2000_0000n, notifyOffMultiplier: undefined },
    ]);
  });

  test('a capability too short to be one, or that runs out of config space, is left out', async () => {
    expect(await readVirtioCapabilities(configOf(withCap(0x40, [9, 0, 15, 1, 4])))).toEqual([]);
    expect(await readVirtioCapabilities(configOf(withCap(0xf8, [9, 0, 16, 1, 4])))).toEqual([]);
  });

  test('a Notify capability without room for its multiplier has none', async () => {
    expect(await readVirtioCapabilities(configOf(withCap(0x40, [9, 0, 16, 2, 4])))).toMatchObject([{ cfgType: 2, notifyOffMultiplier: undefined }]);
  });
});

describe('virtioDeviceId', () => {
  test.each([
    ['qemu10.0-virtio-modern', 4],
    ['qemu10.0-virtio-transitional', 4],
    ['qemu10.0-virtio-legacy', 4],
    ['qemu10.0-edu', undefined],
    ['qemu10.0-ivshmem', undefined],
    ['qemu10.0-root-port', undefined],
  ])('%s is %s', (name, id) => {
    expect(virtioDeviceId(decodeHeader(lspci(name).config))).toBe(id);
  });
});
