// A back end that dies with requests in flight and comes back, under a real QEMU and a real driver: QEMU
// keeps the in-flight file and reconnects, and the guest's writes are each done exactly once. By data.
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { VirtioBlkDevice } from '../../src/devices/virtio-blk/device.ts';
import { MemoryStorage } from '../../src/devices/virtio-blk/memory-storage.ts';
import type { GuestProcess } from '../../src/guest/guest.ts';
import { restore } from '../../src/machine/kept-snapshots.ts';
import type { Machine } from '../../src/machine/machine.ts';
import { isAtLeast } from '../../src/qemu/versions.ts';
import { VhostUserBackend } from '../../src/vhost-user/index.ts';
import { hasFeature, ringFeatures, VIRTIO_F } from '../../src/virtio/features.ts';
import type { DescriptorChain } from '../../src/virtio/virtqueue.ts';
import { steer } from '../../src/virtio/queue-gate.ts';
import type { HeldRequest, SteeredDevice } from '../../src/virtio/queue-gate.ts';
import { within } from '../../src/wait.ts';
import { LAYOUTS } from '../virtio/layouts.ts';

const BLOCK = 4096;
const BLOCKS = 256;

/** A disk that knows which blocks were written, in order: a write done twice shows. */
class WitnessedStorage extends MemoryStorage {
  readonly writes: number[] = [];
  #waiters: { count: number; resolve: () => void }[] = [];

  /** So many writes were done. */
  written(count: number): Promise<void> {
    return new Promise((resolve) => {
      this.#waiters.push({ count, resolve });
      this.#wake();
    });
  }

  #wake(): void {
    for (const { count, resolve } of this.#waiters) if (this.writes.length >= count) resolve();
  }

  override write(chain: DescriptorChain, offset: number, positionBytes: number, lengthBytes: number): undefined {
    this.writes.push(positionBytes / BLOCK);
    super.write(chain, offset, positionBytes, lengthBytes);
    this.#wake();
  }
}

let directory = '';
let machine: Machine | undefined;
let backend: VhostUserBackend | undefined;
let storage: WitnessedStorage;
let steered: SteeredDevice;
let errors: Error[] = [];
let lines: string[] = [];
/** Whether the disk of this test has packed rings. */
let packed = false;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'reconnect-'));
  errors = [];
  lines = [];
  storage = new WitnessedStorage(BLOCKS * BLOCK);
});
afterEach(async () => {
  await machine?.close();
  await backend?.close();
  machine = backend = undefined;
  await rm(directory, { recursive: true });
  expect(errors).toEqual([]);
});

function listen(): VhostUserBackend {
  const core = new VirtioBlkDevice({
    storage, queueCount: 1, queueSizeMax: 128, readOnly: false, serial: 'reconnect', ringFeatures: ringFeatures({ packed }), log: (line) => lines.push(line),
  });
  steered = steer(core);
  backend = VhostUserBackend.listen({ path: join(directory, 's'), device: steered.device, onError: (error) => errors.push(error), log: (line) => lines.push(line) });
  backend.beforeCall = steered.beforeCall;
  return backend;
}

/** Plugged by hand: virtioBlk has no storage that keeps the order of its writes (suites/faults/reconnect is for what users have). */
async function start(qemu: string): Promise<Machine> {
  machine = await restore({ qemu });
  listen();
  await machine.guest.run('modprobe virtio_pci; modprobe virtio_blk');
  const reconnect = isAtLeast(machine.parts.qemu.version, '9.2') ? { 'reconnect-ms': 100 } : { reconnect: 1 };
  await machine.qmp.execute('chardev-add', {
    id: 'disk-chardev', backend: { type: 'socket', data: { addr: { type: 'unix', data: { path: join(directory, 's') } }, server: false, ...reconnect } },
  });
  await machine.qmp.execute('device_add', { driver: 'vhost-user-blk-pci', id: 'disk', chardev: 'disk-chardev', bus: 'rp1', 'num-queues': 1, 'queue-size': 16, packed });
  await machine.guest.until('[ -b /dev/vda ]', 'the disk to be there', 20_000);
  expect(hasFeature(backend?.features ?? 0n, VIRTIO_F.VIRTIO_F_RING_PACKED)).toBe(packed);
  return machine;
}

const writeBlock = (block: number, letter: string): string =>
  `yes ${letter} | tr -d '\\n' | head -c ${BLOCK} | dd of=/dev/vda bs=${BLOCK} seek=${block} count=1 oflag=direct iflag=fullblock 2>/dev/null`;

const sectorOf = ({ readable }: HeldRequest): number => new DataView(readable.buffer).getUint32(8, true);
const blockOf = (request: HeldRequest): number => sectorOf(request) * 512 / BLOCK;

/** Start one write and wait until the device has it. */
async function hold(block: number): Promise<{ process: GuestProcess; request: HeldRequest }> {
  const shown = steered.queue(0).nextRequest({ timeoutMs: 20_000 });
  const process = await (machine as Machine).guest.start(writeBlock(block, letterOf(block)));
  const request = await shown;
  expect(blockOf(request)).toBe(block);
  return { process, request };
}
const letterOf = (block: number): string => String.fromCharCode(0x61 + block % 26);

async function kept(count: number): Promise<HeldRequest[]> {
  const requests: HeldRequest[] = [];
  while (requests.length < count) requests.push(await steered.queue(0).nextRequest({ timeoutMs: 20_000 }));
  return requests;
}

function expectBlocks(blocks: readonly number[]): void {
  for (const block of blocks) {
    expect(storage.bytes.subarray(block * BLOCK, (block + 1) * BLOCK).every((byte) => byte === letterOf(block).charCodeAt(0))).toBe(true);
  }
  expect([...storage.writes].sort((a, b) => a - b)).toEqual([...blocks].sort((a, b) => a - b));
}

const MATRIX = ['7.2', '10.0', '11.1'].flatMap((qemu) => LAYOUTS.map((layout) => ({ qemu, layout })));

describe.each(MATRIX)('QEMU $qemu, $layout rings:', ({ qemu, layout }) => {
  beforeEach(() => {
    packed = layout === 'packed';
  });

  test('a back end that dies with writes in flight, used out of order, has the rest again in order; each is done once', async () => {
    const { guest } = await start(qemu);
    await guest.run(writeBlock(0, letterOf(0)));
    steered.queue(0).hold();
    const first = [];
    for (const block of [1, 2, 3, 4, 5, 6]) first.push(await hold(block));
    for (const position of [4, 1, 5]) {
      first[position].request.release();
      await first[position].process.wait();
    }
    const later = [];
    for (const block of [7, 8, 9]) later.push(await hold(block));
    expect(storage.writes).toEqual([0, 5, 2, 6]);

    await (backend as VhostUserBackend).crash();
    const again = await kept(6);
    expect(again.map(blockOf)).toEqual([1, 3, 4, 7, 8, 9]);
    expect(storage.writes).toEqual([0, 5, 2, 6]);
    for (const position of [5, 0]) again[position].release();
    await later[2].process.wait();
    await first[0].process.wait();

    await (backend as VhostUserBackend).crash();
    const third = await kept(4);
    expect(third.map(blockOf)).toEqual([3, 4, 7, 8]);
    steered.queue(0).release();
    await Promise.all([first[2], first[3], later[0], later[1]].map(({ process }) => process.wait()));
    await guest.run(writeBlock(10, letterOf(10)));
    expectBlocks([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
  });

  test('another back end on the same path takes over from one that was closed in the middle of a load of writes', async () => {
    const { guest } = await start(qemu);
    const blocks = Array.from({ length: 96 }, (_, block) => block);
    const worker = (mine: readonly number[]): string => mine.map((block) => writeBlock(block, letterOf(block))).join(' && ');
    const load = [0, 1, 2, 3].map((part) => guest.start(worker(blocks.filter((block) => block % 4 === part))));
    const processes = await Promise.all(load);
    for (const [turn, done] of [20, 50, 70].entries()) {
      await within(storage.written(done), { timeoutMs: 30_000, what: `${done} writes` });
      steered.queue(0).hold();
      await steered.queue(0).nextRequest({ timeoutMs: 20_000 });
      if (turn === 1) await (backend as VhostUserBackend).crash();
      await (backend as VhostUserBackend).close();
      listen();
    }
    await Promise.all(processes.map((process) => process.wait({ timeoutMs: 60_000 })));
    expectBlocks(blocks);
  });
});
