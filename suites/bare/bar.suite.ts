// BARs to the letter (PCI Local Bus 3.0, 6.2.5), each claim by config space, by QEMU's query-pci and by an access
// there: every kind and alignment, over 4 GiB, prefetchable, I/O, ROM, decode off, overlap.
// Device models: pci-testdev (one 64-bit BAR of any size, memory, I/O), ivshmem (patterns in shared memory).
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeEach, describe, expect, test } from '@jest/globals';
import { IVSHMEM, ivshmem, q35, qemuDevice, type BareFunction } from 'rootport';
import { useBare } from 'rootport/jest';

const MiB = 2n ** 20n;
const MEMORY = 0x2;
const IO = 0x1;
/** ivshmem's BAR 0: the guest's peer number, which is 1. */
const IV_POSITION = BigInt(IVSHMEM.IV_POSITION);

/** An expansion ROM of 64 KiB whose bytes count up. */
const directory = mkdtempSync(join(tmpdir(), 'rom-'));
const romFile = join(directory, 'counting.rom');
writeFileSync(romFile, Uint8Array.from({ length: 65536 }, (_, i) => i & 0xff));
afterAll(() => rmSync(directory, { recursive: true }));

describe.each(['7.2', '10.0'])('QEMU %s', (qemu) => {
  const shared = ivshmem({ vectors: 2, sharedBytes: 2 ** 20 });
  const SIZES = ['4k', '64k', '1M', '256M', '4G', '32G'] as const;
  const BYTES = { '4k': 2n ** 12n, '64k': 2n ** 16n, '1M': MiB, '256M': 256n * MiB, '4G': 2n ** 32n, '32G': 2n ** 35n } as const;
  const sized = SIZES.map((membar) => qemuDevice('pci-testdev', { membar }));
  const rom = qemuDevice('pci-testdev', { romfile: romFile });
  const vm = useBare({ qemu, machine: q35({ ports: 9 }), devices: [shared, rom, ...sized] });
  let fn: BareFunction;
  let home: bigint;
  beforeEach(async () => {
    fn = await vm.functionOf(shared);
    home = (await fn.bar(2)).address;
  });

  const register = async (one: BareFunction, index: number): Promise<number> => one.configRead(0x10 + 4 * index, 4);
  /** Where QEMU has it; undefined: nowhere. */
  async function mapped(one: BareFunction, index: number): Promise<bigint | undefined> {
    const region = (await one.vmm()).regions.find(({ bar }) => bar === index);
    return region === undefined || region.address < 0 ? undefined : BigInt(region.address);
  }
  /** What an access at a physical address reads, of the shared memory's first word. */
  async function mark(value: number): Promise<void> {
    new DataView(shared.memory).setUint32(0, value, true);
  }
  const readAt = async (address: bigint): Promise<number> => Number(await vm.qtest.memoryRead(address, 4));

  describe('a BAR of any size', () => {
    test.each(SIZES.map((name, i) => [name, i] as const))('of %s has its size mask, a natural alignment, and its address in QEMU', async (name, i) => {
      const one = await vm.functionOf(sized[i] ?? rom);
      const bar = await one.bar(2);
      expect(bar).toMatchObject({ kind: 'mem64', sizeBytes: BYTES[name], prefetchable: true });
      expect(bar.address % bar.sizeBytes).toBe(0n);
      expect(bar.address).toBeGreaterThanOrEqual(2n ** 32n);
      expect(await mapped(one, 2)).toBe(bar.address);
    });

    test.each(SIZES.map((name, i) => [name, i] as const))('of %s takes no address bit under its size, and every one over it', async (name, i) => {
      const one = await vm.functionOf(sized[i] ?? rom);
      const { address, sizeBytes } = await one.bar(2);
      await one.command({ MEMORY: false });
      await one.moveBar(2, 2n ** 64n - 1n);
      const value = BigInt(await register(one, 2) >>> 0) | (BigInt(await register(one, 3) >>> 0) << 32n);
      expect(value & ~0xfn).toBe(2n ** 64n - sizeBytes);
      expect(value & 0xfn).toBe(0xcn);
      await one.moveBar(2, address);
      await one.command({ MEMORY: true });
      expect(await mapped(one, 2)).toBe(address);
    });
  });

  describe('flag bits', () => {
    test.each([[0, 0x0], [1, 0x0], [2, 0xc]] as const)('of BAR %i are %i and read-only', async (index, flags) => {
      const before = await register(fn, index);
      await fn.command({ MEMORY: false });
      for (const low of [0x0, 0xf]) {
        await fn.configWrite(0x10 + 4 * index, 4, ((before & ~0xf) | low) >>> 0);
        expect(await register(fn, index) & 0xf).toBe(flags);
      }
      await fn.configWrite(0x10 + 4 * index, 4, before);
      await fn.command({ MEMORY: true });
    });

    test('an I/O BAR has bit 0 set and bit 1 reserved', async () => {
      const one = await vm.functionOf(sized[0] ?? rom);
      const bar = (await one.bars()).find(({ kind }) => kind === 'io');
      expect(bar).toMatchObject({ index: 1, prefetchable: false });
      const before = await register(one, 1);
      await one.configWrite(0x14, 4, (before | 0x3) >>> 0);
      expect(await register(one, 1)).toBe(before);
      expect(before & 0x3).toBe(0x1);
    });

    test('a BAR that is not there takes nothing', async () => {
      for (const index of [4, 5]) {
        await fn.configWrite(0x10 + 4 * index, 4, 0xffffffff);
        expect(await register(fn, index)).toBe(0);
      }
    });
  });

  describe('an access', () => {
    test.each([1, 2, 4, 8] as const)('of %i bytes at every aligned offset of 32 reads and writes just those bytes', async (width) => {
      const bytes = new Uint8Array(shared.memory, 0, 32);
      for (let at = 0; at < 32; at += width) {
        bytes.forEach((_, i) => (bytes[i] = 0xa0 + i));
        const expected = Uint8Array.from(bytes);
        let value = 0n;
        for (let i = width - 1; i >= 0; i -= 1) value = (value << 8n) | BigInt(bytes[at + i] ?? 0);
        expect(await fn.memRead(2, at, width)).toBe(value);
        await fn.memWrite(2, at, width, 0n);
        expected.fill(0, at, at + width);
        expect(bytes).toEqual(expected);
      }
    });

    test('at the last byte of the BAR reaches the last byte of the memory behind it', async () => {
      const bytes = new Uint8Array(shared.memory);
      bytes[bytes.length - 1] = 0x5a;
      expect(await fn.memRead(2, bytes.length - 1, 1)).toBe(0x5an);
    });

    test('of I/O space goes to the I/O BAR', async () => {
      const one = await vm.functionOf(sized[0] ?? rom);
      await one.ioWrite(1, 0, 1, 0);
      const offset = await one.ioRead(1, 4, 4);
      await one.ioWrite(1, offset, 1, await one.ioRead(1, 8, 1));
      expect(await one.ioRead(1, 12, 4)).toBe(1);
    });
  });

  describe('moved', () => {
    test('within its bridge\'s window, it answers at the new place only', async () => {
      const before = (await fn.bar(0)).address;
      const after = before + 0x8000n;
      await fn.moveBar(0, after);
      expect([await readAt(after + IV_POSITION), await readAt(before + IV_POSITION), await mapped(fn, 0)]).toEqual([1, 0, after]);
      await fn.moveBar(0, before);
      expect([await readAt(after + IV_POSITION), await readAt(before + IV_POSITION)]).toEqual([0, 1]);
    });

    test('out of its bridge\'s window, it answers nowhere; moved back, it answers again', async () => {
      await mark(0x55667788);
      const away = 0x20_0000_0000n;
      await fn.moveBar(2, away);
      expect(await readAt(away)).toBe(0);
      expect(await readAt(home)).toBe(0);
      await fn.moveBar(2, home);
      expect(await readAt(home)).toBe(0x55667788);
    });

    test('with its bridge\'s window, it answers at the new place only', async () => {
      await mark(0x99aabbcc);
      const port = await vm.functionOf('rp1');
      const windowBefore = [await port.configRead(0x24, 4), await port.configRead(0x28, 4), await port.configRead(0x2c, 4)] as const;
      const away = 0x20_0000_0000n;
      await port.configWrite(0x28, 4, Number(away >> 32n));
      await port.configWrite(0x2c, 4, Number(away >> 32n));
      await port.configWrite(0x24, 4, 0x00010001);
      await fn.moveBar(2, away);
      expect([await readAt(away), await readAt(home), await mapped(fn, 2)]).toEqual([0x99aabbcc, 0, away]);
      await fn.moveBar(2, home);
      await port.configWrite(0x24, 4, windowBefore[0]);
      await port.configWrite(0x28, 4, windowBefore[1]);
      await port.configWrite(0x2c, 4, windowBefore[2]);
      expect(await readAt(home)).toBe(0x99aabbcc);
    });

    test('over RAM, RAM wins', async () => {
      const at = await vm.allocate(2 ** 20, 2 ** 20);
      await vm.qtest.memoryWrite(at, 4, 0x0badcafen);
      await mark(0x12121212);
      await fn.moveBar(2, at);
      expect(await readAt(at)).toBe(0x0badcafe);
      await fn.moveBar(2, home);
    });
  });

  describe('decoding', () => {
    test('off, memory reads 0, writes go nowhere, and QEMU maps it nowhere; on, it is back', async () => {
      await mark(0x31415926);
      const before = await fn.command({ MEMORY: false });
      expect(before & MEMORY).toBe(MEMORY);
      expect([await readAt(home), await mapped(fn, 2)]).toEqual([0, undefined]);
      await vm.qtest.memoryWrite(home, 4, 0n);
      await fn.command({ MEMORY: true });
      expect([await readAt(home), await mapped(fn, 2)]).toEqual([0x31415926, home]);
    });

    test('of I/O off, the ports read ones, and memory is still decoded', async () => {
      const one = await vm.functionOf(sized[0] ?? rom);
      const { address } = await one.bar(1);
      const before = await one.command({ IO: false });
      expect(before & IO).toBe(IO);
      expect(await vm.qtest.ioRead(Number(address) + 4, 4)).toBe(0xffffffff);
      expect(await mapped(one, 0)).toBe((await one.bar(0)).address);
      await one.command({ IO: true });
      expect(await vm.qtest.ioRead(Number(address) + 4, 4)).not.toBe(0xffffffff);
    });

    test('off in the bridge above hides what is behind, and leaves the function\'s own registers as they are', async () => {
      await mark(0x27182818);
      const port = await vm.functionOf('rp1');
      await port.command({ MEMORY: false });
      expect(await readAt(home)).toBe(0);
      expect((await fn.bar(2)).address).toBe(home);
      await port.command({ MEMORY: true });
      expect(await readAt(home)).toBe(0x27182818);
    });
  });

  test('reserved bits of the command register read zero, whatever is written', async () => {
    const before = await fn.configRead(0x04, 2);
    await fn.configWrite(0x04, 2, 0xffff);
    expect(await fn.configRead(0x04, 2) & 0xf800).toBe(0);
    await fn.configWrite(0x04, 2, before);
  });

  test.each([['vendor and device id', 0x00], ['revision and class', 0x08], ['subsystem ids', 0x2c]])('%s are read-only', async (_name, offset) => {
    const before = await fn.configRead(offset, 4);
    for (const value of [0, 0xffffffff]) {
      await fn.configWrite(offset, 4, value);
      expect(await fn.configRead(offset, 4)).toBe(before);
    }
  });

  test('two BARs of one function at one address: one of them answers, and each is itself when they part', async () => {
    const apart = (await fn.bar(0)).address;
    const over = (await fn.bar(1)).address;
    await fn.memWrite(1, Number(IV_POSITION), 4, 0x77n);
    await fn.moveBar(0, over);
    expect([await mapped(fn, 0), await mapped(fn, 1)]).toEqual([over, over]);
    expect([1, 0x77]).toContain(await readAt(over + IV_POSITION));
    await fn.moveBar(0, apart);
    expect([await readAt(apart + IV_POSITION), await readAt(over + IV_POSITION)]).toEqual([1, 0x77]);
  });

  describe('the expansion ROM', () => {
    test('has its size mask, with bits 10 to 1 reserved', async () => {
      const one = await vm.functionOf(rom);
      const before = await one.configRead(0x30, 4);
      await one.configWrite(0x30, 4, 0xfffffffe);
      expect(await one.configRead(0x30, 4)).toBe(0xffff0000);
      await one.configWrite(0x30, 4, before);
      expect(before & 0xffff).toBe(0);
      expect(before).not.toBe(0);
    });

    test('is read when it is enabled and memory decoding is on, and otherwise not', async () => {
      const one = await vm.functionOf(rom);
      const at = await one.configRead(0x30, 4);
      const word = async (): Promise<number> => readAt(BigInt(at) + 0x10n);
      expect(await word()).toBe(0);
      await one.configWrite(0x30, 4, (at | 1) >>> 0);
      expect(await word()).toBe(0x13121110);
      await vm.qtest.memoryWrite(BigInt(at) + 0x10n, 4, 0n);
      expect(await word()).toBe(0x13121110);
      await one.command({ MEMORY: false });
      expect(await word()).toBe(0);
      await one.command({ MEMORY: true });
      await one.configWrite(0x30, 4, at);
      expect(await word()).toBe(0);
    });
  });
});
