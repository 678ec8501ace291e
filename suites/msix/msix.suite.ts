// MSI-X, from the device that fires to the handler that counts: ivshmem-doorbell with 16 vectors through
// the probe, and virtio-blk with a queue for each CPU through its in-tree driver.
// FACTS of eventfds: fires closer than 1 ms may merge, so exact counts are asked of acknowledged fires.
import { beforeEach, describe, expect, test } from '@jest/globals';
import { ivshmem, pc, q35, virtioBlk, type Ivshmem, type PciFunction, type ProbedFunction, type VirtioBlk } from 'rootport';
import { useMachine } from 'rootport/jest';

describe.each([['q35', q35({ ports: 1 })], ['pc', pc({ ports: 1 })]])('ivshmem with 16 vectors on %s', (_, machine) => {
  const VECTORS = 16;
  let device: Ivshmem;
  let fn: PciFunction;
  let probe: ProbedFunction;
  const vm = useMachine({
    machine,
    afterBoot: async (booted) => {
      device = ivshmem({ vectors: VECTORS });
      fn = await booted.plug(device);
      probe = await booted.probe(fn);
    },
  });
  beforeEach(() => probe.enableVectors({ kind: 'msix', count: VECTORS }));

  const counts = async (): Promise<number[]> => (await probe.counters()).map((one) => one.count);
  /** Fire and wait for the handler, so that no two fires merge. */
  async function fire(vector: number, times: number): Promise<void> {
    const { count } = await probe.counter(vector);
    for (let n = 1; n <= times; n += 1) {
      device.fire(vector);
      await probe.waitForCount(vector, count + n);
    }
  }

  test('the capability has 16 vectors, table and PBA in BAR 1, and while they are allocated a second allocation is EBUSY', async () => {
    await expect(fn).toHaveMsix({ vectors: VECTORS, tableBar: 1, pbaBar: 1 });
    await expect(probe.enableVectors({ kind: 'msix', count: 1 })).rejects.toThrow(/EBUSY/);
    await expect(vm).toHaveCleanLog();
  });

  test('each vector k fired n_k times is handled n_k times, and no other moves', async () => {
    const wanted = Array.from({ length: VECTORS }, (_, k) => (k * 5) % 7);
    for (const [vector, times] of wanted.entries()) {
      const others = (await counts()).with(vector, 0);
      await fire(vector, times);
      expect((await counts()).with(vector, 0)).toEqual(others);
    }
    expect(await counts()).toEqual(wanted);
    await expect(fn).toHaveDelivered({ vector: 6, atLeast: 2 });
  });

  test('device, VMM and guest agree on every delivery', async () => {
    await fire(3, 5);
    await fire(11, 2);
    expect((await counts()).filter((count) => count > 0)).toEqual([5, 2]);
    await expect(fn).toHaveDelivered({ vector: 3, atLeast: 5 });
    await expect(fn).toHaveDelivered({ vector: 11, atLeast: 2 });
  });

  test('a masked vector is pending and not handled; unmasked, it is handled exactly once', async () => {
    await probe.maskVector(4);
    expect((await probe.tableEntry(4)).masked).toBe(true);
    device.fire(4);
    await fire(5, 1); // behind it, so that 4 had its chance
    await pending([4]);
    expect((await probe.counter(4)).count).toBe(0);
    await probe.unmaskVector(4);
    expect(await probe.waitForCount(4, 1)).toBe(1);
    await pending([]);
    await fire(5, 1);
    expect((await probe.counter(4)).count).toBe(1);
  });

  test('fired three times while masked, a vector is delivered once', async () => {
    await probe.maskVector(9);
    for (let n = 0; n < 3; n += 1) {
      device.fire(9);
      await fire(10, 1);
    }
    await pending([9]);
    await probe.unmaskVector(9);
    expect(await probe.waitForCount(9, 1)).toBe(1);
    await fire(10, 1);
    expect((await probe.counter(9)).count).toBe(1);
  });

  test('the function mask holds every vector back, and lifted, each pending one is handled exactly once', async () => {
    const control = await msixControl();
    await probe.configWrite(control.offset, 2, control.value | 0x4000);
    device.fire(1);
    device.fire(14);
    await pending([1, 14]);
    expect(await counts()).toEqual(new Array(VECTORS).fill(0));
    await probe.configWrite(control.offset, 2, control.value & ~0x4000);
    await probe.waitForCount(1, 1);
    await probe.waitForCount(14, 1);
    await pending([]);
    await fire(2, 1);
    expect(await counts()).toEqual(new Array(VECTORS).fill(0).with(1, 1).with(2, 1).with(14, 1));
  });

  test('with MSI-X disabled a fire is lost: nothing is handled and nothing is pending', async () => {
    const control = await msixControl();
    await probe.configWrite(control.offset, 2, control.value & ~0x8000);
    device.fire(7);
    await probe.configWrite(control.offset, 2, control.value | 0x8000);
    await fire(8, 1);
    expect(await probe.pendingVectors()).toEqual([]);
    expect((await probe.counter(7)).count).toBe(0);
  });

  /** The pending bits that the device shows, once the fires on their way have arrived. */
  async function pending(vectors: number[]): Promise<void> {
    let seen: number[] = [];
    for (let look = 0; look < 1000; look += 1) {
      seen = await probe.pendingVectors();
      if (`${seen}` === `${vectors}`) return;
    }
    expect(seen).toEqual(vectors);
  }

  async function msixControl(): Promise<{ offset: number; value: number }> {
    let at = await probe.configRead(0x34, 1);
    while (at !== 0 && (await probe.configRead(at, 1)) !== 0x11) at = await probe.configRead(at + 1, 1);
    expect(at).not.toBe(0);
    return { offset: at + 2, value: await probe.configRead(at + 2, 2) };
  }
});

describe('virtio-blk with 4 queues', () => {
  const QUEUES = 4;
  let disk: VirtioBlk;
  let fn: PciFunction;
  let dev: string;
  const vm = useMachine({
    machine: q35({ cpus: QUEUES }),
    afterBoot: async (machine) => {
      disk = virtioBlk({ queues: QUEUES, capacityBytes: 2 ** 24 });
      fn = await machine.plug(disk);
      dev = (await machine.guest.run(`ls ${fn.sysfs}/virtio*/block`)).stdout.trim();
    },
  });

  test('it has a vector for each queue and one for configuration changes, and I/O pinned to a CPU moves that of the CPU\'s queue, and no other', async () => {
    await expect(fn).toHaveMsix({ vectors: QUEUES + 1, tableBar: 1 });
    const irqs = await fn.messageIrqs();
    expect(irqs).toHaveLength(QUEUES + 1);
    const handled = async (): Promise<number[]> => {
      const { stdout } = await vm.guest.run('cat /proc/interrupts');
      return irqs.map((irq) => {
        const columns = new RegExp(`^ *${irq}:((?: +\\d+){${QUEUES}})`, 'm').exec(stdout)?.[1] ?? '';
        return columns.trim().split(/ +/).reduce((sum, word) => sum + Number(word), 0);
      });
    };
    const queueOf = async (cpu: number): Promise<number> => {
      const { stdout } = await vm.guest.run(`grep -lw ${cpu} /sys/block/${dev}/mq/*/cpu_list`);
      return Number(/mq\/(\d+)\//.exec(stdout)?.[1]);
    };
    const queues = [];
    for (let cpu = 0; cpu < QUEUES; cpu += 1) {
      const queue = await queueOf(cpu);
      queues.push(queue);
      const [before, taken] = [await handled(), disk.queue(queue).counts.taken];
      await vm.guest.run(`taskset -c ${cpu} dd if=/dev/${dev} of=/dev/null bs=4k count=32 iflag=direct 2>/dev/null`);
      const after = await handled();
      const moved = after.map((count, vector) => count - (before[vector] ?? 0));
      expect(moved.map((by) => by > 0)).toEqual(moved.map((_, vector) => vector === queue + 1));
      expect(disk.queue(queue).counts.taken - taken).toBeGreaterThanOrEqual(32);
      await expect(fn).toHaveDelivered({ vector: queue + 1, atLeast: 1 });
    }
    expect([...queues].sort()).toEqual([0, 1, 2, 3]);
    await expect(vm).toHaveCleanLog();
  });
});
