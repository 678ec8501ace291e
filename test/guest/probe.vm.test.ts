// The probe module in a real guest, through its client: edu and ivshmem driven by hand.
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { DeadlineError, ProtocolError, UsageError } from '../../src/errors.ts';
import { EDU, edu } from '../../src/devices/edu/index.ts';
import { ivshmem } from '../../src/devices/ivshmem/index.ts';
import { Probe } from '../../src/guest/probe.ts';
import type { ProbedFunction } from '../../src/guest/probe-function.ts';
import { errnoNameOf } from '../../src/guest/probe-protocol.ts';
import { restore } from '../../src/machine/kept-snapshots.ts';
import type { Machine } from '../../src/machine/machine.ts';
import { readMsixCapability, writeMsixControl } from '../../src/pci/msix.ts';
import { q35 } from '../../src/qemu/preset.ts';

const EDU_ACK = { bar: 0, width: 4, statusOffset: EDU.INTERRUPT_STATUS, acknowledgeOffset: EDU.INTERRUPT_ACKNOWLEDGE } as const;
const VECTORS = 16;

let machine: Machine, probe: Probe, eduFn: ProbedFunction, iv: ProbedFunction;
const doorbell = ivshmem({ vectors: VECTORS });

beforeAll(async () => {
  machine = await restore({ machine: q35({ cpus: 2 }) });
  probe = await Probe.load(machine);
  eduFn = await probe.bind((await machine.plug(edu())).bdf);
  iv = await probe.bind((await machine.plug(doorbell)).bdf);
}, 180_000);
afterAll(async () => { await machine?.close(); });

async function errnoOf(work: Promise<unknown>): Promise<string | undefined> {
  return work.then(() => 'no error', (error: unknown) => errnoNameOf(error) ?? String(error));
}

/** Fire paced by the guest's own handling: no two can merge. */
async function fire(vector: number, times: number): Promise<void> {
  for (let i = 0; i < times; i++) {
    const { count } = await iv.counter(vector);
    doorbell.fire(vector);
    await iv.waitForCount(vector, count + 1);
  }
}

describe('binding', () => {
  test('the driver in sysfs is the probe, and the module logged the call', async () => {
    const { stdout } = await machine.guest.run(`readlink /sys/bus/pci/devices/${eduFn.bdf}/driver`);
    expect(stdout.trim()).toMatch(/\/rootport_probe$/);
    expect(await probe.events({ bdf: eduFn.bdf })).toMatchObject([{ kind: 'probe', detail: '0', vendorId: EDU.vendorId, deviceId: EDU.deviceId }]);
  });

  test('binding twice is no error, and keeps the one binding', async () => {
    await probe.bind(eduFn.bdf);
    expect(await probe.events({ bdf: eduFn.bdf })).toHaveLength(1);
  });

  test('a function that is not there is a UsageError with ENODEV', async () => {
    const error = await probe.bind('0000:00:1e.6').catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(UsageError);
    expect(errnoNameOf(error)).toBe('ENODEV');
  });

  test('loading the module a second time is EEXIST, and loading through the client is not repeated', async () => {
    const built = await machine.buildModule('images/probe');
    expect(built.warnings).toBe('');
    const insmod = await machine.guest.attempt('insmod /tmp/modules/rootport_probe.ko');
    expect(insmod.exitCode).not.toBe(0);
    expect(insmod.stderr).toMatch(/File exists/);
    await expect(Probe.load(machine)).resolves.toBeInstanceOf(Probe);
  });

  test('a function taken from a driver goes back to it', async () => {
    // The last root port: nothing is plugged into it.
    const bdf = (await machine.guest.run('ls /sys/bus/pci/drivers/pcieport | grep ^0000 | tail -n 1')).stdout.trim();
    const fn = await probe.bind(bdf);
    expect(fn.previousDriver).toBe('pcieport');
    expect(await fn.configRead(0x0a, 2)).toBe(0x0604);
    expect(await probe.unbind(fn, { restore: true })).toBe('pcieport');
    expect(await errnoOf(fn.configRead(0, 2))).toBe('ENODEV');
    await expect(probe.unbind(fn)).rejects.toThrow(UsageError);
  });
});

describe('config space and BARs', () => {
  test('config space reads at each width what it is', async () => {
    expect([await eduFn.configRead(0, 1), await eduFn.configRead(2, 2), await eduFn.configRead(0, 4)]).toEqual([0x34, 0x11e8, 0x11e81234]);
    const line = await eduFn.configRead(0x3c, 1);
    await eduFn.configWrite(0x3c, 1, 0x5a);
    expect(await eduFn.configRead(0x3c, 1)).toBe(0x5a);
    await eduFn.configWrite(0x3c, 1, line);
  });

  test("edu's registers answer through BAR0, and a factorial comes out", async () => {
    expect(await eduFn.memRead(0, EDU.IDENTIFICATION, 4)).toBe(0x010000edn);
    await eduFn.memWrite(0, EDU.LIVENESS, 4, 0x12345678n);
    expect(await eduFn.memRead(0, EDU.LIVENESS, 4)).toBe(0xedcba987n);
    await eduFn.memWrite(0, EDU.FACTORIAL, 4, 10n);
    while (((await eduFn.memRead(0, EDU.STATUS, 4)) & BigInt(EDU.STATUS_COMPUTING)) !== 0n);
    expect(await eduFn.memRead(0, EDU.FACTORIAL, 4)).toBe(3628800n);
  });

  test('shared memory takes each width, little-endian, and the host sees it', async () => {
    await iv.memWrite(2, 8, 8, 0x0123_4567_89ab_cdefn);
    expect(await iv.memRead(2, 8, 1)).toBe(0xefn);
    expect(await iv.memRead(2, 8, 2)).toBe(0xcdefn);
    expect(await iv.memRead(2, 12, 4)).toBe(0x01234567n);
    expect(new DataView(doorbell.memory).getBigUint64(8, true)).toBe(0x0123_4567_89ab_cdefn);
  });

  test.each([
    ['past the BAR', 'ERANGE', () => eduFn.memRead(0, EDU.bar0SizeBytes, 4)],
    ['that wraps', 'ERANGE', () => eduFn.memRead(0, Number.MAX_SAFE_INTEGER, 1)],
    ['across the end', 'ERANGE', () => eduFn.memRead(0, EDU.bar0SizeBytes - 4, 8)],
    ['misaligned', 'EINVAL', () => eduFn.memRead(0, 2, 4)],
    ['in a BAR that is not there', 'ENXIO', () => eduFn.memRead(1, 0, 4)],
    ['in BAR 6', 'ENXIO', () => eduFn.memRead(6, 0, 4)],
    ['as I/O of a memory BAR', 'EINVAL', () => eduFn.ioRead(0, 0, 4)],
    ['past config space', 'ERANGE', () => eduFn.configRead(256, 4)],
    ['misaligned in config space', 'EINVAL', () => eduFn.configRead(2, 4)],
    ['of a value too wide', 'ERANGE', () => eduFn.configWrite(0x3c, 1, 256)],
  ])('an access %s is a UsageError with %s', async (_, errno, access) => {
    const error = await access().then(() => 'no error', (reason: unknown) => reason);
    expect(error).toBeInstanceOf(UsageError);
    expect(errnoNameOf(error)).toBe(errno);
  });

  test('a BAR that was moved is read at its new address after remapBar', async () => {
    const before = await eduFn.configRead(0x10, 4);
    expect(await eduFn.remapBar(0)).toBe(BigInt(before));
    await eduFn.configWrite(0x10, 4, before + EDU.bar0SizeBytes);
    expect(await eduFn.memRead(0, EDU.IDENTIFICATION, 4)).not.toBe(0x010000edn);
    expect(await eduFn.remapBar(0)).toBe(BigInt(before + EDU.bar0SizeBytes));
    expect(await eduFn.memRead(0, EDU.IDENTIFICATION, 4)).toBe(0x010000edn);
    await eduFn.configWrite(0x10, 4, 0x0100_0000);
    expect(await errnoOf(eduFn.remapBar(0))).toBe('EBUSY');
    await eduFn.configWrite(0x10, 4, before);
    await eduFn.remapBar(0);
    expect(await eduFn.memRead(0, EDU.IDENTIFICATION, 4)).toBe(0x010000edn);
  });
});

describe('edu: MSI and INTx', () => {
  test.each(['msi', 'intx'] as const)('%s: each raise is counted once, with its status, and acknowledged', async (kind) => {
    await eduFn.setAcknowledge(EDU_ACK);
    const [before] = await eduFn.enableVectors({ kind });
    expect(before).toMatchObject({ vector: 0, count: 0, lastCpu: undefined, lastTimeNs: undefined });
    for (let i = 1; i <= 5; i++) {
      await eduFn.memWrite(0, EDU.INTERRUPT_RAISE, 4, BigInt(i));
      expect(await eduFn.waitForCount(0, i)).toBe(i);
      expect(await eduFn.counter(0)).toMatchObject({ count: i, lastStatus: BigInt(i), irq: before?.irq });
    }
    expect(await eduFn.memRead(0, EDU.INTERRUPT_STATUS, 4)).toBe(0n);
    expect(await errnoOf(eduFn.enableVectors({ kind: 'msi' }))).toBe('EBUSY');
    await eduFn.disableVectors();
    expect(await errnoOf(eduFn.disableVectors())).toBe('ENOENT');
    await eduFn.setAcknowledge(undefined);
  });

  test('INTx without a rule is counted once and masked until unmasked', async () => {
    await eduFn.enableVectors({ kind: 'intx' });
    await eduFn.memWrite(0, EDU.INTERRUPT_RAISE, 4, 1n);
    await eduFn.waitForCount(0, 1);
    expect(await eduFn.counter(0)).toMatchObject({ count: 1, masked: true });
    expect(await eduFn.pendingVectors()).toEqual([0]);
    await eduFn.unmaskVector(0);
    expect(await eduFn.counter(0)).toMatchObject({ count: 2, masked: true });
    await eduFn.memWrite(0, EDU.INTERRUPT_ACKNOWLEDGE, 4, 1n);
    await eduFn.unmaskVector(0);
    expect(await eduFn.counter(0)).toMatchObject({ count: 2, masked: false });
    await eduFn.disableVectors();
  });

  test('a rule that quiets nothing is cut off, and logged as a storm', async () => {
    await eduFn.setAcknowledge({ ...EDU_ACK, statusOffset: EDU.IDENTIFICATION });
    await eduFn.enableVectors({ kind: 'intx' });
    await eduFn.memWrite(0, EDU.INTERRUPT_RAISE, 4, 0x10000n);
    await machine.guest.until(`grep -q ' storm ${eduFn.bdf} ' /sys/kernel/debug/rootport_probe/events`, 'the storm to be cut off', 20_000);
    expect(await eduFn.counter(0)).toMatchObject({ masked: true });
    await eduFn.disableVectors();
    await eduFn.memWrite(0, EDU.INTERRUPT_ACKNOWLEDGE, 4, 0x10000n);
    await eduFn.setAcknowledge(undefined);
  });

  test.each([
    ['MSI-X where there is none', 'EOPNOTSUPP', () => eduFn.enableVectors({ kind: 'msix' })],
    ['a second MSI vector', 'ENOSPC', () => eduFn.enableVectors({ kind: 'msi', count: 2 })],
    ['no vector', 'EINVAL', () => eduFn.enableVectors({ kind: 'msi', count: 0 })],
    ['MSI beside no vectors', 'EINVAL', () => eduFn.enableBeside('msi')],
    ['counts of none', 'ENOENT', () => eduFn.counters()],
    ['a table entry without a table', 'EOPNOTSUPP', () => eduFn.tableEntry(0)],
  ])('%s: %s', async (_, errno, work) => {
    expect(await errnoOf(work())).toBe(errno);
  });
});

describe('edu: DMA', () => {
  test('bytes go to the device and come back to another place', async () => {
    const buffer = await eduFn.allocateDma({ sizeBytes: 65536, addressBits: 28 });
    expect(buffer.busAddress).toBeLessThan(1n << 28n);
    const sent = Buffer.from(Array.from({ length: 4000 }, (_, i) => i * 7 & 0xff));
    await buffer.write(100, sent);
    const transfer = async (source: bigint, destination: bigint, command: number): Promise<void> => {
      await eduFn.memWrite(0, EDU.DMA_SOURCE, 8, source);
      await eduFn.memWrite(0, EDU.DMA_DESTINATION, 8, destination);
      await eduFn.memWrite(0, EDU.DMA_COUNT, 8, 4000n);
      await eduFn.memWrite(0, EDU.DMA_COMMAND, 8, BigInt(command));
      while (((await eduFn.memRead(0, EDU.DMA_COMMAND, 8)) & BigInt(EDU.DMA_START)) !== 0n);
    };
    await transfer(buffer.busAddress + 100n, EDU.DMA_BUFFER, EDU.DMA_START);
    await transfer(EDU.DMA_BUFFER, buffer.busAddress + 0x8000n, EDU.DMA_START | EDU.DMA_FROM_DEVICE);
    expect(await buffer.read(0x8000, 4000)).toEqual(sent);
    expect(await buffer.read(0x8000 + 4000, 2)).toEqual(Buffer.from([0, 0]));
    expect(await errnoOf(eduFn.allocateDma({ sizeBytes: 4096 }))).toBe('EBUSY');
    expect(await errnoOf(buffer.read(65535, 2))).toBe('ERANGE');
    await expect(buffer.write(65535, new Uint8Array(2))).rejects.toThrow(UsageError);
    await buffer.free();
    expect(await errnoOf(buffer.read(0, 1))).toBe('ENOENT');
  });

  test.each([[0, 28, 'EINVAL'], [65537, 28, 'ERANGE'], [4096, 65, 'ERANGE'], [4096, 8, 'EIO']])('%d bytes of %d-bit address space: %s', async (sizeBytes, addressBits, errno) => {
    expect(await errnoOf(eduFn.allocateDma({ sizeBytes, addressBits }))).toBe(errno);
  });
});

describe('ivshmem: MSI-X', () => {
  beforeAll(async () => { await iv.enableVectors({ kind: 'msix', count: VECTORS }); });
  afterAll(async () => { await iv.disableVectors(); });

  test('vector k fired k mod 4 times was handled k mod 4 times, and no other moved', async () => {
    const before = await iv.counters();
    for (let vector = 0; vector < VECTORS; vector++) await fire(vector, vector % 4);
    const after = await iv.counters();
    expect(after.map(({ count }, vector) => count - (before[vector]?.count ?? NaN))).toEqual(Array.from({ length: VECTORS }, (_, vector) => vector % 4));
    const interrupts = await machine.guest.run('grep -c rootport_probe-0000 /proc/interrupts');
    expect(Number(interrupts.stdout)).toBe(VECTORS);
  });

  test('a masked vector stays pending, and unmasking delivers exactly one', async () => {
    const { count } = await iv.counter(3);
    await iv.maskVector(3);
    await iv.maskVector(3);
    expect(await iv.tableEntry(3)).toMatchObject({ masked: true });
    doorbell.fire(3);
    await untilPending(1n << 3n);
    doorbell.fire(3);
    expect(await iv.counter(3)).toMatchObject({ count, masked: true });
    await iv.unmaskVector(3);
    expect(await iv.waitForCount(3, count + 1)).toBe(count + 1);
    expect(await iv.pendingVectors()).toEqual([]);
    expect(await iv.tableEntry(3)).toMatchObject({ masked: false });
    await expect(iv.waitForCount(3, count + 2, { timeoutMs: 100 })).rejects.toThrow(DeadlineError);
  });

  test('Function Mask holds all, and each pending one comes once when it is lifted', async () => {
    const capability = await readMsixCapability(iv);
    if (capability === undefined) throw new Error('no MSI-X');
    const before = await iv.counters();
    await writeMsixControl(iv, capability, { enabled: true, functionMasked: true });
    doorbell.fire(7);
    doorbell.fire(9);
    await untilPending(1n << 7n | 1n << 9n);
    expect((await iv.counters()).map(({ count }) => count)).toEqual(before.map(({ count }) => count));
    await writeMsixControl(iv, capability, { enabled: true, functionMasked: false });
    await iv.waitForCount(9, (before[9]?.count ?? NaN) + 1);
    expect(await iv.waitForCount(7, (before[7]?.count ?? NaN) + 1)).toBe((before[7]?.count ?? NaN) + 1);
  });

  test('a vector moved to the other CPU is handled there', async () => {
    for (const cpu of [1, 0, 1]) {
      await iv.setAffinity(5, cpu);
      await fire(5, 2); // the first may still be taken where the vector was
      expect(await iv.counter(5)).toMatchObject({ lastCpu: cpu });
    }
  });

  test('a wait that ends after the deadline says for what', async () => {
    await expect(iv.waitForCount(0, 1_000_000, { timeoutMs: 50 })).rejects.toThrow(/vector 0 of .* 1000000 times/);
  });

  test.each([
    ['a vector that is not allocated', 'ERANGE', () => iv.maskVector(VECTORS)],
    ['an entry past the table', 'ERANGE', () => iv.tableEntry(VECTORS)],
    ['MSI beside MSI-X', 'EBUSY', () => iv.enableVectors({ kind: 'msi' })],
  ])('%s: %s', async (_, errno, work) => {
    expect(await errnoOf(work())).toBe(errno);
  });
});

describe('going away', () => {
  test('unplugged with vectors, a buffer and a wait under way: the wait ends, remove() is logged, nothing is left', async () => {
    const device = edu();
    const { bdf } = await machine.plug(device);
    const fn = await probe.bind(bdf);
    await fn.enableVectors({ kind: 'msi' });
    await fn.allocateDma({ sizeBytes: 4096, addressBits: 28 });
    const { sequence } = (await probe.events()).at(-1) ?? { sequence: 0 };
    const waiting = fn.waitForCount(0, 1, { timeoutMs: 30_000 }).catch((error: unknown) => error);
    await machine.guest.until('grep -q rpp_irq_wait /proc/*/stack 2>/dev/null', 'the wait to begin', 10_000);
    await machine.unplug(device);
    const error = await waiting;
    expect(error).toBeInstanceOf(ProtocolError);
    expect(errnoNameOf(error)).toBe('ENODEV');
    expect((await probe.events({ bdf, since: sequence })).map(({ kind, detail }) => `${kind} ${detail}`)).toEqual(['remove present', 'removed ']);
    expect(await errnoOf(fn.configRead(0, 4))).toBe('ENODEV');
    expect(await machine.guest.attempt(`grep -e rootport_probe-${bdf} /proc/interrupts`)).toMatchObject({ exitCode: 1 });
  });

  test('the module can be unloaded with a function bound, and the kernel has nothing to say', async () => {
    await iv.enableVectors({ kind: 'msix', count: VECTORS });
    await machine.guest.unloadModule('rootport_probe');
    expect(await machine.guest.attempt('grep -r rootport_probe /proc/interrupts /proc/iomem')).toMatchObject({ exitCode: 1 });
    await expect(probe.bind(eduFn.bdf)).rejects.toThrow(/not loaded/);
    expect(machine.kernelLog.reports.map(({ title }) => title)).toEqual([]);
  });
});

async function untilPending(bits: bigint): Promise<void> {
  for (const deadline = Date.now() + 5000; (await iv.pendingBits()) !== bits;) {
    if (Date.now() > deadline) throw new DeadlineError(`pending bits 0x${bits.toString(16)}`, 5000);
  }
}
