// Functions in the hands of a program, through vfio-pci and the virtual IOMMU of the guest: regions, BARs mapped, MSI and
// MSI-X to eventfds, DMA to what is mapped and to what is not, reset. Source: Linux Documentation/driver-api/vfio.rst.
// The guest's program is vfio-function.c, made by gcc on the host.
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from '@jest/globals';
import { edu, ivshmem, q35Iommu, virtioBlk, type Guest, type PciFunction } from 'rootport';
import { useMachine } from 'rootport/jest';

const vm = useMachine({
  machine: q35Iommu({ ports: 4 }),
  modules: ['vfio-pci', 'vfio_iommu_type1'],
  warm: async (guest) => {
    await uploadProgram(guest);
    await guest.run('modprobe vfio_iommu_type1 && modprobe vfio-pci');
  },
});

async function uploadProgram(guest: Guest): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), 'vfio-function-'));
  try {
    const program = join(directory, 'vfio-function');
    execFileSync('gcc', ['-O2', '-Wall', '-static', '-s', '-o', program, fileURLToPath(new URL('vfio-function.c', import.meta.url))]);
    await guest.upload(readFileSync(program), '/usr/bin/vfio-function', 0o755);
  } finally {
    rmSync(directory, { recursive: true });
  }
}

/** Give the function to vfio-pci; the command that uses it, to be followed by what it shall do. */
async function taken(fn: PciFunction): Promise<string> {
  await vm.guest.run(`[ ! -e ${fn.sysfs}/driver ] || echo ${fn.bdf} >${fn.sysfs}/driver/unbind
    echo vfio-pci >${fn.sysfs}/driver_override && echo ${fn.bdf} >/sys/bus/pci/drivers_probe`);
  expect(await fn.driver()).toBe('vfio-pci');
  const group = (await vm.guest.run(`basename $(readlink ${fn.sysfs}/iommu_group)`)).stdout.trim();
  return `vfio-function /dev/vfio/${group} ${fn.bdf}`;
}

const said = async (command: string): Promise<string> => (await vm.guest.run(command, { timeoutMs: 60_000 })).stdout;

/** VFIO_PCI_*_REGION_INDEX and VFIO_PCI_*_IRQ_INDEX (linux/vfio.h). */
const CONFIG_REGION = 7;
const MSIX_IRQ = 2;
/** VFIO_REGION_INFO_CAP_MSIX_MAPPABLE. */
const MSIX_MAPPABLE = 3;

test('edu: its one BAR, config space, INTx and one MSI vector are told, and what is mapped reads as what is read', async () => {
  const function_ = await taken(await vm.plug(edu()));
  expect((await said(`${function_} info`)).trim().split('\n')).toEqual(expect.arrayContaining([
    'device pci+ reset+', 'region 0 size 1048576 read+ write+ mmap+', `region ${CONFIG_REGION} size 256 read+ write+ mmap-`,
    'irq 0 count 1 eventfd+', 'irq 1 count 1 eventfd+',
  ]));
  expect(await said(`${function_} page 0 0`)).toBe('mapped 010000ed, read 010000ed\n');
  await expect(vm).toHaveCleanLog();
});

test('edu: every MSI that the program raises comes to its eventfd, once', async () => {
  const function_ = await taken(await vm.plug(edu()));
  expect(await said(`${function_} edu-msi 5`)).toBe('vector 0: 1\n'.repeat(5));
  await expect(vm).toHaveCleanLog();
});

test('edu: DMA reaches what the program mapped, at the address that it chose, and no longer once it is unmapped', async () => {
  const fn = await vm.plug(edu());
  const function_ = await taken(fn);
  expect(await said(`${function_} edu-dma`)).toBe('copied\nafter unmap: not copied\n');
  expect(await faultsOf(fn)).toEqual(expect.arrayContaining(['DMA Write 0x100000']));
});

test('edu: DMA to an address that nobody mapped changes nothing, and the guest\'s IOMMU tells device and address', async () => {
  const fn = await vm.plug(edu());
  const function_ = await taken(fn);
  expect(await said(`${function_} edu-fault`)).toBe('not copied\n');
  expect(await faultsOf(fn)).toEqual(expect.arrayContaining(['DMA Write 0x200000']));
});

/** Faults of this function that the guest's log has: what it did, and to which page. */
async function faultsOf(fn: PciFunction): Promise<string[]> {
  const place = fn.bdf.slice('0000:'.length);
  const log = await vm.guest.dmesg();
  return [...log.matchAll(/DMAR: \[(DMA Write|DMA Read)[^\]]*\] Request device \[([0-9a-f:.]+)\] fault addr (0x[0-9a-f]+)/g)]
    .filter(([, , device]) => device === place).map(([, access = '', , address = '']) => `${access} ${address}`);
}

test('ivshmem: every MSI-X vector has an eventfd of its own, and hears what the device fires', async () => {
  const device = ivshmem({ vectors: 16 });
  const function_ = await taken(await vm.plug(device));
  expect(await said(`${function_} info`)).toContain(`irq ${MSIX_IRQ} count 16 eventfd+\n`);
  const program = await vm.guest.start(`${function_} wait ${MSIX_IRQ} 16 3 2>/tmp/state`);
  await vm.guest.until('grep -q ready /tmp/state', 'the program to listen', 10_000);
  for (const vector of [3, 15, 0]) device.fire(vector);
  expect((await program.wait()).stdout.trim().split('\n').sort()).toEqual(['vector 0: 1', 'vector 15: 1', 'vector 3: 1']);
  await expect(vm).toHaveCleanLog();
});

test('ivshmem: the kernel keeps the MSI-X table from read and write, and tells of that region alone that it maps it', async () => {
  const function_ = await taken(await vm.plug(ivshmem({ vectors: 2 })));
  const regions = (await said(`${function_} info`)).split('\n').filter((line) => line.startsWith('region'));
  expect(regions.filter((line) => line.includes(`cap ${MSIX_MAPPABLE}`))).toEqual([expect.stringMatching(/^region 1 size 4096 read\+ write\+ mmap\+/)]);
  // Since Linux 4.16 the page is mapped where interrupts are remapped: the next test shows what that is worth.
  const [written = '', mapped = ''] = (await said(`${function_} table 1`)).split('\n');
  expect(written).toMatch(/^written by pwrite: read ffffffff, mapped (?!12345678)/);
  expect(mapped).toBe('written by mmap: read ffffffff, mapped 89abcdef');
});

test('ivshmem: a message forged in the mapped table is stopped by interrupt remapping, and told', async () => {
  const device = ivshmem({ vectors: 2 });
  const fn = await vm.plug(device);
  const function_ = await taken(fn);
  const program = await vm.guest.start(`${function_} forge 2 1 1500 2>/tmp/state`);
  await vm.guest.until('grep -q forged /tmp/state', 'the program to listen', 10_000);
  device.fire(1);
  await vm.guest.until('grep -q heard /tmp/state', 'the program to have heard nothing', 10_000);
  device.fire(0);
  expect((await program.wait()).stdout).toBe('silence\nvector 0: 1\n');
  // QEMU 7.2 stops it too, and tells its own stderr, not the guest.
  if (vm.parts.qemu.version.major > 7) expect(await vm.guest.dmesg()).toContain(`DMAR: [INTR-REMAP] Request device [${fn.bdf.slice('0000:'.length)}] fault index 0x1234 `);
});

test('virtio-blk: taken from its driver and reset, its status is 0 again and its BARs are where they were; given back, it works', async () => {
  const fn = await vm.plug(virtioBlk({ capacityBytes: 2 ** 20 }));
  const function_ = await taken(fn);
  expect((await said(`${function_} info`)).split('\n')).toEqual(expect.arrayContaining([expect.stringMatching(/^region 4 size 16384 .*mmap\+/)]));
  // device_status of the common configuration: ACKNOWLEDGE.
  expect(await said(`${function_} reset 4 0x14 1`)).toBe('before 01, after 00, BAR kept\n');
  await vm.guest.run(`echo ${fn.bdf} >${fn.sysfs}/driver/unbind; echo >${fn.sysfs}/driver_override; echo ${fn.bdf} >/sys/bus/pci/drivers_probe`);
  await vm.guest.until('[ -b /dev/vda ]', 'the disk to be back', 10_000);
  expect((await vm.guest.run('dd if=/dev/vda bs=4096 count=4 2>/dev/null | wc -c')).stdout.trim()).toBe('16384');
  await expect(vm).toHaveCleanLog();
});
