// A machine without an operating system, with bridges of every kind, functions on several buses, SR-IOV and AER: its
// config spaces over qtest, rendered, against the real lspci on the same bytes. And `rootport lspci --no-guest`.
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from '@jest/globals';
import { edu, ivshmem } from '../../../src/index.ts';
import { bare } from '../../../src/machine/bare.ts';
import { type LspciFunction, type LspciOptions, parsePciIds, type PciIds, renderLspci } from '../../../src/pci/lspci/index.ts';
import { pc, q35 } from '../../../src/qemu/preset.ts';
import { readPciFunctions } from '../../../src/qtest/pci-functions.ts';
import { lspciOutput } from '../../cli/lspci-output.ts';
import { realLspci, userlandTree } from './real-lspci.ts';

/** A switch with two ports, a conventional bridge behind one of them and one more behind that; SR-IOV and AER beside them. */
const BRIDGES = [
  '-device', 'x3130-upstream,id=up,bus=rp3', '-device', 'xio3130-downstream,id=d1,bus=up,chassis=31,slot=31',
  '-device', 'xio3130-downstream,id=d2,bus=up,chassis=32,slot=32', '-device', 'pcie-pci-bridge,id=b1,bus=d1',
  '-device', 'pci-bridge,id=b2,bus=b1,chassis_nr=9,addr=3', '-device', 'edu,bus=b2,addr=1', '-device', 'e1000,bus=b2,addr=1f,romfile=',
  '-device', 'igb,bus=d2,romfile=', '-device', 'virtio-rng-pci,bus=rp4,aer=on',
];

const MACHINES: [string, Parameters<typeof bare>[0]][] = [
  ['q35 with a switch and conventional bridges', { qemu: '10.0', machine: q35({ ports: 4 }), devices: [edu(), ivshmem({ vectors: 4 })], extraArgs: BRIDGES }],
  ['pc', { qemu: '7.2', machine: pc(), devices: [edu()], extraArgs: ['-device', 'pci-bridge,id=b1,chassis_nr=9,addr=1c', '-device', 'ivshmem-plain,bus=b1,memdev=m,addr=2', '-object', 'memory-backend-ram,id=m,size=1M,share=on'] }],
];

describe.each(MACHINES)('%s, without an operating system', (_, options) => {
  let functions: LspciFunction[];
  let ids: PciIds;

  beforeAll(async () => {
    await using machine = await bare(options);
    functions = await readPciFunctions(machine.innards.bus.config, machine.functions().map(({ address }) => address));
    ids = parsePciIds(await readFile(join(await userlandTree(), 'usr/share/misc/pci.ids'), 'utf8'));
  }, 120_000);

  const cases: [string, LspciOptions][] = [
    ['-t', { tree: true }], ['-tv', { tree: true, verbosity: 1 }], ['-tvnn', { tree: true, verbosity: 1, numeric: 2 }], ['-vvv', { verbosity: 3 }], ['-v', { verbosity: 1 }],
    ['-nnvvb', { verbosity: 2, numeric: 2, busView: true }], ['-xxxx', { dump: 4 }], ['-mm', { machineReadable: 2 }], ['-s 01:', { selection: { bus: 1 } }],
  ];
  test.each(cases)('lspci %s of it is printed byte for byte', async (words, shown) => {
    const dump = renderLspci(functions, { dump: 4 });
    expect(renderLspci(functions, { ...shown, ids })).toBe(await realLspci(dump, words.split(' ')));
  });
});

test('the bridges, their buses and what is behind them are a tree; SR-IOV and AER are told', async () => {
  await using machine = await bare(MACHINES[0]?.[1]);
  const functions = await readPciFunctions(machine.innards.bus.config, machine.functions().map(({ address }) => address));
  const tree = renderLspci(functions, { tree: true });
  expect(tree).toContain('-[03-08]----00.0-[04-08]--+-00.0-[05-07]----00.0-[06-07]----03.0-[07]--+-01.0\n');
  expect(tree).toMatch(/\\-1f\.0\n.*\\-01\.0-\[08\]----00\.0\n/);
  const text = renderLspci(functions, { verbosity: 3 });
  expect(text).toContain('Single Root I/O Virtualization (SR-IOV)\n\t\tIOVCap:\tMigration- 10BitTagReq- IntMsgNum 0\n');
  expect(text).toContain('Total VFs: 8');
  expect(text.match(/Advanced Error Reporting\n\t\tUESta:\tDLP-/g)?.length).toBeGreaterThanOrEqual(3);
}, 60_000);

test('rootport lspci --no-guest shows the devices named, in their ports', async () => {
  const text = await lspciOutput(['lspci', '--no-guest', '--qemu', '10.0', '-tn', 'edu', 'ivshmem:vectors=3', 'virtio-blk']);
  expect(text).toBe([
    '-[0000:00]-+-00.0', '           +-10.0-[01]----00.0', '           +-10.1-[02]----00.0', '           +-10.2-[03]----00.0', '           +-10.3-[04]--',
    '           +-1f.0', '           \\-1f.3', '',
  ].join('\n'));
  const msix = await lspciOutput(['lspci', '--no-guest', '--qemu', '7.2', '-vvv', '-n', '-s', '01:', 'ivshmem:vectors=3']);
  expect(msix).toContain('MSI-X: Enable- Count=3 Masked-\n\t\tVector table: BAR=1 offset=00000000\n\t\tPBA: BAR=1 offset=00000800\n');
}, 60_000);
