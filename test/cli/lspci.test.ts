// `rootport lspci -F`: a dump, with no machine.
import { fileURLToPath } from 'node:url';
import { expect, test } from '@jest/globals';
import { UsageError } from '../../src/errors.ts';
import { lspciOutput } from './lspci-output.ts';

const dump = fileURLToPath(new URL('../pci/fixtures/tree.txt', import.meta.url));

const lspci = (...words: string[]): Promise<string> => lspciOutput(['lspci', '-F', dump, ...words]);

test('repeated and joined flags are counted', async () => {
  expect(await lspci('-nn', '-s', '03:00.1')).toMatch(/^03:00\.1 .*\[1b36:0005\]\n$|^03:00\.1 00ff: 1b36:0005\n$/);
  expect(await lspci('-nxs', '04:')).toMatch(/^04:1f\.0 00ff: 1b36:0005\n00: 36 1b 05 00 /);
  expect(await lspci('-nvv', '-d', '::0604', '-s', '2:1')).toContain('\n\tBus: primary=02, secondary=04, subordinate=04, sec-latency=0\n');
});

test('a tree is drawn', async () => {
  expect(await lspci('-tn')).toContain('\n           +-03.0-[02-04]--+-00.0-[03]--+-00.0\n');
});

test('what is wrong is told before anything is shown', async () => {
  await expect(lspci('-s', 'zz')).rejects.toThrow(UsageError);
  await expect(lspci('edu')).rejects.toThrow('a dump takes no devices');
  await expect(lspciOutput(['lspci', '--no-guest', '--kernel', '6.12'])).rejects.toThrow('--no-guest has no kernel');
  await expect(lspciOutput(['lspci', '--no-guest', '-k'])).rejects.toThrow('no drivers to show');
});
