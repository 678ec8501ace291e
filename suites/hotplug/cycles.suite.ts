// Two hundred devices one after the other, each bound to a driver that maps its BAR and takes an interrupt: what
// the guest's kernel counts of memory, interrupts and address space is the same after them as after the first few.
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, test } from '@jest/globals';
import { EDU, q35 } from 'rootport';
import { useMachine } from 'rootport/jest';

const vm = useMachine({ machine: q35({ ports: 1 }), warm: async (guest, machine) => guest.loadModule(await machine.buildModule('images/probe')) });
const WARM_UP = 10;
const CYCLES = 200;
/**
 * What is freed by kfree_rcu() waits up to 5 s for company (kernel/rcu/tree.c, KFREE_DRAIN_JIFFIES), then for a grace period:
 * an object of kmalloc-96, too, for each file of sysfs that was open (fs/kernfs/file.c), as the 220 are that counts() writes to.
 */
const RCU_MS = 7_000;
const OF_OPEN_FILES = 'kmalloc-96';
const BDF = '0000:01:00.0';
const CTL = `/sys/kernel/debug/rootport_probe/${BDF}/ctl`;

/** One device through QMP and the driver's own files: a tenth of a second, of which vm.plug and vm.unplug would make two. */
async function cycle(i: number): Promise<void> {
  const id = `cycle${i}`;
  const deleted = vm.qmp.expectEvent('DEVICE_DELETED', ({ data }) => data?.['device'] === id, { timeoutMs: 30_000, what: `DEVICE_DELETED of ${id}`, signal: vm.signal });
  await vm.qmp.execute('device_add', { driver: 'edu', id, bus: 'rp1' });
  const { stdout } = await vm.guest.shell.run([
    `n=0; while [ ! -e ${CTL} ] && [ $n -lt 2000 ]; do usleep 2000; n=$((n+1)); done`,
    `exec 3<>${CTL}; echo 'irq alloc msi 1' >&3; read -r a <&3; echo 'mem read 32 0 ${EDU.IDENTIFICATION}' >&3; read -r b <&3; exec 3>&-; echo "$a, $b"`,
  ].join('\n'));
  expect(stdout).toBe('ok 1, ok 0x10000ed\n');
  await vm.qmp.execute('device_del', { id });
  await deleted;
  await vm.guest.shell.run(`n=0; while [ -e /sys/bus/pci/devices/${BDF} ] && [ $n -lt 2000 ]; do usleep 2000; n=$((n+1)); done`);
}

interface Counts {
  readonly text: string;
  /** Bytes by caller; less threads' stacks (workers come and go; one a cycle shows in the cache task_struct), and what is freed later. */
  readonly vmalloc: Readonly<Record<string, number>>;
  /** Objects in use by cache. */
  readonly slab: Readonly<Record<string, number>>;
}

/** @param caches of which what is kept for each CPU is given back first, for it would count as in use */
async function counts(caches: readonly string[] = ['*']): Promise<Counts> {
  const read = async (command: string): Promise<string> => (await vm.guest.run(command)).stdout;
  await read(`sync; echo 3 >/proc/sys/vm/drop_caches; for cache in ${caches.join(' ')}; do for at in /sys/kernel/slab/$cache; do echo 1 >$at/shrink; done; done`);
  const vmalloc: Record<string, number> = {};
  for (const [, bytes, caller = ''] of (await read('cat /proc/vmallocinfo')).matchAll(/^\S+ +(\d+) (\S+)/gm)) {
    if (!/stack|fork|kernel_clone|unpurged/.test(caller)) vmalloc[caller] = (vmalloc[caller] ?? 0) + Number(bytes);
  }
  const slab: Record<string, number> = {};
  for (const [, cache = '', used] of (await read('cat /proc/slabinfo')).matchAll(/^(\S+) +(\d+) /gm)) slab[cache] = Number(used);
  return {
    text: await read('cat /proc/iomem /proc/ioports; cut -d: -f1 /proc/interrupts; ls /sys/bus/pci/devices /proc/irq /sys/kernel/debug/rootport_probe'),
    vmalloc, slab,
  };
}

test(`${CYCLES} devices that came and went leave resources, interrupts, vmalloc and slab caches as they were`, async () => {
  await vm.guest.run(`echo ${EDU.vendorId.toString(16)} ${EDU.deviceId.toString(16)} >/sys/bus/pci/drivers/rootport_probe/new_id`);
  for (let i = 0; i < WARM_UP; i += 1) await cycle(i);
  await counts();
  await sleep(RCU_MS);
  const before = await counts([OF_OPEN_FILES]);
  for (let i = 0; i < CYCLES; i += 1) await cycle(WARM_UP + i);
  // A leak is an object a cycle or more, and stays.
  const grownIn = ({ slab }: Counts): (readonly [string, number])[] => Object.entries(slab).map(([cache, used]) => [cache, used - (before.slab[cache] ?? 0)] as const)
    .filter(([, growth]) => growth >= CYCLES / 2);
  let after = await counts();
  const until = Date.now() + 2 * RCU_MS;
  while (grownIn(after).length > 0 && Date.now() < until) {
    await sleep(500);
    after = await counts(grownIn(after).map(([cache]) => cache));
  }
  expect(after.text).toBe(before.text);
  expect(after.vmalloc).toEqual(before.vmalloc);
  expect(grownIn(after)).toEqual([]);
  await expect(vm).toHaveCleanLog();
});
