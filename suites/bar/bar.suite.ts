// BARs of edu, ivshmem and virtio: config space, QEMU's view and the guest's agree on size, type and address;
// reads and writes arrive; a BAR that is moved is seen at its new address by both.
import { beforeEach, describe, expect, test } from '@jest/globals';
import { EDU, edu, ivshmem, virtioRng, type Device, type Ivshmem, type PciFunction, type ProbedFunction } from 'rootport';
import { useMachine } from 'rootport/jest';

interface Bar {
  readonly bar: number;
  readonly sizeBytes: number;
  readonly type: 'mem32' | 'mem64' | 'io';
  readonly prefetchable?: boolean;
}

const devices: [string, () => Device, Bar[]][] = [
  ['edu', () => edu(), [{ bar: 0, sizeBytes: 1 << 20, type: 'mem32', prefetchable: false }]],
  ['ivshmem', () => ivshmem({ vectors: 16, sharedBytes: 1 << 20 }), [
    { bar: 0, sizeBytes: 256, type: 'mem32', prefetchable: false },
    { bar: 1, sizeBytes: 4096, type: 'mem32', prefetchable: false },
    { bar: 2, sizeBytes: 1 << 20, type: 'mem64', prefetchable: true },
  ]],
  ['virtio-rng', () => virtioRng({}), [
    { bar: 1, sizeBytes: 4096, type: 'mem32', prefetchable: false },
    { bar: 4, sizeBytes: 16384, type: 'mem64', prefetchable: true },
  ]],
];

const vm = useMachine({ warm: (_, machine) => machine.loadProbe() });

/** Where the guest's kernel has the BAR. */
async function address(fn: PciFunction, bar: number): Promise<bigint> {
  const resource = (await fn.guestResources()).find((one) => one.index === bar);
  if (resource === undefined) throw new Error(`the guest shows no resource for BAR ${bar}`);
  return resource.start;
}

describe.each(devices)('%s', (_, make, bars) => {
  test('size, type and address of each BAR are the same in config space, in QEMU and in the guest', async () => {
    const fn = await vm.plug(make());
    await vm.probe(fn); // enables decoding
    for (const bar of bars) {
      await expect(fn).toHaveBar(bar);
      await expect(fn).toBeMappedAt({ bar: bar.bar, address: await address(fn, bar.bar) });
    }
    const { regions } = await fn.vmm();
    expect(regions.map((region) => region.bar)).toEqual(bars.map((bar) => bar.bar));
  });
});

describe('edu', () => {
  let fn: PciFunction;
  let probe: ProbedFunction;
  beforeEach(async () => {
    fn = await vm.plug(edu());
    probe = await vm.probe(fn);
  });

  test('what is written through the BAR is read back, and QEMU reads the same at its address; an access beside it is a plain error', async () => {
    await probe.memWrite(0, EDU.LIVENESS, 4, 0x12345678n);
    expect(await probe.memRead(0, EDU.LIVENESS, 4)).toBe(0xedcba987n);
    expect(await physical((await address(fn, 0)) + BigInt(EDU.LIVENESS))).toBe(0xedcba987n);
    // Offsets out of the BAR, misaligned ones and BARs that are not there.
    await expect(probe.memRead(0, EDU.bar0SizeBytes, 4)).rejects.toThrow(/ERANGE|EINVAL/);
    await expect(probe.memRead(0, 2, 4)).rejects.toThrow(/EINVAL/);
    await expect(probe.memRead(3, 0, 4)).rejects.toThrow(/ENOENT|ENXIO|ENODEV|EINVAL/);
    await expect(vm).toHaveCleanLog();
  });

  test('moved to another address, QEMU and the guest reach it there, and no longer where it was', async () => {
    const old = await address(fn, 0);
    const moved = await freeAddress(old, 1n << 20n);
    await probe.configWrite(0x10, 4, Number(moved));
    expect(await probe.remapBar(0)).toBe(moved);
    expect((await fn.vmm()).regions[0]?.address).toBe(Number(moved));
    expect(await physical(moved)).toBe(0x010000edn);
    expect(await probe.memRead(0, EDU.IDENTIFICATION, 4)).toBe(0x010000edn);
    expect(await physical(old)).not.toBe(0x010000edn);
    await probe.configWrite(0x10, 4, Number(old));
    expect(await probe.remapBar(0)).toBe(old);
    expect(await physical(old)).toBe(0x010000edn);
    await expect(fn).toBeMappedAt({ bar: 0, address: old });
  });

  test('removed and rescanned, the kernel maps it again, and all sides agree', async () => {
    await vm.guest.run(`echo 1 >${fn.sysfs}/remove && echo 1 >/sys/bus/pci/rescan`);
    await vm.guest.until(`[ -e ${fn.sysfs}/driver_override ]`, 'the rescan to find the function', 10_000);
    probe = await vm.probe(fn);
    await expect(fn).toBeMappedAt({ bar: 0, address: await address(fn, 0) });
    expect(await probe.memRead(0, EDU.IDENTIFICATION, 4)).toBe(0x010000edn);
  });

  /** Another address in the port's memory window: RAM and neighbours are out of it. */
  async function freeAddress(taken: bigint, size: bigint): Promise<bigint> {
    const { stdout } = await vm.guest.run(`cat ${fn.sysfs}/../resource | sed -n 15p`);
    const [start = 0n, end = 0n] = stdout.trim().split(' ').map((word) => BigInt(word));
    for (let at = (start + size - 1n) & ~(size - 1n); at + size - 1n <= end; at += size) if (at !== taken) return at;
    throw new Error(`the window ${stdout.trim()} has no room beside ${taken.toString(16)}`);
  }
});

describe('ivshmem', () => {
  test('its shared memory is one memory for the device\'s side and the guest\'s', async () => {
    const device: Ivshmem = ivshmem({ sharedBytes: 1 << 16 });
    const probe = await vm.probe(await vm.plug(device));
    const view = new DataView(device.memory);
    for (const [offset, width] of [[0, 1], [2, 2], [4, 4], [8, 8], [65528, 8]] as const) {
      const value = 0x1122334455667788n & ((1n << BigInt(width * 8)) - 1n);
      await probe.memWrite(2, offset, width, value);
      expect(await probe.memRead(2, offset, width)).toBe(value);
      expect(width === 8 ? view.getBigUint64(offset, true) : BigInt(width === 4 ? view.getUint32(offset, true) : width === 2 ? view.getUint16(offset, true) : view.getUint8(offset))).toBe(value);
    }
    view.setUint32(0x100, 0xcafef00d, true);
    expect(await probe.memRead(2, 0x100, 4)).toBe(0xcafef00dn);
  });
});

/** Four bytes of guest-physical memory, as QEMU's monitor reads them. */
async function physical(at: bigint): Promise<bigint> {
  const answer = await vm.qmp.hmp(`xp /1wx 0x${at.toString(16)}`);
  return BigInt(/: (0x[0-9a-f]+)/.exec(answer)?.[1] ?? '-1');
}
