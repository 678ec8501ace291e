import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { UsageError } from '../../../src/errors.ts';
import { VirtioI2cDevice, type I2cTransfer } from '../../../src/devices/virtio-i2c/device.ts';
import { i2cEeprom, virtioI2c, type I2cTarget } from '../../../src/devices/virtio-i2c/index.ts';
import { i2cOutHeader } from '../../../src/devices/virtio-i2c/layout.ts';
import { MockDriver } from '../../virtio/mock-driver.ts';

const [FAIL_NEXT, M_RD] = [1, 2];

function setUp(targets: Readonly<Record<number, I2cTarget>> = {}) {
  const log: string[] = [];
  const transfers: I2cTransfer[] = [];
  const device = new VirtioI2cDevice({
    targets: new Map(Object.entries(targets).map(([address, target]) => [Number(address), target])),
    log: (line) => log.push(line), onTransfer: (transfer) => transfers.push(transfer),
  });
  const driver = new MockDriver({ size: 16 });
  const queue = driver.queue();
  driver.onKick = () => device.process(0, queue);
  const head = (address: number, flags: number): Uint8Array => i2cOutHeader.encode({ addr: address << 1, flags });
  const status = (): number[] => driver.collect().map(({ written }) => written.at(-1) ?? -1);
  return {
    device, driver, log, transfers, head, status,
    write: (address: number, bytes: number[], flags = 0) => driver.submit([head(address, flags), ...(bytes.length > 0 ? [Uint8Array.from(bytes)] : [])], [1]),
    read: (address: number, lengthBytes: number, flags = 0) => driver.submit([head(address, flags | M_RD)], [...(lengthBytes > 0 ? [lengthBytes] : []), 1]),
  };
}

describe('the I2C adapter', () => {
  test('writes to and reads from the target at the address, and says what went over the bus', () => {
    const { driver, write, read, transfers } = setUp({ 0x50: i2cEeprom() });
    write(0x50, [3, 0xaa, 0xbb]);
    write(0x50, [3], FAIL_NEXT);
    read(0x50, 3);
    expect(driver.collect().map(({ len, written }) => [len, ...written])).toEqual([[1, 0], [1, 0], [4, 0xaa, 0xbb, 0xff, 0]]);
    expect(transfers.map(({ direction, bytes }) => [direction, ...bytes])).toEqual([['write', 3, 0xaa, 0xbb], ['write', 3], ['read', 0xaa, 0xbb, 0xff]]);
  });

  test('asks a target without data whether it is there', () => {
    const { write, read, status } = setUp({ 0x50: i2cEeprom() });
    write(0x50, []);
    write(0x51, []);
    read(0x50, 0);
    expect(status()).toEqual([0, 1, 0]);
  });

  test('fails a group from its first failure to its end, and no further', () => {
    const { write, read, status, transfers } = setUp({ 0x50: i2cEeprom() });
    write(0x51, [1], FAIL_NEXT);
    write(0x50, [1], FAIL_NEXT);
    read(0x50, 1);
    read(0x50, 1);
    expect(status()).toEqual([1, 1, 1, 0]);
    expect(transfers.map(({ acknowledged }) => acknowledged)).toEqual([false, false, false, true]);
  });

  test('a reset ends a group that was failing', () => {
    const { device, write, read, status } = setUp({ 0x50: i2cEeprom() });
    write(0x51, [1], FAIL_NEXT);
    device.reset();
    read(0x50, 1);
    expect(status()).toEqual([1, 0]);
  });

  test('a target that throws, or gives another length, fails its request alone', () => {
    const wrong: I2cTarget = { write: () => { throw new Error('no'); }, read: () => new Uint8Array(9) };
    const { write, read, status, log } = setUp({ 0x20: wrong, 0x50: i2cEeprom() });
    write(0x20, [1]);
    read(0x20, 2);
    read(0x50, 2);
    expect(status()).toEqual([1, 1, 0]);
    expect(log).toEqual([expect.stringContaining('at 0x20 failed: Error: no'), expect.stringContaining('9 of 2 bytes')]);
  });

  test.each([
    ['a 10-bit address', i2cOutHeader.encode({ addr: 0x100 }), [], [1]],
    ['the bit for the direction in the address', i2cOutHeader.encode({ addr: 0xa1 }), [], [1]],
    ['a write with a part to read into', i2cOutHeader.encode({ addr: 0xa0 }), [], [4, 1]],
    ['a read with bytes to write', i2cOutHeader.encode({ addr: 0xa0, flags: M_RD }), [new Uint8Array(2)], [1]],
    ['more bytes than a message can have', i2cOutHeader.encode({ addr: 0xa0, flags: M_RD }), [], [65_536, 1]],
  ])('fails a request with %s', (_, head, more, writable) => {
    const { driver, status, log } = setUp({ 0x50: i2cEeprom() });
    driver.submit([head, ...more], writable);
    expect(status()).toEqual([1]);
    expect(log).toHaveLength(1);
  });

  test.each([['a short header', [new Uint8Array(7)], [1]], ['no place for a status', [new Uint8Array(8)], []]])('breaks on %s', (_, readable, writable) => {
    const { driver } = setUp();
    driver.submit(readable, writable);
    expect(driver.failures.map(({ message }) => message)).toEqual([expect.stringContaining('5.16.6')]);
    expect(driver.collect()).toEqual([]);
  });

  test('answers any request with a header and a status, and writes nowhere else', () => {
    fc.assert(fc.property(fc.uint8Array({ minLength: 8, maxLength: 40 }), fc.integer({ min: 1, max: 300 }), (readable, writable) => {
      const { driver, status } = setUp({ 0x50: i2cEeprom() });
      driver.submit([readable], [writable]);
      expect([0, 1]).toContain(status()[0]);
      expect(driver.memory.guardsIntact()).toBe(true);
    }));
  });
});

describe('the EEPROM', () => {
  test('wraps a write within its page, and a read at its end', () => {
    const eeprom = i2cEeprom({ sizeBytes: 16, pageBytes: 4 });
    expect(eeprom.write(Uint8Array.of(6, 1, 2, 3))).toBe(true);
    expect([...eeprom.bytes.subarray(4, 8)]).toEqual([3, 0xff, 1, 2]);
    eeprom.write(Uint8Array.of(15));
    eeprom.bytes[15] = 9;
    eeprom.bytes[0] = 8;
    expect([...eeprom.read(2) ?? []]).toEqual([9, 8]);
  });

  test('has addresses of two bytes when it is larger than 256, and refuses writes when it is read-only', () => {
    const eeprom = i2cEeprom({ sizeBytes: 4096, pageBytes: 32 });
    eeprom.write(Uint8Array.of(2, 1, 77));
    expect(eeprom.bytes[513]).toBe(77);
    const rom = i2cEeprom({ readOnly: true });
    expect([rom.write(Uint8Array.of(1)), rom.write(Uint8Array.of(1, 2)), rom.bytes[1]]).toEqual([true, false, 0xff]);
  });

  test('of no power of two is a UsageError, and so is an address of 8 bits', () => {
    expect(() => i2cEeprom({ sizeBytes: 100 })).toThrow(UsageError);
    expect(() => i2cEeprom({ pageBytes: 512 })).toThrow(UsageError);
    expect(() => virtioI2c({ targets: { 0x80: i2cEeprom() } })).toThrow(UsageError);
  });
});
