import { describe, expect, test } from '@jest/globals';
import { edu } from '../../src/devices/edu/index.ts';
import { UsageError } from '../../src/errors.ts';
import { checkOptions, guestMemoryMiB, type BootOptions } from '../../src/machine/options.ts';
import { q35 } from '../../src/qemu/preset.ts';

const MIB = 2 ** 20;

describe('options of boot', () => {
  test.each<[string, BootOptions, RegExp]>([
    ['an unknown name', { kernle: '6.1' } as BootOptions, /no option "kernle"[^]*kernel/],
    ['no CPU', { machine: q35({ cpus: 0 }) }, /cpus: 0/],
    ['half a CPU', { machine: q35({ cpus: 1.5 }) }, /cpus: 1\.5/],
    ['no such way to run them', { machine: q35({ cpus: 2, tcgThread: 'many' as 'multi' }) }, /tcgThread "many"/],
    ['too many CPUs', { machine: q35({ cpus: 289 }) }, /cpus: 289/],
    ['too little memory', { machine: q35({ memoryMiB: 127 }) }, /memoryMiB: 127/],
    ['memory that is no number', { machine: q35({ memoryMiB: Number.NaN }) }, /memoryMiB: NaN/],
    ['a negative number of ports', { machine: q35({ ports: -1 }) }, /ports: -1/],
    ['too many ports', { machine: q35({ ports: 65 }) }, /ports: 65/],
    ['a package that cannot be', { packages: ['no such'] }, /"no such" is not the name of a Debian package/],
    ['a file that is not there', { files: { '/root/x': '/nowhere' } }, /files: \/root\/x/],
    ['more devices than ports', { machine: q35({ ports: 0 }), devices: [edu()] }, /1 devices do not fit into 0 ports/],
  ])('with %s are a UsageError that says so', (_, options, message) => {
    expect(() => checkOptions(options)).toThrow(UsageError);
    expect(() => checkOptions(options)).toThrow(message);
  });

  test('at their limits are taken', () => {
    for (const options of [{}, { machine: q35({ cpus: 288, memoryMiB: 128, ports: 64 }) }, { machine: q35({ ports: 1 }), devices: [edu()] }]) {
      expect(() => checkOptions(options)).not.toThrow();
    }
  });
});

describe('the memory of a guest', () => {
  test('is 256 MiB, more with a large image, and what was asked for where that is enough', () => {
    expect(guestMemoryMiB(undefined, 20 * MIB)).toBe(256);
    expect(guestMemoryMiB(undefined, 220 * MIB)).toBe(850);
    expect(guestMemoryMiB(128, 20 * MIB)).toBe(128);
  });

  test('that does not hold its image is a UsageError that says how much does', () => {
    const small = (): number => guestMemoryMiB(256, 70.5 * MIB);
    expect(small).toThrow(UsageError);
    expect(small).toThrow(/memoryMiB: 256 is too little for a guest image of 71 MiB[^]*give 293 or more/);
    expect(guestMemoryMiB(293, 70.5 * MIB)).toBe(293);
  });
});
