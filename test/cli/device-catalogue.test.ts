import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import { deviceByName, DEVICES } from '../../src/cli/device-catalogue.ts';
import type { VirtioGpio } from '../../src/devices/virtio-gpio/index.ts';
import type { VirtioI2c } from '../../src/devices/virtio-i2c/index.ts';
import type { VirtioInput } from '../../src/devices/virtio-input/index.ts';
import { UsageError } from '../../src/errors.ts';

test.each(Object.keys(DEVICES))('%s alone makes the device of that kind', (name) => {
  expect(deviceByName(name).kind).toBe(name);
});

test('options of a disk reach it', () => {
  expect(deviceByName('virtio-blk:queues=4,capacity=8M,serial=a=b:c,queue-size=256,latency-ms=5'))
    .toMatchObject({ queues: 4, capacityBytes: 8 * 2 ** 20, serial: 'a=b:c' });
});

test.each([['512', 512], ['4k', 4096], ['1G', 2 ** 30]])('a capacity of %s is %i bytes', (text, bytes) => {
  expect(deviceByName(`virtio-blk:capacity=${text}`)).toMatchObject({ capacityBytes: bytes });
});

test('a disk with a file has the file\'s size, one without 64 MiB', () => {
  const directory = mkdtempSync(join(tmpdir(), 'cli-catalogue-'));
  try {
    writeFileSync(join(directory, 'disk'), Buffer.alloc(1536));
    expect(deviceByName(`virtio-blk:file=${join(directory, 'disk')},readonly`)).toMatchObject({ capacityBytes: 1536 });
    expect(deviceByName('virtio-blk')).toMatchObject({ capacityBytes: 64 * 2 ** 20 });
  } finally {
    rmSync(directory, { recursive: true });
  }
});

test('options of a network card reach it', () => {
  expect(deviceByName('virtio-net:queue-pairs=2,mac=52:54:00:00:00:01,mtu=1400,peer=192.0.2.1,queue-size=512,latency-ms=1'))
    .toMatchObject({ queuePairs: 2, mac: '52:54:00:00:00:01', peer: { ipv4: '192.0.2.1' } });
});

test('vectors of ivshmem reach it', () => {
  expect(deviceByName('ivshmem:vectors=16,shared=2M')).toMatchObject({ vectors: 16 });
});

test('options of the other virtio devices reach them', () => {
  expect(deviceByName('virtio-vsock:cid=77,buffer=4k')).toMatchObject({ guestCid: 77 });
  const gpio = deviceByName('virtio-gpio:lines=3') as VirtioGpio;
  expect(gpio.line(2).index).toBe(2);
  expect(() => gpio.line(3)).toThrow('no line 3');
  expect(() => (deviceByName('virtio-input:kind=mouse') as VirtioInput).key('KEY_A')).toThrow('has no KEY_A');
  expect((deviceByName('virtio-i2c:eeprom=4k') as VirtioI2c).targets.get(0x50)).toMatchObject({ bytes: { length: 4096 } });
});

test.each([
  ['virtio-input:kind=piano', 'there is no kind "piano"'], ['virtio-vsock:cid=2', 'context id 2'],
  ['nope', 'there is no device named "nope"'], ['', 'there is no device named ""'], ['toString', 'there is no device named "toString"'],
  ['edu:x=1', 'edu has no option "x"'], ['virtio-blk:toString=1', 'virtio-blk has no option "toString"'],
  ['virtio-blk:queues', 'virtio-blk: queues: "" is not a number'], ['virtio-blk:queues=-1', 'queues: "-1" is not a number'],
  ['virtio-blk:capacity=64X', 'capacity: "64X" is not a size'], ['virtio-blk:readonly=maybe', 'readonly: "maybe" is not on or off'],
  ['virtio-blk:capacity=100', 'not a positive multiple of 512'], ['ivshmem:vectors=4000', '4000 vectors asked for'],
])('%s is a UsageError', (text, message) => {
  expect(() => deviceByName(text)).toThrow(UsageError);
  expect(() => deviceByName(text)).toThrow(message);
});
