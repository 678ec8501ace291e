// vhost-user-blk, QD1, 4 KiB direct reads in one guest: our back end against qemu-storage-daemon's, on
// the same machine, paired and rotated. Both disks are in memory: ours a Buffer, the daemon's a tmpfs file.
import { mkdtemp, rm, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { execa } from 'execa';
import { boot, virtioBlk } from 'rootport';
import { ratios, spread, verdict } from './statistics.mjs';

const SIZE = 64 * 2 ** 20;
/** /proc/uptime counts hundredths of a second: some 3,000 reads make that 1 %. */
const READS = 3000;

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
    const disks = { memory: virtioBlk({ capacityBytes: SIZE }), file: virtioBlk({ file: own, capacityBytes: SIZE }), daemon: storageDaemon(command, file) };
    const nodes = {};
    for (const [name, disk] of Object.entries(disks)) {
      const fn = await machine.plug(disk);
      nodes[name] = (await machine.guest.run(`ls ${fn.sysfs}/virtio*/block`)).stdout.trim();
    }
    const read = async (name) => {
      const { stdout } = await machine.guest.run(
        `read a _ </proc/uptime; dd if=/dev/${nodes[name]} of=/dev/null bs=4k count=${READS} iflag=direct 2>/dev/null; read b _ </proc/uptime; echo $a $b`,
        { timeoutMs: 120_000 });
      const [from, to] = stdout.split(' ').map(Number);
      return (to - from) * 1e6 / READS;
    };
    const latency = { memory: [], file: [], daemon: [] };
    const names = Object.keys(disks);
    for (const name of names) await read(name);
    for (let round = 0; round < rounds * 2; round += 1) {
      for (let i = 0; i < names.length; i += 1) {
        const name = names[(i + round) % names.length];
        latency[name].push(await read(name));
      }
    }
    console.log(`vhost-user-blk, QD1, 4 KiB direct reads: ${machine.description}`);
    for (const name of names) console.log(`        ${name}: ${spread(latency[name], 0, ' us')}`);
    console.log(`        file / daemon: ${spread(ratios(latency.file, latency.daemon))}`);
    return verdict('latency, ours (memory) / qemu-storage-daemon', ratios(latency.memory, latency.daemon), 1);
  } finally {
    await machine.close();
    await rm(scratch, { recursive: true, force: true });
  }
}
