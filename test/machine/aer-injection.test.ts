// What QEMU is told for an error's name (HMP pcie_aer_inject_error: hw/pci/pcie_aer.c), and its answers.
import { expect, test } from '@jest/globals';
import { UsageError } from '../../src/errors.ts';
import { injectAerError, type AerError } from '../../src/machine/aer-injection.ts';
import type { QmpClient } from '../../src/qmp/client.ts';

function monitor(answer: string): { qmp: QmpClient; lines: string[] } {
  const lines: string[] = [];
  const hmp = async (line: string): Promise<string> => { lines.push(line); return answer; };
  return { qmp: { hmp } as unknown as QmpClient, lines };
}

test('an error goes by its bit, a correctable one with -c', async () => {
  const { qmp, lines } = monitor('OK id: dev0 root bus: 0000:00, bus: 1 devfn: 0.0\n');
  for (const error of ['RxOF', 'UnxCmplt', 'TLPXlatBlocked', 'RxErr', 'HeaderOF'] as const) await injectAerError(qmp, 'dev0', error);
  expect(lines).toEqual([
    'pcie_aer_inject_error dev0 0x20000', 'pcie_aer_inject_error dev0 0x10000', 'pcie_aer_inject_error dev0 0x80000000',
    'pcie_aer_inject_error -c dev0 0x1', 'pcie_aer_inject_error -c dev0 0x8000',
  ]);
});

test('a name that is none is refused before QEMU is asked, and what QEMU refuses is told in its words', async () => {
  const { qmp, lines } = monitor('id or pci device path is invalid or device not found. dev7\n');
  await expect(injectAerError(qmp, 'dev7', 'toString' as AerError)).rejects.toThrow('there is no PCI Express error named "toString"');
  expect(lines).toEqual([]);
  await expect(injectAerError(qmp, 'dev7', 'DLP')).rejects.toThrow(UsageError);
  await expect(injectAerError(qmp, 'dev7', 'DLP')).rejects.toThrow('QEMU injects no DLP into dev7: id or pci device path is invalid');
});
