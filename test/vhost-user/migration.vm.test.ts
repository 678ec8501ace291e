// A guest that moves from one QEMU to another while it reads from our disk. What the device wrote into guest
// memory meanwhile is known to the source only by the dirty log: without it the guest would find old pages.
import { createHash } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { VirtioBlkDevice } from '../../src/devices/virtio-blk/device.ts';
import { MemoryStorage } from '../../src/devices/virtio-blk/memory-storage.ts';
import { Guest } from '../../src/guest/guest.ts';
import { SshConnection } from '../../src/guest/ssh.ts';
import { boot } from '../../src/machine/boot.ts';
import type { Machine } from '../../src/machine/machine.ts';
import { forwardedPort, parseUsernet } from '../../src/qemu/memory-map.ts';
import { closeFd, createMemfd } from '../../src/native/index.ts';
import { QemuProcess } from '../../src/qemu/process.ts';
import { QmpClient } from '../../src/qmp/client.ts';
import { VhostUserBackend } from '../../src/vhost-user/index.ts';
import { hasFeature, ringFeatures, VIRTIO_F } from '../../src/virtio/features.ts';
import type { DescriptorChain } from '../../src/virtio/virtqueue.ts';
import { within } from '../../src/wait.ts';
import { LAYOUTS } from '../virtio/layouts.ts';

const MIB = 2 ** 20;
/** What the guest reads at once, always into the same buffer: no CPU of the guest writes there. */
const BLOCK = 16 * MIB;

/** A disk that knows how far it was read, in pieces of whatever size the guest makes of it. */
class WitnessedStorage extends MemoryStorage {
  readonly #unread = new Set(Array.from({ length: 2 * BLOCK / 4096 }, (_, page) => page));
  #waiters: { pages: number; resolve: () => void }[] = [];

  /** All of the first so many bytes were read. */
  wasRead(bytes: number): Promise<void> {
    const read = new Promise<void>((resolve) => this.#waiters.push({ pages: bytes / 4096, resolve }));
    return within(read, { timeoutMs: 60_000, what: `the guest to read the first ${bytes} bytes` });
  }

  override read(chain: DescriptorChain, positionBytes: number, lengthBytes: number): undefined {
    super.read(chain, positionBytes, lengthBytes);
    for (let page = Math.ceil(positionBytes / 4096); (page + 1) * 4096 <= positionBytes + lengthBytes; page += 1) this.#unread.delete(page);
    // Set keeps the order of insertion: the first that is left is the lowest.
    const [lowest = Infinity] = this.#unread;
    for (const { pages, resolve } of this.#waiters) if (lowest >= pages) resolve();
  }
}

let directory = '';
let source: Machine | undefined;
let destination: QemuProcess | undefined;
let monitor: QmpClient | undefined;
let guestThere: Guest | undefined;
let backends: VhostUserBackend[] = [];
let errors: Error[] = [];
let lines: string[] = [];

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'migration-'));
  errors = [];
  lines = [];
});
afterEach(async () => {
  guestThere?.close();
  monitor?.close();
  await destination?.end();
  await source?.close();
  for (const backend of backends) await backend.close();
  backends = [];
  source = destination = monitor = guestThere = undefined;
  await rm(directory, { recursive: true });
  expect(errors).toEqual([]);
});

function listen(name: string, storage: MemoryStorage, packed: boolean): string {
  const path = join(directory, name);
  const log = (line: string): void => void lines.push(`${name}: ${line}`);
  const device = new VirtioBlkDevice({ storage, queueCount: 1, queueSizeMax: 128, readOnly: false, serial: 'moving', ringFeatures: ringFeatures({ packed }), log });
  backends.push(VhostUserBackend.listen({ path, device, onError: (error) => errors.push(error), log }));
  return path;
}

const status = async (qmp: QmpClient): Promise<string> => (await qmp.execute('query-migrate') as { status?: string }).status ?? 'none';

const MATRIX = ['7.2', '10.0'].flatMap((qemu) => LAYOUTS.map((layout) => ({ qemu, layout })));

test.each(MATRIX)('QEMU $qemu, $layout rings: what the disk wrote into guest memory during a migration is there on the other side', async ({ qemu, layout }) => {
  const packed = layout === 'packed';
  const storage = new WitnessedStorage(2 * BLOCK);
  for (let i = 0; i < storage.capacityBytes; i += 4096) storage.bytes.writeUInt32LE(i * 2654435761 % 2 ** 32, i);
  const md5 = createHash('md5').update(storage.bytes.subarray(BLOCK)).digest('hex');
  const properties = { driver: 'vhost-user-blk-pci', id: 'disk', chardev: 'disk-chardev', bus: 'rp1', 'num-queues': 1, packed };

  source = await boot({ qemu });
  const { guest, qmp, innards } = source;
  await guest.run('modprobe virtio_pci; modprobe virtio_blk');
  await qmp.execute('chardev-add', { id: 'disk-chardev', backend: { type: 'socket', data: { addr: { type: 'unix', data: { path: listen('a', storage, packed) } }, server: false } } });
  await qmp.execute('device_add', properties);
  await guest.until('[ -b /dev/vda ]', 'the disk to be there', 20_000);
  expect(hasFeature(backends[0].features ?? 0n, VIRTIO_F.VIRTIO_F_RING_PACKED)).toBe(packed);

  // The same machine again, waiting for the guest.
  const place = await mkdtemp(join(tmpdir(), 'rootport-'));
  const command = innards.process.options.command.map((word) => (word === basename(innards.directory) ? basename(place) : word));
  const memoryFd = createMemfd('destination', innards.shape.memoryMiB * MIB);
  destination = await QemuProcess.start({
    env: innards.process.options.env, directory: place, memoryFd,
    command: [...command, '-chardev', `socket,id=disk-chardev,path=${listen('b', storage, packed)}`,
      '-device', Object.entries(properties).map(([key, value]) => (key === 'driver' ? value : `${key}=${value === false ? 'off' : value === true ? 'on' : value}`)).join(','), '-incoming', 'defer'],
  });
  closeFd(memoryFd);
  const there = monitor = await QmpClient.connect(destination.qmp, { timeoutMs: 20_000 });
  const uri = `unix:${join(directory, 'stream')}`;
  await there.execute('migrate-incoming', { uri });

  // dd reads two blocks into one buffer: the first before the migration, the second in it. What follows takes
  // the first, and of the second only after the migration: until then it is in that buffer and nowhere else.
  const first = storage.wasRead(BLOCK);
  const both = storage.wasRead(2 * BLOCK);
  both.catch(() => undefined);
  await guest.run(`(dd if=/dev/vda bs=${BLOCK} count=2 iflag=direct | (while [ ! -e /tmp/go ]; do sleep 0.1; done
    dd bs=65536 count=${BLOCK / 65536} iflag=fullblock of=/dev/null; while [ ! -e /tmp/check ]; do sleep 0.1; done
    md5sum >/tmp/sum; touch /tmp/done)) >/dev/null 2>&1 </dev/null &`);
  await first;
  // All of the memory goes over once; then so slowly that the migration cannot end while the disk is read into it.
  await qmp.execute('migrate-set-capabilities', { capabilities: [{ capability: 'events', state: true }] });
  await qmp.execute('migrate-set-parameters', { 'max-bandwidth': 16 * MIB, 'downtime-limit': 1 });
  const second = qmp.expectEvent('MIGRATION_PASS', ({ data }) => (data as { pass: number }).pass >= 2, { timeoutMs: 60_000 });
  await qmp.execute('migrate', { uri });
  await second;
  await qmp.execute('migrate-set-parameters', { 'max-bandwidth': 4096 });
  expect(await status(qmp)).toBe('active');
  await guest.run('touch /tmp/go');
  await both;
  expect(await status(qmp)).toBe('active');
  storage.bytes.fill(0x77); // what is in the guest's memory is the only copy now

  await qmp.execute('migrate-set-parameters', { 'max-bandwidth': 2 ** 33, 'downtime-limit': 2000 });
  await there.expectEvent('RESUME', () => true, { timeoutMs: 60_000 });
  expect(await status(qmp)).toBe('completed');
  expect(lines.filter((line) => /^a: vhost-user: SET_LOG_BASE/.test(line)).length).toBeGreaterThan(0);

  const port = forwardedPort(parseUsernet(await there.hmp('info usernet')), 22);
  const ssh = await SshConnection.connect({ ...innards.sshTarget, port: port as number, signal: new AbortController().signal });
  guestThere = new Guest(ssh, guest.release, 30_000);
  await guestThere.run('touch /tmp/check');
  await guestThere.until('[ -e /tmp/done ]', 'the checksum', 60_000);
  expect((await guestThere.run('cat /tmp/sum')).stdout.split(' ')[0]).toBe(md5);
  // And the disk works there: in both directions, on the other back end.
  await guestThere.run('dd if=/dev/urandom of=/dev/vda bs=1M count=4 oflag=direct 2>/dev/null; sync; echo 3 >/proc/sys/vm/drop_caches');
  const { stdout } = await guestThere.run('dd if=/dev/vda bs=1M count=4 iflag=direct 2>/dev/null | md5sum');
  expect(stdout.split(' ')[0]).toBe(createHash('md5').update(storage.bytes.subarray(0, 4 * MIB)).digest('hex'));
  expect(storage.bytes.subarray(0, 4096).every((byte) => byte === 0x77)).toBe(false);
});
