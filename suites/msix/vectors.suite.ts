// MSI-X with as many vectors as there can be, and where they land: 1, 190 and 2048 vectors of ivshmem (Linux has some
// 195 a CPU: the most of all take twelve), and an affinity that is changed under fire.
// PCI Local Bus 3.0, 6.8.2; Linux Documentation/core-api/irq/irq-affinity.rst.
import { describe, expect, test } from '@jest/globals';
import { ivshmem, q35, type Ivshmem, type PciFunction, type ProbedFunction } from 'rootport';
import { useMachine, type TestMachine } from 'rootport/jest';

interface Plugged {
  readonly device: Ivshmem;
  readonly fn: PciFunction;
  readonly probe: ProbedFunction;
}

async function plugged(vm: TestMachine, vectors: number): Promise<Plugged> {
  const device = ivshmem({ vectors });
  const fn = await vm.plug(device);
  return { device, fn, probe: await vm.probe(fn) };
}

/** Each has an interrupt of its own, is fired once, and counts once; resolves to the CPUs that handled them. */
async function expectOneOfEach({ device, fn, probe }: Plugged): Promise<Set<number | undefined>> {
  const { vectors } = device;
  const given = await probe.enableVectors({ kind: 'msix', count: vectors });
  expect(new Set(given.map(({ irq }) => irq)).size).toBe(vectors);
  for (let vector = 0; vector < vectors; vector += 1) device.fire(vector);
  await probe.waitForCount(vectors - 1, 1, { timeoutMs: 20_000 });
  // The last has been handled: those before it are on other CPUs, and may be a moment behind.
  for (let look = 0; look < 200 && (await probe.counters()).some(({ count }) => count === 0); look += 1);
  const counts = await probe.counters();
  expect(counts.map(({ count }) => count)).toEqual(new Array(vectors).fill(1));
  expect(await probe.pendingVectors()).toEqual([]);
  expect([...fn.fireWitness?.fired().values() ?? []]).toEqual(new Array(vectors).fill(1));
  return new Set(counts.map(({ lastCpu }) => lastCpu));
}

describe('with four CPUs', () => {
  const CPUS = 4;
  const vm = useMachine({ machine: q35({ cpus: CPUS, ports: 1 }) });

  test.each([1, 190])('%i vectors: each is given, is handled exactly once, and leaves nothing pending', async (vectors) => {
    const all = await plugged(vm, vectors);
    await expect(all.fn).toHaveMsix({ vectors, tableBar: 1, pbaBar: 1 });
    await expectOneOfEach(all);
    await expect(all.fn).toHaveDelivered({ vector: vectors - 1, exactly: 1 });
    await expect(vm).toHaveCleanLog();
  });

  test('one vector more than the function has is refused, and none is kept', async () => {
    const { probe } = await plugged(vm, 190);
    await expect(probe.enableVectors({ kind: 'msix', count: 191 })).rejects.toThrow(/ENOSPC.*190 msix/);
    expect(await probe.enableVectors({ kind: 'msix', count: 190 })).toHaveLength(190);
  });

  test('an affinity that is moved while the vector fires lands on the new CPU from there on, and no interrupt is lost or doubled', async () => {
    const { device, fn, probe } = await plugged(vm, 2);
    await probe.enableVectors({ kind: 'msix', count: 2 });
    const { irq } = await probe.counter(1);
    const byCpu = async (): Promise<number[]> => {
      const { stdout } = await vm.guest.run(`grep '^ *${irq}:' /proc/interrupts`);
      return stdout.trim().split(/\s+/).slice(1, 1 + CPUS).map(Number);
    };
    let fired = 0;
    let firing = true;
    // Each is handled before the next is fired, so that no two merge.
    const fire = async (): Promise<void> => {
      for (; firing; await probe.waitForCount(1, fired)) {
        fired += 1;
        device.fire(1);
      }
    };
    const toHaveFired = async (more: number): Promise<void> => {
      await probe.waitForCount(1, fired + more, { timeoutMs: 20_000 });
    };
    const stream = fire();
    const messages = new Set<bigint>();
    try {
      for (const cpu of [3, 0, 2, 1]) {
        await probe.setAffinity(1, cpu);
        await toHaveFired(3); // Linux moves it when the next one comes (kernel/irq/migration.c, irq_move_irq)
        const before = await byCpu();
        await toHaveFired(10);
        const moved = (await byCpu()).map((count, index) => count - (before[index] ?? 0));
        expect(moved[cpu]).toBeGreaterThanOrEqual(9);
        expect(moved.filter((count, index) => index !== cpu && count > 0)).toEqual([]);
        expect((await probe.counter(1)).lastCpu).toBe(cpu);
        expect((await vm.guest.run(`cat /proc/irq/${irq}/effective_affinity_list`)).stdout.trim()).toBe(`${cpu}`);
        messages.add((await probe.tableEntry(1)).address);
      }
    } finally {
      firing = false;
      await stream;
    }
    // A CPU is named by the message's address, so the table's entry was written anew for each.
    expect(messages.size).toBe(4);
    expect((await probe.counter(1)).count).toBe(fired);
    expect((await byCpu()).reduce((sum, count) => sum + count, 0)).toBe(fired);
    expect((await probe.counter(0)).count).toBe(0);
    await expect(fn).toHaveDelivered({ vector: 0, exactly: 0 });
    await expect(vm).toHaveCleanLog();
  });
});

describe('with twelve CPUs', () => {
  const CPUS = 12;
  // Twelve CPUs that take turns on one of the host's take their time to come up.
  const vm = useMachine({ machine: q35({ cpus: CPUS, ports: 1 }), timeoutMs: 180_000 });

  test('2048 vectors: each is given, is handled exactly once, all CPUs take part, and nothing is left pending', async () => {
    const all = await plugged(vm, 2048);
    expect((await expectOneOfEach(all)).size).toBe(CPUS);
    await expect(vm).toHaveCleanLog();
  });
});
