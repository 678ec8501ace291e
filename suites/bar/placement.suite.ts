// Where BARs are put, and put elsewhere, in a guest. On q35 and pc: in I/O space, a ROM, size masks; moved by setpci with
// and without a driver, and by the kernel's own assignment after remove and rescan; two at one address; decoding off.
// On q35: over 4 GiB, and too large for the bridge's window. PCI Local Bus 3.0, 6.2.5; Linux drivers/pci/setup-res.c.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from '@jest/globals';
import { EDU, edu, IVSHMEM, ivshmem, pc, q35, qemuDevice, type ProbedFunction } from 'rootport';
import { useMachine } from 'rootport/jest';
import { addressOf, decodedAt, freeAddress, hex, kernelAddress, logOf, physical, rescan, romImage, setpci } from './places.ts';

const MiB = 2n ** 20n;
const GiB = 2n ** 30n;
const directory = mkdtempSync(join(tmpdir(), 'rom-'));
afterAll(() => rmSync(directory, { recursive: true }));
const IDENTIFICATION = 0x010000edn;

const fresh = 'file'; // each test plugs devices of its own

/**
 * Each port has a prefetchable window of 1 GiB, which the firmware puts over 4 GiB, where there is room for it. With QEMU
 * 10.0 that is the end of 40 bits, which its memory map reserves (HyperTransport): Linux would assign nothing there.
 */
const WIDE_PORTS = { machine: q35({ ports: 2 }), extraArgs: ['-global', 'pcie-root-port.pref64-reserve=1G'], append: ['pci=no_e820'] };

describe.each([['q35', WIDE_PORTS], ['pc', { machine: pc({ ports: 2 }) }]] as const)('on %s', (name, options) => {
  const vm = useMachine({ ...options, fresh });

  describe('a BAR in each address space', () => {
    test('of I/O answers at its ports, and not with I/O decoding off', async () => {
      const fn = await vm.plug(qemuDevice('pci-testdev'));
      const probe = await vm.probe(fn);
      await expect(fn).toHaveBar({ bar: 1, sizeBytes: 256, type: 'io' });
      await expect(fn).toBeMappedAt({ bar: 1, address: await addressOf(fn, 1) });
      // pci-testdev: the number of the test at 0; its data's offset at 4; how often it was written at 12 (QEMU: pci-testdev.rst).
      await probe.ioWrite(1, 0, 1, 0);
      const [offset, data] = [await probe.ioRead(1, 4, 4), await probe.ioRead(1, 8, 1)];
      for (let times = 1; times <= 3; times += 1) {
        await probe.ioWrite(1, offset, 1, data);
        expect(await probe.ioRead(1, 12, 4)).toBe(times);
      }
      await setpci(fn, 'COMMAND=0:1');
      expect([await probe.ioRead(1, 12, 4), await decodedAt(fn, 1)]).toEqual([0xffffffff, undefined]);
      await setpci(fn, 'COMMAND=1:1');
      expect(await probe.ioRead(1, 12, 4)).toBe(3);
      await expect(vm).toHaveCleanLog();
    });

    test('of a ROM is read through the kernel byte for byte, and QEMU decodes it only while it is enabled', async () => {
      const image = romImage();
      const romfile = join(directory, 'counting.rom');
      writeFileSync(romfile, image);
      const fn = await vm.plug(qemuDevice('pci-testdev', { romfile }));
      await vm.probe(fn); // enables memory decoding
      const address = await addressOf(fn, 6);
      expect((await fn.guestResources()).find(({ index }) => index === 6)?.sizeBytes).toBe(BigInt(image.length));
      expect((await vm.guest.attempt(`cat ${fn.sysfs}/rom`)).exitCode).not.toBe(0); // not enabled through sysfs
      await vm.guest.run(`echo 1 >${fn.sysfs}/rom && cat ${fn.sysfs}/rom >/tmp/rom && echo 0 >${fn.sysfs}/rom`);
      expect((await vm.guest.readFile('/tmp/rom')).equals(image)).toBe(true);
      const word = BigInt(image.readUInt32LE(0x100));
      expect([await decodedAt(fn, 6), await physical(fn, address + 0x100n)]).toEqual([undefined, undefined]);
      await setpci(fn, `ROM_ADDRESS=${hex(address | 1n)}`);
      expect([await decodedAt(fn, 6), await physical(fn, address + 0x100n)]).toEqual([address, word]);
      await setpci(fn, `ROM_ADDRESS=${hex(address)}`);
      expect(await physical(fn, address + 0x100n)).toBeUndefined();
      await expect(vm).toHaveCleanLog();
    });
  });

  test('size masks by setpci are those of PCI, with type and prefetchable bits read-only, and what was there comes back', async () => {
    const fn = await vm.plug(ivshmem({ sharedBytes: Number(MiB) }));
    const masks = { 0: 'ffffff00', 1: 'fffff000', 2: 'fff0000c', 3: 'ffffffff', 4: '00000000', 5: '00000000' };
    for (const [bar, mask] of Object.entries(masks)) {
      const before = await setpci(fn, `BASE_ADDRESS_${bar}`);
      await setpci(fn, `BASE_ADDRESS_${bar}=ffffffff`);
      expect(`${bar} ${await setpci(fn, `BASE_ADDRESS_${bar}`)}`).toBe(`${bar} ${mask}`);
      await setpci(fn, `BASE_ADDRESS_${bar}=${before}`);
      expect(await setpci(fn, `BASE_ADDRESS_${bar}`)).toBe(before);
    }
    await vm.probe(fn);
    for (const bar of [0, 1, 2]) await expect(fn).toBeMappedAt({ bar, address: await addressOf(fn, bar) });
  });

  describe('moved', () => {
    test('by setpci with no driver: config space and QEMU have it there, the kernel only after remove and rescan', async () => {
      const fn = await vm.plug(edu());
      const before = await addressOf(fn, 0);
      const after = await freeAddress(fn, MiB, before);
      await setpci(fn, 'COMMAND=2:2');
      await setpci(fn, `BASE_ADDRESS_0=${hex(after)}`);
      expect(await setpci(fn, 'BASE_ADDRESS_0')).toBe(hex(after).padStart(8, '0'));
      expect([await decodedAt(fn, 0), await physical(fn, after), await physical(fn, before)]).toEqual([after, IDENTIFICATION, undefined]);
      expect(await kernelAddress(fn, 0)).toBe(before);
      await rescan(fn);
      const probe = await vm.probe(fn);
      const assigned = await addressOf(fn, 0);
      // It found the BAR where setpci had put it.
      expect((await logOf(fn)).some((line) => line.includes(`mem 0x${hex(after)}-`))).toBe(true);
      await expect(fn).toBeMappedAt({ bar: 0, address: assigned });
      expect([await probe.memRead(0, EDU.IDENTIFICATION, 4), await physical(fn, assigned)]).toEqual([IDENTIFICATION, IDENTIFICATION]);
      await expect(vm).toHaveCleanLog();
    });

    test('by setpci under a driver: its mapping answers 0 and writes nowhere, until it follows or the BAR comes back', async () => {
      const fn = await vm.plug(edu());
      const probe = await vm.probe(fn);
      const read = (): Promise<bigint> => probe.memRead(0, EDU.LIVENESS, 4);
      await probe.memWrite(0, EDU.LIVENESS, 4, 0x12345678n);
      const before = await addressOf(fn, 0);
      const after = await freeAddress(fn, MiB, before);
      await setpci(fn, `BASE_ADDRESS_0=${hex(after)}`);
      expect(await read()).toBe(0n);
      await probe.memWrite(0, EDU.LIVENESS, 4, 0n);
      expect(await probe.remapBar(0)).toBe(after);
      expect(await read()).toBe(0xedcba987n);
      await setpci(fn, `BASE_ADDRESS_0=${hex(before)}`);
      expect(await read()).toBe(0n);
      expect(await probe.remapBar(0)).toBe(before);
      expect(await read()).toBe(0xedcba987n);
      await expect(fn).toBeMappedAt({ bar: 0, address: before });
      await expect(vm).toHaveCleanLog();
    });

    test('to nowhere, the kernel assigns it an address of its own at the rescan, and all sides have that', async () => {
      const fn = await vm.plug(edu());
      await setpci(fn, 'COMMAND=2:2');
      expect(await decodedAt(fn, 0)).toBe(await addressOf(fn, 0));
      await setpci(fn, 'BASE_ADDRESS_0=0');
      expect(await decodedAt(fn, 0)).toBeUndefined();
      await rescan(fn);
      const probe = await vm.probe(fn);
      const address = await addressOf(fn, 0);
      const log = await logOf(fn);
      expect(log.some((line) => line.includes('mem 0x00000000-0x000fffff'))).toBe(true); // so it found it
      expect(log.some((line) => line.includes('BAR 0') && line.includes(`0x${hex(address)}-`) && line.includes('assigned'))).toBe(true);
      await expect(fn).toBeMappedAt({ bar: 0, address });
      expect(await probe.memRead(0, EDU.IDENTIFICATION, 4)).toBe(IDENTIFICATION);
      await expect(vm).toHaveCleanLog();
    });

    test('over another BAR, one of the two answers; the rescan parts them, and each is itself', async () => {
      const fn = await vm.plug(ivshmem({ vectors: 2 }));
      let probe: ProbedFunction = await vm.probe(fn);
      const over = await addressOf(fn, 1);
      await probe.memWrite(1, IVSHMEM.IV_POSITION, 4, 0x77n); // the first entry's data, where BAR 0 has the peer's number
      const peer = await probe.memRead(0, IVSHMEM.IV_POSITION, 4);
      await setpci(fn, `BASE_ADDRESS_0=${hex(over)}`);
      expect([await decodedAt(fn, 0), await decodedAt(fn, 1)]).toEqual([over, over]);
      expect([peer, 0x77n]).toContain(await physical(fn, over + BigInt(IVSHMEM.IV_POSITION)));
      await rescan(fn);
      probe = await vm.probe(fn);
      const [registers, table] = [await addressOf(fn, 0), await addressOf(fn, 1)];
      expect(registers >= table + 4096n || registers + 256n <= table).toBe(true);
      await expect(fn).toBeMappedAt({ bar: 0, address: registers });
      await expect(fn).toBeMappedAt({ bar: 1, address: table });
      expect([await probe.memRead(0, IVSHMEM.IV_POSITION, 4), await probe.memRead(1, IVSHMEM.IV_POSITION, 4)]).toEqual([peer, 0x77n]);
      await expect(vm).toHaveCleanLog();
    });
  });

  test('with memory decoding off a driver reads 0 and writes nowhere, QEMU maps it nowhere; on again, all is as it was', async () => {
    const fn = await vm.plug(edu());
    const probe = await vm.probe(fn);
    await probe.memWrite(0, EDU.LIVENESS, 4, 0x12345678n);
    const address = await addressOf(fn, 0);
    await setpci(fn, 'COMMAND=0:2');
    await probe.memWrite(0, EDU.LIVENESS, 4, 0n);
    expect([await probe.memRead(0, EDU.LIVENESS, 4), await decodedAt(fn, 0)]).toEqual([0n, undefined]);
    expect(await kernelAddress(fn, 0)).toBe(address);
    await setpci(fn, 'COMMAND=2:2');
    expect(await probe.memRead(0, EDU.LIVENESS, 4)).toBe(0xedcba987n);
    await expect(fn).toBeMappedAt({ bar: 0, address });
  });

  if (name !== 'q35') return; // what follows is of ports and their windows

  test('a BAR of 64 bits stands over 4 GiB, where guest and device share its memory, and all sides have it', async () => {
    const device = ivshmem({ sharedBytes: Number(256n * MiB) });
    const fn = await vm.plug(device);
    const probe = await vm.probe(fn);
    const address = await addressOf(fn, 2);
    expect(address).toBeGreaterThanOrEqual(4n * GiB);
    await expect(fn).toHaveBar({ bar: 2, sizeBytes: Number(256n * MiB), type: 'mem64', prefetchable: true });
    await expect(fn).toBeMappedAt({ bar: 2, address });
    const last = Number(256n * MiB) - 8;
    await probe.memWrite(2, last, 8, 0x1122334455667788n);
    expect(new DataView(device.memory).getBigUint64(last, true)).toBe(0x1122334455667788n);
    new DataView(device.memory).setUint32(0, 0xcafef00d, true);
    expect([await probe.memRead(2, 0, 4), await physical(fn, address)]).toEqual([0xcafef00dn, 0xcafef00dn]);
    await expect(vm).toHaveCleanLog();
  });

  describe('too large for its bridge\'s window', () => {
    test('a BAR finds no room: the kernel says so by size and number, no side has it, and the function\'s other BARs work', async () => {
      const fn = await vm.plug(qemuDevice('pci-testdev', { membar: Number(4n * GiB) }));
      const probe = await vm.probe(fn);
      // 6.1: "BAR 2: no space for [mem size ...]"; since 6.10: "BAR 2 [mem size ...]: can't assign; no space".
      const log = (await logOf(fn)).join('\n');
      const bar = '\\[mem size 0x100000000 64bit pref\\]';
      expect(log).toMatch(new RegExp(`BAR 2(: no space for ${bar}| ${bar}: can't assign; no space)`));
      expect(log).toMatch(new RegExp(`BAR 2(: failed to assign ${bar}| ${bar}: failed to assign)`));
      expect([await kernelAddress(fn, 2), await decodedAt(fn, 2)]).toEqual([undefined, undefined]);
      await expect(probe.memRead(2, 0, 4)).rejects.toThrow(/ENXIO.*no BAR 2/);
      await expect(fn).toBeMappedAt({ bar: 0, address: await addressOf(fn, 0) });
      expect(await probe.memRead(0, 12, 4)).toBe(0n);
      await expect(fn).toBeMappedAt({ bar: 1, address: await addressOf(fn, 1) });
      await expect(vm).toHaveCleanLog(); // a complaint, and no report
    });

    test('one that just fits is assigned, without a word of complaint', async () => {
      const fn = await vm.plug(qemuDevice('pci-testdev', { membar: Number(GiB) }));
      await vm.probe(fn);
      expect((await logOf(fn)).filter((line) => /no space|failed to assign/.test(line))).toEqual([]);
      await expect(fn).toBeMappedAt({ bar: 2, address: await addressOf(fn, 2) });
    });
  });
});
