// QEMU's edu device through the probe module: identification, liveness, factorial, DMA, MSI and INTx.
// Register by register as in QEMU's docs/specs/edu.rst.
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { EDU, edu, type DmaBuffer, type PciFunction, type ProbedFunction } from 'rootport';
import { useMachine } from 'rootport/jest';

let fn: PciFunction;
let probe: ProbedFunction;
// Before useMachine's own, which closes the test's machine.
afterEach(() => expect(vm).toHaveCleanLog({ since: 'boot' }));
const vm = useMachine({
  warm: (_, machine) => machine.loadProbe(),
  afterBoot: async (machine) => {
    fn = await machine.plug(edu());
    probe = await machine.probe(fn);
  },
});

const read = async (offset: number): Promise<number> => Number(await probe.memRead(0, offset, 4));
const write = (offset: number, value: number): Promise<void> => probe.memWrite(0, offset, 4, BigInt(value));

/** The device computes in a thread of QEMU's: its status says when it is done. */
async function computed(): Promise<void> {
  for (let look = 0; look < 2000; look += 1) {
    if (((await read(EDU.STATUS)) & EDU.STATUS_COMPUTING) === 0) return;
  }
  throw new Error('edu still computes after 2000 looks at its status');
}

test('edu has the ids, the class and the one BAR of its specification, and names itself edu, version 1.0', async () => {
  expect(await probe.configRead(0x00, 2)).toBe(EDU.vendorId);
  expect(await probe.configRead(0x02, 2)).toBe(EDU.deviceId);
  expect(await probe.configRead(0x0a, 2)).toBe(0x00ff);
  await expect(fn).toHaveBar({ bar: 0, sizeBytes: EDU.bar0SizeBytes, type: 'mem32', prefetchable: false });
  expect(await read(EDU.IDENTIFICATION)).toBe(0x010000ed);
});

test('the liveness register inverts what is written to it', async () => {
  for (const value of [0x00000000, 0xffffffff, 0x12345678, 0xa5a5a5a5]) {
    await write(EDU.LIVENESS, value);
    expect([value, await read(EDU.LIVENESS)]).toEqual([value, ~value >>> 0]);
  }
});

test('a factorial is computed, by polling, with no interrupt', async () => {
  await write(EDU.STATUS, 0);
  for (const [n, factorial] of [[0, 1], [1, 1], [5, 120], [12, 479001600]] as const) {
    await write(EDU.FACTORIAL, n);
    await computed();
    expect([n, await read(EDU.FACTORIAL)]).toEqual([n, factorial]);
    expect(await read(EDU.INTERRUPT_STATUS)).toBe(0);
  }
});

const acknowledge = { bar: 0, width: 4, statusOffset: EDU.INTERRUPT_STATUS, acknowledgeOffset: EDU.INTERRUPT_ACKNOWLEDGE } as const;

describe.each(['msi', 'intx'] as const)('with %s', (kind) => {
  beforeEach(async () => {
    await probe.setAcknowledge(acknowledge);
    expect(await probe.enableVectors({ kind, count: 1 })).toMatchObject([{ vector: 0, count: 0 }]);
  });

  test('each raise of the interrupt is handled exactly once and acknowledged; so is the one of a factorial that asks for it', async () => {
    for (let n = 1; n <= 10; n += 1) {
      await write(EDU.INTERRUPT_RAISE, 0x40);
      expect(await probe.waitForCount(0, n)).toBe(n);
      expect(await read(EDU.INTERRUPT_STATUS)).toBe(0);
    }
    expect((await probe.counter(0)).count).toBe(10);
    await write(EDU.STATUS, EDU.STATUS_IRQ);
    await write(EDU.FACTORIAL, 7);
    expect(await probe.waitForCount(0, 11)).toBe(11);
    expect(await read(EDU.FACTORIAL)).toBe(5040);
    await write(EDU.STATUS, 0);
    expect((await probe.counter(0)).count).toBe(11);
  });

  if (kind === 'intx') {
    test('masked, an interrupt is not handled; unmasked, it is handled exactly once', async () => {
      await probe.maskVector(0);
      await write(EDU.INTERRUPT_RAISE, 1);
      expect((await probe.counter(0)).count).toBe(0);
      await probe.unmaskVector(0);
      expect(await probe.waitForCount(0, 1)).toBe(1);
    });
  }
});

test('edu offers one MSI vector without a mask bit, and no MSI-X: two, a mask, and MSI-X are refused with a plain errno', async () => {
  await expect(probe.enableVectors({ kind: 'msi', count: 2 })).rejects.toThrow(/ENOSPC/);
  await expect(probe.enableVectors({ kind: 'msix', count: 1 })).rejects.toThrow(/EOPNOTSUPP|ENODEV|EINVAL|ENOSPC/);
  await probe.enableVectors({ kind: 'msi', count: 1 });
  await expect(probe.maskVector(0)).rejects.toThrow(/EOPNOTSUPP/);
});

describe('DMA', () => {
  let dma: DmaBuffer;
  beforeEach(async () => {
    // edu reaches 28 bits of address. Less than a page at a time: QEMU 7.2 aborts on one of 4096 bytes.
    dma = await probe.allocateDma({ sizeBytes: 8192, addressBits: 28 });
  });

  async function transfer(source: bigint, destination: bigint, count: number, command: number): Promise<void> {
    await probe.memWrite(0, EDU.DMA_SOURCE, 8, source);
    await probe.memWrite(0, EDU.DMA_DESTINATION, 8, destination);
    await probe.memWrite(0, EDU.DMA_COUNT, 8, BigInt(count));
    await probe.memWrite(0, EDU.DMA_COMMAND, 8, BigInt(command | EDU.DMA_START));
  }
  async function transferred(): Promise<void> {
    for (let look = 0; look < 2000; look += 1) {
      if (((await probe.memRead(0, EDU.DMA_COMMAND, 8)) & BigInt(EDU.DMA_START)) === 0n) return;
    }
    throw new Error('edu still transfers after 2000 looks at its DMA command');
  }

  test('bytes go from the guest into the device and back, unchanged', async () => {
    const bytes = Buffer.from(Array.from({ length: 1000 }, (_, i) => (i * 37 + 11) & 0xff));
    await dma.write(0, bytes);
    await dma.write(4096, Buffer.alloc(1000));
    await transfer(dma.busAddress, EDU.DMA_BUFFER, 1000, 0);
    await transferred();
    await transfer(EDU.DMA_BUFFER, dma.busAddress + 4096n, 1000, EDU.DMA_FROM_DEVICE);
    await transferred();
    expect(await dma.read(4096, 1000)).toEqual(bytes);
    expect((await dma.read(5096, 8)).every((byte) => byte === 0)).toBe(true);
  });

  test('a transfer that asks for it interrupts once when it is done', async () => {
    await probe.setAcknowledge(acknowledge);
    await probe.enableVectors({ kind: 'msi', count: 1 });
    await transfer(dma.busAddress, EDU.DMA_BUFFER, 64, EDU.DMA_IRQ);
    expect(await probe.waitForCount(0, 1)).toBe(1);
    await transferred();
    expect((await probe.counter(0)).count).toBe(1);
  });
});
