import { describe, expect, test } from '@jest/globals';
import { UsageError } from '../../src/errors.ts';
import { checkPackages, ensureGuestPackages, inTree, type GuestPackage } from '../../src/image/guest-packages.ts';
import { silentProgress } from '../../src/packages/index.ts';

describe('packages', () => {
  test.each<[string, unknown, RegExp]>([
    ['one name and no array', 'fio', /^packages is not an array/],
    ['an empty name', [''], /"" is not the name of a Debian package/],
    ['a version', ['fio=3.39-1'], /"fio=3\.39-1" is not the name/],
    ['a suite', ['fio/sid'], /is not the name/],
    ['an option of apt', ['--allow-unauthenticated'], /"--allow-unauthenticated" is not the name/],
    ['what apt takes for a removal', ['fio-'], /"fio-" is not the name/],
    ['upper case', ['Fio'], /is not the name/],
    ['a number', [3], /is not the name/],
    ['a program with a directory', [{ name: 'xfsprogs', programs: ['/sbin/mkfs.xfs'] }], /xfsprogs: programs are names without a directory, and not \/sbin\/mkfs\.xfs/],
    ['no program', [{ name: 'xfsprogs', programs: [] }], /and not none/],
  ])('with %s are a UsageError that says so', (_, packages, message) => {
    expect(() => checkPackages(packages as GuestPackage[])).toThrow(UsageError);
    expect(() => checkPackages(packages as GuestPackage[])).toThrow(message);
  });

  test('with names as Debian has them are taken', () => {
    expect(() => checkPackages(['fio', 'g++', 'libc6', 'python3.13', { name: 'xfsprogs', programs: ['mkfs.xfs'] }])).not.toThrow();
  });

  test('of which there are none ask for nothing', async () => {
    expect(await ensureGuestPackages([], silentProgress)).toBeUndefined();
  });
});

test.each([['/bin/ls', 'usr/bin/ls'], ['/lib/firmware/x', 'usr/lib/firmware/x'], ['lib64/ld.so', 'usr/lib64/ld.so'], ['/library/x', 'library/x'], ['/root/bin/x', 'root/bin/x']])(
  '%s of the guest is %s of its tree', (path, expected) => { expect(inTree(path)).toBe(expected); });
