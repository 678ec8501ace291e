// What a guest can do to MSI-X beside masking: entries with one message, writes to the pending bits, bus mastering
// off. PCI Local Bus 3.0, 6.8.2 and 6.8.3; masks and counts are msix.suite.ts's, many vectors vectors.suite.ts's.
import { beforeEach, expect, test } from '@jest/globals';
import { ivshmem, readMsixCapability, type Ivshmem, type MsixCapability, type PciFunction, type ProbedFunction } from 'rootport';
import { useMachine } from 'rootport/jest';
import { xhci } from './xhci.ts';

const VECTORS = 16;
const COMMAND = 0x04;
const BUS_MASTER = 0x4;

let device: Ivshmem;
let fn: PciFunction;
let probe: ProbedFunction;
let controller: ProbedFunction;
let capability: MsixCapability;
const vm = useMachine({
  afterBoot: async (machine) => {
    device = ivshmem({ vectors: VECTORS });
    fn = await machine.plug(device);
    probe = await machine.probe(fn);
    controller = await machine.probe(await machine.plug(xhci())); // an unplug would not end: see msi.suite.ts
    const found = await readMsixCapability(probe);
    if (found === undefined) throw new Error('ivshmem shows no MSI-X capability');
    capability = found;
  },
});
beforeEach(async () => {
  await probe.enableVectors({ kind: 'msix', count: VECTORS });
});

const counts = async (): Promise<number[]> => (await probe.counters()).map(({ count }) => count);
const none = (): number[] => new Array<number>(VECTORS).fill(0);
/** Fire, and see it handled: whatever was fired before it has had its chance. */
async function fire(vector: number, handledBy = vector): Promise<void> {
  const { count } = await probe.counter(handledBy);
  device.fire(vector);
  await probe.waitForCount(handledBy, count + 1);
}
/** Write an entry's message with the vector unmasked, as no driver does: address low and high, data. */
async function writeMessage(vector: number, { address, data }: { address: bigint; data: number }): Promise<void> {
  const at = capability.tableOffset + 16 * vector;
  for (const [i, word] of [address & 0xffffffffn, address >> 32n, BigInt(data)].entries()) await probe.memWrite(capability.tableBar, at + 4 * i, 4, word);
}

test('two entries with the same message: each one\'s fire is the same vector\'s, and told apart again they are two', async () => {
  const [first, second] = [await probe.tableEntry(3), await probe.tableEntry(5)];
  await writeMessage(5, first);
  expect(await probe.tableEntry(5)).toEqual(first);
  const firedBefore = fn.fireWitness?.fired().get(5) ?? 0;
  await fire(3);
  await fire(5, 3);
  await fire(3);
  await fire(5, 3);
  expect(await counts()).toEqual(none().with(3, 4));
  await writeMessage(5, second);
  await fire(5);
  await fire(3);
  expect(await counts()).toEqual(none().with(3, 5).with(5, 1));
  // The device fired vector 5 three times, and Linux was told of it once.
  expect((fn.fireWitness?.fired().get(5) ?? 0) - firedBefore).toBe(3);
});

test('the pending bits cannot be written: the bit that is set stays, those that are not stay clear, and one message comes', async () => {
  await probe.maskVector(4);
  device.fire(4);
  await fire(6);
  for (const value of [0n, 0xffffffffn]) {
    for (const half of [0, 4]) await probe.memWrite(capability.pbaBar, capability.pbaOffset + half, 4, value);
    expect(await probe.pendingVectors()).toEqual([4]);
  }
  expect(await counts()).toEqual(none().with(6, 1));
  await probe.unmaskVector(4);
  expect(await probe.waitForCount(4, 1)).toBe(1);
  await fire(6);
  expect(await counts()).toEqual(none().with(4, 1).with(6, 2));
  expect(await probe.pendingVectors()).toEqual([]);
});

test('with bus mastering off a fire is lost and not stored: on again, nothing comes of it', async () => {
  const command = await probe.configRead(COMMAND, 2);
  expect(command & BUS_MASTER).toBe(BUS_MASTER);
  await probe.configWrite(COMMAND, 2, command & ~BUS_MASTER);
  device.fire(7);
  // Its eventfd has been read when the shared memory's next access comes back: QEMU serves both in one loop.
  await vm.qmp.execute('query-status');
  await probe.memRead(0, 8, 4);
  await probe.configWrite(COMMAND, 2, command);
  await fire(8);
  expect(await counts()).toEqual(none().with(8, 1));
  expect(await probe.pendingVectors()).toEqual([]);
});

test('without interrupt remapping Linux grants one MSI message and refuses two, though the function has sixteen', async () => {
  await expect(controller.enableVectors({ kind: 'msi', count: 2 })).rejects.toThrow(/ENOSPC.*the kernel gave no 2 msi vectors/);
  expect(await controller.enableVectors({ kind: 'msi', count: 1 })).toHaveLength(1);
  await controller.disableVectors();
});
