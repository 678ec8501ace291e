// A back end that dies with requests in flight and comes back, under the in-tree virtio_blk and virtio_net: nothing is
// lost and nothing done twice, by data. QEMU keeps the file in which the disk's back end notes what is in flight
// (vhost-user.rst, "Inflight I/O tracking"), connects again, and hands it to the next. A write that was repeated
// would overwrite what the test put in its place. suites/faults/crash: one that stays dead.
import { describe, expect, test } from '@jest/globals';
import { DeadlineError, q35, scriptedPeer, UsageError, virtioBlk, virtioNet, type GuestProcess, type HeldRequest, type VirtioBlk } from 'rootport';
import { useMachine, type TestMachine, type UseMachineOptions } from 'rootport/jest';
import { DiskScene, readBlock } from './disk-scene.ts';

const BLOCK = 4096;
const MACHINE = { machine: q35({ ports: 2, cpus: 2 }), modules: ['virtio_blk'] };
const cold = virtioBlk({ capacityBytes: 2 ** 20, reconnect: true });

const letterOf = (block: number): string => String.fromCharCode(0x61 + block % 26);
const writeBlock = (name: string, block: number): string =>
  `yes ${letterOf(block)} | tr -d '\\n' | head -c ${BLOCK} | dd of=/dev/${name} bs=${BLOCK} seek=${block} count=1 oflag=direct iflag=fullblock 2>/dev/null`;
/** Sector 0 to 7 are block 0 (virtio 1.2, 5.2.6: le64 sector at offset 8 of the header). */
const blockOf = ({ readable }: HeldRequest): number => new DataView(readable.buffer, readable.byteOffset).getUint32(8, true) * 512 / BLOCK;
const contentOf = (disk: VirtioBlk, block: number): string => disk.bytes.toString('latin1', block * BLOCK, (block + 1) * BLOCK);

interface Write {
  readonly block: number;
  readonly process: GuestProcess;
  readonly request: HeldRequest;
}

/** Start a write of each block, one after another, and wait until the device holds it. */
async function holdWrites(vm: TestMachine, disk: VirtioBlk, name: string, blocks: readonly number[]): Promise<Write[]> {
  disk.queue(0).hold();
  const writes: Write[] = [];
  for (const block of blocks) {
    const process = await vm.guest.start(writeBlock(name, block));
    const request = await disk.queue(0).nextRequest();
    expect(blockOf(request)).toBe(block);
    writes.push({ block, process, request });
  }
  return writes;
}

/** What the device holds, in the order in which it came. */
async function held(disk: VirtioBlk, count: number): Promise<HeldRequest[]> {
  const requests: HeldRequest[] = [];
  while (requests.length < count) requests.push(await disk.queue(0).nextRequest());
  expect(disk.queue(0).waiting).toBe(count);
  return requests;
}

/** The guest was told that it is done. Put something else there, so that a second writing shows. */
async function done(disk: VirtioBlk, { block, process }: Write): Promise<void> {
  await process.wait();
  expect(contentOf(disk, block)).toBe(letterOf(block).repeat(BLOCK));
  disk.bytes.fill('!', block * BLOCK, (block + 1) * BLOCK);
}

function expectNotRepeated(disk: VirtioBlk, blocks: readonly number[]): void {
  expect(blocks.filter((block) => contentOf(disk, block) !== '!'.repeat(BLOCK))).toEqual([]);
}

describe.each<[string, Pick<UseMachineOptions, 'devices' | 'fresh'>, (scene: DiskScene, vm: TestMachine) => Promise<{ disk: VirtioBlk; name: string }>]>([
  ['plugged', {}, async (scene) => scene.plug({ reconnect: true })],
  ['plugged, on packed rings', {}, async (scene) => scene.plug({ reconnect: true, packed: true })],
  // It is booted for each test: a back end cannot be saved in a snapshot.
  ['plugged before the boot', { devices: [cold], fresh: 'test' }, async (scene, vm) => ({ disk: cold, name: await scene.nameOf(await vm.functionOf(cold)) })],
])('a disk %s, whose back end dies and comes back', (_, options, plug) => {
  const vm = useMachine({ ...MACHINE, ...options });
  const scene = new DiskScene(vm);

  test('in order: has the writes in flight again in their order, and does each once', async () => {
    const { disk, name } = await plug(scene, vm);
    const log = await scene.kernelLog(async () => {
      const writes = await holdWrites(vm, disk, name, [1, 2, 3, 4]);
      writes[0]?.request.release();
      await done(disk, writes[0] as Write);
      await disk.gate.crash();
      await disk.gate.restart();
      expect((await held(disk, 3)).map(blockOf)).toEqual([2, 3, 4]);
      disk.queue(0).release();
      for (const write of writes.slice(1)) await done(disk, write);
      await vm.guest.run(writeBlock(name, 5));
      expect(contentOf(disk, 5)).toBe(letterOf(5).repeat(BLOCK));
    });
    expectNotRepeated(disk, [1, 2, 3, 4]);
    expect(log).toEqual([]);
  });

  test('out of order: has those that were not used, in the order in which they came, and does each once, twice over', async () => {
    const { disk, name } = await plug(scene, vm);
    const log = await scene.kernelLog(async () => {
      const writes = await holdWrites(vm, disk, name, [11, 12, 13, 14, 15, 16]);
      const release = async (block: number, requests: readonly HeldRequest[]): Promise<void> => {
        requests.find((request) => blockOf(request) === block)?.release();
        await done(disk, writes.find((write) => write.block === block) as Write);
      };
      for (const block of [15, 12, 16]) await release(block, writes.map(({ request }) => request));
      await disk.gate.crash();
      await disk.gate.restart();
      const again = await held(disk, 3);
      expect(again.map(blockOf)).toEqual([11, 13, 14]);
      await release(14, again);
      await disk.gate.crash();
      await disk.gate.restart();
      const third = await held(disk, 2);
      expect(third.map(blockOf)).toEqual([11, 13]);
      for (const block of [13, 11]) await release(block, third);
      disk.queue(0).release();
    });
    expectNotRepeated(disk, [11, 12, 13, 14, 15, 16]);
    expect(log).toEqual([]);
  });
});

describe('a disk whose back end dies and comes back', () => {
  const vm = useMachine(MACHINE);
  const scene = new DiskScene(vm);

  test('under a load on two queues loses no write: each block has what was written to it', async () => {
    const { disk, name } = await scene.plug({ reconnect: true, queues: 2, latencyMs: 5 });
    const letter = (block: number): string => String.fromCharCode(block % 90 + 33);
    await vm.guest.run(`awk 'BEGIN { for (n = 0; n < 256; n++) { s = sprintf("%c", n % 90 + 33); while (length(s) < ${BLOCK}) s = s s; printf "%s", s } }' >/tmp/blocks`);
    const log = await scene.kernelLog(async () => {
      const workers = await Promise.all([0, 1, 2, 3].map(async (part) => vm.guest.start(
        `taskset -c ${part % 2} dd if=/tmp/blocks of=/dev/${name} bs=${BLOCK} skip=${part * 64} seek=${part * 64} count=64 oflag=direct 2>/dev/null`,
      )));
      for (const queue of [0, 1, 0]) {
        disk.queue(queue).hold();
        await disk.queue(queue).nextRequest();
        await disk.gate.crash();
        disk.queue(queue).release();
        await disk.gate.restart();
      }
      for (const worker of workers) await worker.wait();
    });
    for (let block = 0; block < 256; block += 1) expect(contentOf(disk, block)).toBe(letter(block).repeat(BLOCK));
    expect(log).toEqual([]);
  });

  test('while the driver is unbound waits for the queue that ran in vain, and says so; the driver starts it when it is bound', async () => {
    const { disk, fn, name } = await scene.plug({ reconnect: true });
    const bind = (word: 'bind' | 'unbind'): string => `cd /sys/bus/virtio/drivers/virtio_blk; echo $(ls ${fn.sysfs} | grep ^virtio) >${word}`;
    await expect(disk.gate.restart()).rejects.toThrow(UsageError);
    await vm.guest.run(readBlock(name)); // waits until the kernel has looked for partitions
    await disk.gate.crash();
    await vm.guest.run(bind('unbind'));
    const missed = await disk.gate.restart({ timeoutMs: 3000 }).catch((error: unknown) => error);
    expect(missed).toBeInstanceOf(DeadlineError);
    expect((missed as Error).message).toContain('waited 3 s for queue 0 of the device');
    await vm.guest.run(bind('bind'));
    expect((await vm.guest.run(`${readBlock(await scene.nameOf(fn))} | tr -cd Z | wc -c`)).stdout.trim()).toBe('4096');
    expect(await vm.unplug(disk)).toLeaveNothingBehind();
    await expect(vm).toHaveCleanLog();
  });
});

describe('an unplug of a disk whose back end is dead', () => {
  const vm = useMachine(MACHINE);
  const scene = new DiskScene(vm);

  test('while it is idle leaves nothing behind', async () => {
    const { disk, name } = await scene.plug({ reconnect: true });
    await vm.guest.run(readBlock(name)); // waits until the kernel has looked for partitions
    const log = await scene.kernelLog(async () => {
      await disk.gate.crash();
      expect(await vm.unplug(disk)).toLeaveNothingBehind();
    });
    expect(log).toEqual([]);
  });

  test('with a request in flight does not end, the error says why, and the unplug ends when the back end is back', async () => {
    const { disk, name } = await scene.plug({ reconnect: true });
    disk.queue(0).hold();
    const io = await vm.guest.start(`${readBlock(name)} | tr -cd Z | wc -c`);
    await disk.queue(0).nextRequest();
    await disk.gate.crash();
    const log = await scene.kernelLog(async () => {
      const stuck = await vm.unplug(disk, { timeoutMs: 2000 }).catch((error: unknown) => error);
      expect(stuck).toBeInstanceOf(DeadlineError);
      expect((stuck as DeadlineError).hint).toMatch(/its back end crashed.* gate\.restart\(\)/);
      disk.queue(0).release();
      await disk.gate.restart();
      expect((await io.wait()).stdout.trim()).toBe('4096');
    });
    expect(log).toEqual([]);
    // Asked again, it is gone, or goes now.
    expect(await vm.unplug(disk)).toLeaveNothingBehind();
    await expect(vm).toHaveCleanLog();
  });
});

describe('a network card whose back end dies and comes back', () => {
  const vm = useMachine(MACHINE);

  test('loses what comes to it meanwhile, and answers again', async () => {
    const net = virtioNet({ peer: scriptedPeer({ ipv4: '192.0.2.1' }), reconnect: true });
    const fn = await vm.plug(net);
    const dev = (await vm.guest.run(`ls ${fn.sysfs}/virtio*/net`)).stdout.trim();
    await vm.guest.run(`ip addr add 192.0.2.2/24 dev ${dev} && ip link set ${dev} up`);
    const ping = async (): Promise<string> => (await vm.guest.attempt('ping -c 1 -W 2 192.0.2.1')).stdout;
    expect(await ping()).toContain(' 0% packet loss');
    await net.gate.crash();
    expect(await ping()).toContain('100% packet loss');
    await net.gate.restart();
    expect(await ping()).toContain(' 0% packet loss');
    expect(await vm.unplug(net)).toLeaveNothingBehind();
    await expect(vm).toHaveCleanLog();
  });
});
