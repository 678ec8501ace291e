// Must fail: the claimed vector's count is right, and another vector of the function was lost, sent astray or doubled.
import { beforeAll, expect, test } from '@jest/globals';
import { ivshmem, q35, virtioBlk, type Device, type FireWitness, type Ivshmem, type PciFunction, type ProbedFunction } from 'rootport';
import { useMachine } from 'rootport/jest';

const vm = useMachine({ machine: q35({ cpus: 2 }), fresh: 'file' }); // a device and its probe for all of the tests
const VECTORS = 8;
const TABLE_BAR = 1;
let device: Ivshmem, fn: PciFunction, probe: ProbedFunction;
/** Fires of vector 1 that the device does not own up to. */
let denied = 0;

beforeAll(async () => {
  device = ivshmem({ vectors: VECTORS });
  const lying: Device = {
    kind: device.kind,
    async attach(site) {
      const attachment = await device.attach(site);
      const { witness } = attachment as { witness: FireWitness };
      return { ...attachment, witness: { ...witness, fired: () => new Map(witness.fired()).set(1, (witness.fired().get(1) ?? 0) - denied) } };
    },
  };
  fn = await vm.plug(lying);
  probe = await vm.probe(fn);
  await probe.enableVectors({ kind: 'msix', count: VECTORS });
});

async function fire(vector: number, handledOn = vector): Promise<void> {
  const { count } = await probe.counter(handledOn);
  device.fire(vector);
  await probe.waitForCount(handledOn, count + 1);
}

/** Address and data of a table entry (PCI Local Bus 3.0, 6.8.2). */
async function message(vector: number): Promise<bigint[]> {
  return [await probe.memRead(TABLE_BAR, 16 * vector, 4), await probe.memRead(TABLE_BAR, 16 * vector + 8, 4)];
}

async function setMessage(vector: number, [address = 0n, data = 0n]: readonly bigint[]): Promise<void> {
  await probe.memWrite(TABLE_BAR, 16 * vector, 4, address);
  await probe.memWrite(TABLE_BAR, 16 * vector + 8, 4, data);
}

test('control: every vector that was fired was handled', async () => {
  const since = await vm.mark(fn);
  for (const vector of [1, 1, 2, 3]) await fire(vector);
  await expect(fn).toHaveDelivered([{ vector: 1, exactly: 2 }, { vector: 2, exactly: 1 }, { vector: 3, exactly: 1 }], { since, others: 'none' });
});

test('must fail: a vector has the message of another', async () => {
  const own = await message(1);
  await setMessage(1, await message(2));
  try {
    const since = await vm.mark(fn);
    await fire(1, 2);
    await fire(3);
    await expect(fn).toHaveDelivered({ vector: 3, exactly: 1, since, timeoutMs: 1500 });
  } finally {
    await setMessage(1, own);
  }
});

test('must fail: a vector is fired once and delivered twice', async () => {
  const since = await vm.mark(fn);
  await fire(1);
  await fire(1);
  denied = 1;
  try {
    await fire(3);
    await expect(fn).toHaveDelivered({ vector: 3, exactly: 1, since, timeoutMs: 1500 });
  } finally {
    denied = 0;
  }
});

test('must fail: a disk drops an interrupt of the queue that is not claimed', async () => {
  const disk = virtioBlk({ capacityBytes: 2 ** 20, queues: 2 });
  const diskFn = await vm.plug(disk);
  const name = (await vm.guest.run(`ls ${diskFn.sysfs}/virtio*/block`)).stdout.trim();
  const read = (cpu: number): string => `taskset -c ${cpu} dd if=/dev/${name} of=/dev/null bs=4k count=1 iflag=direct`;
  const since = await vm.mark(diskFn);
  disk.queue(0).dropInterrupts();
  const hanging = await vm.guest.start(read(0));
  await vm.guest.run(read(1));
  try {
    await expect(diskFn).toHaveDelivered({ vector: 2, exactly: 1, since, timeoutMs: 1500 });
  } finally {
    disk.queue(0).interrupt();
    await hanging.wait();
  }
  await vm.unplug(disk);
});
