// `rootport lspci -F`: a dump, with no machine.
import { fileURLToPath } from 'node:url';
import { afterEach, expect, jest, test } from '@jest/globals';
import { program } from '../../src/cli/program.ts';
import { UsageError } from '../../src/errors.ts';

const dump = fileURLToPath(new URL('../pci/fixtures/tree.txt', import.meta.url));

afterEach(() => { jest.restoreAllMocks(); });

async function lspci(...words: string[]): Promise<string> {
  let text = '';
  jest.spyOn(process.stdout, 'write').mockImplementation((chunk) => {
    text += String(chunk);
    return true;
  });
  await program().parseAsync(['lspci', '-F', dump, ...words], { from: 'user' });
  return text;
}

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
});
