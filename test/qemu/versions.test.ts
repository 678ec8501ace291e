import { expect, test } from '@jest/globals';
import { defaultTcgThread, isAtLeast, knownVersions, reconnectProperty, vhostUserNetHasVectors } from '../../src/qemu/versions.ts';

const version = (major: number, minor: number) => ({ major, minor, text: `${major}.${minor}.1` });

test('versions compare by number, not by text', () => {
  expect([version(10, 0), version(9, 2), version(7, 2), version(7, 1)].map((one) => isAtLeast(one, '7.2'))).toEqual([true, true, true, false]);
  expect(isAtLeast(version(9, 2), '10.0')).toBe(false);
});

test('CPUs take turns in one thread where QEMU\'s memory map is racy, and only there', () => {
  expect([version(7, 2), version(8, 0), version(8, 1), version(10, 0), version(11, 0), version(11, 1)].map(defaultTcgThread))
    .toEqual(['multi', 'multi', 'single', 'single', 'single', 'multi']);
});

test('a vhost-user network card has no vectors where QEMU crashes on them: old and under TCG', () => {
  expect([version(7, 2), version(9, 2), version(10, 0), version(11, 1)].map((one) => vhostUserNetHasVectors(one, 'tcg'))).toEqual([false, false, true, true]);
  expect(vhostUserNetHasVectors(version(7, 2), 'kvm')).toBe(true);
});

test('a chardev connects again in milliseconds from 9.2 on, in seconds before', () => {
  expect([version(7, 2), version(9, 1), version(9, 2), version(11, 1)].map(reconnectProperty))
    .toEqual([{ reconnect: 1 }, { reconnect: 1 }, { 'reconnect-ms': 100 }, { 'reconnect-ms': 100 }]);
});

test('the default is not older than the oldest', () => {
  const { oldest, default: fallback } = knownVersions();
  const [major = 0, minor = 0] = fallback.split('.').map(Number);
  expect(isAtLeast(version(major, minor), oldest)).toBe(true);
});
