// DPDK's testpmd (from a Debian package, without root, huge pages or PCI) with one virtio-user port on a vhost-user
// socket: it sends back what it receives. On a leash, and it ends by itself when its standard input does.
import { readFile } from 'node:fs/promises';
import { execa } from 'execa';
import { ensureTree, silentProgress, treeCommand } from '../../../src/packages/index.ts';
import { leash, PARENT_DEATH_PREFIX } from '../../../src/qemu/leash.ts';

export interface TestpmdOptions {
  /** Its run-time files are made here, and it is removed at the end; the socket lies in it. */
  readonly directory: string;
  readonly socket: string;
  readonly queuePairs: number;
  readonly packed: boolean;
  readonly mergeable: boolean;
  readonly inOrder: boolean;
  /** The longest frame, header and checksum included. */
  readonly frameBytesMax: number;
}

export interface Testpmd {
  /** Rejects with what it printed, when it ends before quit(). */
  readonly lost: Promise<never>;
  /** Let it close its port and end; its exit code, and what it printed. */
  quit(): Promise<{ readonly exitCode: number | undefined; readonly output: string }>;
  /** Kill it, if it still is, and remove the directory. */
  end(): Promise<void>;
}

const DRIVERS = ['bus_vdev', 'mempool_ring', 'net_virtio'];

/** The packages must be in the cache or to be had: ensureTree()'s errors. */
export async function startTestpmd(options: TestpmdOptions): Promise<Testpmd> {
  const { directory, socket, queuePairs, packed, mergeable, inOrder, frameBytesMax } = options;
  const tree = await ensureTree('dpdk', silentProgress);
  // By bare name, found on the loader's path: EAL takes no path below a directory that everybody may write to (a cache in /tmp).
  const drivers = DRIVERS.flatMap((name) => ['-d', `librte_${name}.so.23`]);
  const cpus = /^Cpus_allowed_list:\s*(\S+)/m.exec(await readFile('/proc/self/status', 'utf8'))?.[1] ?? '0';
  const device = {
    path: socket, queues: queuePairs, packed_vq: Number(packed), mrg_rxbuf: Number(mergeable), in_order: Number(inOrder),
  };
  const held = leash(directory);
  const [file, ...args] = [
    ...PARENT_DEATH_PREFIX, ...treeCommand(tree, 'usr/bin/dpdk-testpmd'),
    // Two threads, one of which polls, on whatever CPUs there are.
    '--lcores', `(0,1)@(${cpus})`, '--no-huge', '-m', '256', '--single-file-segments', '--no-pci', '--no-telemetry', ...drivers,
    '--vdev', ['net_virtio_user0', ...Object.entries(device).map(([name, value]) => `${name}=${value}`)].join(','),
    '--', '--auto-start', '--forward-mode=io', '--total-num-mbufs=4096', `--max-pkt-len=${frameBytesMax}`,
    `--rxq=${queuePairs}`, `--txq=${queuePairs}`, ...(mergeable ? ['--enable-scatter'] : []),
  ];
  const child = execa(file as string, args, {
    stdin: 'pipe', all: true, reject: false, cleanup: false, env: { RUNTIME_DIRECTORY: directory },
  });
  if (child.pid !== undefined) held.hold(child.pid);
  const lost = child.then(({ all }): never => { throw new Error(`testpmd ended:\n${all}`); });
  lost.catch(() => undefined);
  return {
    lost,
    async quit() {
      child.stdin.end();
      const { exitCode, all } = await child;
      return { exitCode, output: all };
    },
    async end() {
      child.kill('SIGKILL');
      await child;
      await held.release();
    },
  };
}
