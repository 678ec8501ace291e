// vhost-user-blk in one guest: our back end against qemu-storage-daemon's (threads), on the same machine, paired
// and rotated, by direct reads: 4 KiB one at a time, 4 KiB 32 at a time, 1 MiB in sequence. The disks are in
// memory: ours a Buffer, or a tmpfs file like the daemon's.
import { mkdtemp, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { join } from 'node:path';
import { execa } from 'execa';
import { boot, virtioBlk } from 'rootport';
import { ratios, reached, spread, verdict } from './statistics.mjs';

const SIZE = 64 * 2 ** 20;
const READER = '/root/disk-reader';
/** Arguments of disk-reader.c: depth, bytes, count, order. Some half a second each under TCG. */
const LOADS = {
  'QD1 4 KiB': [1, 4096, 1500, 'random'],
  'QD32 4 KiB': [32, 4096, 6000, 'random'],
  'QD1 1 MiB': [1, 2 ** 20, 128, 'sequential'],
};
/** Few: each may wait for one turn of 50 ms. */
const BUSY_LOAD = [1, 4096, 30, 'random'];

/** qemu-storage-daemon as a device: its own process is the back end. */
function storageDaemon(command, file) {
  return {
    kind: 'qemu-storage-daemon',
    guest: { modules: ['virtio_pci', 'virtio_blk'], ready: 'virtio*/block/*' },
    async attach(site) {
      const path = join(site.directory, `${site.id}.sock`);
      const [program, ...args] = command;
      const daemon = execa(program, [...args,
        '--blockdev', `driver=file,node-name=disk,filename=${file},aio=threads`,
        '--export', `type=vhost-user-blk,id=export,node-name=disk,addr.type=unix,addr.path=${path},writable=on,num-queues=1`,
        '--pidfile', `${path}.pid`,
      ], { reject: false, forceKillAfterDelay: 1000 });
      const { existsSync } = await import('node:fs');
      const { default: pRetry } = await import('p-retry');
      await pRetry(() => { if (!existsSync(`${path}.pid`)) throw new Error('the daemon does not listen yet'); }, { retries: 100, minTimeout: 20, factor: 1 });
      const chardev = `${site.id}-chardev`;
      return {
        driver: 'vhost-user-blk-pci',
        properties: { chardev, 'num-queues': 1 },
        chardevs: [{ id: chardev, path }],
        async detach() { daemon.kill(); await daemon; },
      };
    },
  };
}

/** The test's own event loop does something else for 50 ms, again and again: what a request then takes. */
async function whileBusy(inMain, inWorker, rounds) {
  let busy = true;
  const turn = () => {
    for (const until = performance.now() + 50; performance.now() < until;);
    if (busy) setImmediate(turn);
  };
  setImmediate(turn);
  const times = { main: [], worker: [] };
  for (let round = 0; round < rounds; round += 1) {
    for (const name of round % 2 === 0 ? ['main', 'worker'] : ['worker', 'main']) times[name].push(await (name === 'main' ? inMain() : inWorker()));
  }
  busy = false;
  console.log('        QD1 4 KiB while the event loop of the test is busy in turns of 50 ms:');
  for (const [name, values] of Object.entries(times)) console.log(`          ${name}: ${spread(values, 0, ' us')} a request`);
}

export async function bench({ rounds, accel }) {
  const scratch = await mkdtemp('/dev/shm/rootport-bench-');
  const machine = await boot({ accel });
  try {
    const file = join(scratch, 'disk');
    await writeFile(file, '');
    await truncate(file, SIZE);
    const own = join(scratch, 'own');
    await writeFile(own, '');
    await truncate(own, SIZE);
    const command = machine.parts.qemu.companion('qemu-storage-daemon');
    if (command === undefined) throw new Error('this QEMU comes without qemu-storage-daemon; try ROOTPORT_QEMU=10.0');
    const disks = { memory: virtioBlk({ capacityBytes: SIZE }), worker: virtioBlk({ capacityBytes: SIZE, worker: true }), file: virtioBlk({ file: own, capacityBytes: SIZE }), daemon: storageDaemon(command, file) };
    const nodes = {};
    for (const [name, disk] of Object.entries(disks)) {
      const fn = await machine.plug(disk);
      nodes[name] = (await machine.guest.run(`ls ${fn.sysfs}/virtio*/block`)).stdout.trim();
    }
    const program = join(scratch, 'disk-reader');
    await execa('cc', ['-O2', '-static', '-s', '-o', program, fileURLToPath(new URL('disk-reader.c', import.meta.url))]);
    await machine.guest.upload(await readFile(program), READER, 0o755);
    /** Microseconds a request. */
    const read = async (name, load) => {
      const { stdout } = await machine.guest.run(`${READER} /dev/${nodes[name]} ${load.join(' ')}`, { timeoutMs: 120_000 });
      return Number(stdout) / 1000 / load[2];
    };
    const names = Object.keys(disks);
    console.log(`vhost-user-blk, direct reads: ${machine.description}`);
    const measured = {};
    for (const [title, load] of Object.entries(LOADS)) {
      const times = measured[title] = Object.fromEntries(names.map((name) => [name, []]));
      for (const name of names) await read(name, load);
      for (let round = 0; round < rounds * 2; round += 1) {
        for (let i = 0; i < names.length; i += 1) {
          const name = names[(i + round) % names.length];
          times[name].push(await read(name, load));
        }
      }
      for (const name of names) console.log(`        ${title}, ${name}: ${spread(times[name], 0, ' us')} a request`);
      console.log(`        ${title}, file / daemon: ${spread(ratios(times.file, times.daemon))}; worker / main thread: ${spread(ratios(times.worker, times.memory))}`);
    }
    await whileBusy(() => read('memory', BUSY_LOAD), () => read('worker', BUSY_LOAD), rounds);
    const { 'QD1 4 KiB': one, 'QD32 4 KiB': deep, 'QD1 1 MiB': large } = measured;
    return [
      verdict('QD1 4 KiB latency, ours (memory) / qemu-storage-daemon', ratios(one.memory, one.daemon), 0.9),
      reached('QD32 4 KiB requests a second, ours (memory) / qemu-storage-daemon', ratios(deep.daemon, deep.memory), 0.9),
      reached('1 MiB sequential bytes a second, ours (memory) / qemu-storage-daemon', ratios(large.daemon, large.memory), 1),
    ].every(Boolean);
  } finally {
    await machine.close();
    await rm(scratch, { recursive: true, force: true });
  }
}
