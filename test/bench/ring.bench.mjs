// Host only: from a driver's kick to its call, one descriptor, everything on one CPU: our back end (session, ring
// and gate as a guest meets them) against a minimal one in C, under the same driver in C. Paired and rotated.
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { execa } from 'execa';
import { encodeMessage } from '../../dist/vhost-user/codec.js';
import { VhostUserBackend } from '../../dist/vhost-user/index.js';
import { REQUESTS } from '../../dist/vhost-user/requests.js';
import { Recorder } from '../../dist/recorder.js';
import { closeFd, connectUnix, createEventfd, createMemfd, mapFile, sendMessage, unmapFile } from '../../dist/native/index.js';
import { steer } from '../../dist/virtio/queue-gate.js';
import { ratios, spread, verdict } from './statistics.mjs';

// As ring-peer.c has them.
const MEMORY = 0x100000, SIZE = 128, BASE = 0x40000000, AVAIL = 0x1000, USED = 0x2000, DATA = 0x10000;
const ROUNDS = 20_000;

/** Memory with a fresh ring in it, whose descriptor 0 is one writable buffer, and its eventfds. */
function makeRing() {
  const fd = createMemfd('ring', MEMORY);
  const mapping = mapFile(fd, 0, MEMORY);
  const words = new Uint32Array(mapping);
  words.set([BASE + DATA, 0, 64, 2]);
  unmapFile(mapping);
  const kick = createEventfd(), call = createEventfd();
  return { fds: [fd, kick, call], close() { for (const one of this.fds) closeFd(one); } };
}

const peer = (program, args, { fds }) => execa(program, args, { stdio: ['ignore', 'pipe', 'inherit', ...fds], reject: false });

async function drive(program, ring, rounds) {
  const { stdout, exitCode } = await peer(program, ['drive', `${rounds}`], ring);
  if (exitCode !== 0) throw new Error(`ring-peer drive ended with ${exitCode}`);
  return Number(stdout) / 1000;
}

/** Writes eight bytes to each request. */
class Answerer {
  deviceId = 4;
  features = 0n;
  queueCount = 1;
  queueSizeMax = SIZE;
  #bytes = new Uint8Array(8).fill(0x5a);
  config() { return new Uint8Array(0); }
  process(_index, queue) {
    for (let chain = queue.next(); chain !== undefined; chain = queue.next()) {
      chain.copyIn(0, this.#bytes);
      queue.complete(chain, 8);
    }
  }
}

/** Our back end on this ring, as a front end sets it up. */
async function serve(directory, { fds: [memory, kick, call] }) {
  const steered = steer(new Answerer());
  const backend = VhostUserBackend.listen({ path: join(directory, 's'), device: steered.device, onError: (error) => { throw error; }, record: { recorder: new Recorder(), name: 'dev0' } });
  backend.beforeCall = steered.beforeCall;
  const socket = connectUnix(backend.path);
  const send = (name, payload, with_ = []) => sendMessage(socket, encodeMessage(REQUESTS[name].id, 0, REQUESTS[name].payload, payload), with_);
  const user = (offset) => 0x7f0000000000n + BigInt(offset);
  send('SET_OWNER', undefined);
  send('SET_FEATURES', (1n << 32n) | (1n << 29n) | (1n << 28n));
  send('SET_MEM_TABLE', [{ guestAddress: BigInt(BASE), size: BigInt(MEMORY), userAddress: user(0), mmapOffset: 0n }], [memory]);
  send('SET_VRING_CALL', 0n, [call]);
  send('SET_VRING_NUM', { index: 0, num: SIZE });
  send('SET_VRING_BASE', { index: 0, num: 0 });
  send('SET_VRING_ADDR', { index: 0, flags: 0, descriptor: user(0), available: user(AVAIL), used: user(USED), log: 0n });
  send('SET_VRING_KICK', 0n, [kick]);
  await backend.queueStarted(0, { timeoutMs: 5000 });
  return async () => {
    closeFd(socket);
    await backend.close();
  };
}

/** Keep this process, all threads of it, to a list of CPUs. */
const runOn = (cpus) => execa('taskset', ['-a', '-c', '-p', cpus, `${process.pid}`]);

export async function bench({ rounds }) {
  const allowed = (await execa('taskset', ['-c', '-p', `${process.pid}`])).stdout.split(' ').at(-1);
  const directory = await mkdtemp(join(tmpdir(), 'rootport-bench-'));
  try {
    const program = join(directory, 'ring-peer');
    await execa('cc', ['-O2', '-o', program, new URL('ring-peer.c', import.meta.url).pathname]);
    // Children inherit it.
    await runOn(allowed.split(/[,-]/)[0]);
    const sides = {
      async ours(count) {
        const ring = makeRing();
        const end = await serve(directory, ring);
        await drive(program, ring, ROUNDS / 4);
        const value = await drive(program, ring, count);
        await end();
        ring.close();
        return value;
      },
      async c(count) {
        const ring = makeRing();
        const server = peer(program, ['serve'], ring);
        await drive(program, ring, ROUNDS / 4);
        const value = await drive(program, ring, count);
        server.kill('SIGKILL');
        await server;
        ring.close();
        return value;
      },
    };
    const times = { ours: [], c: [] };
    for (const name of Object.keys(sides)) await sides[name](ROUNDS);
    for (let round = 0; round < rounds * 2; round += 1) {
      for (const name of round % 2 === 0 ? ['ours', 'c'] : ['c', 'ours']) times[name].push(await sides[name](ROUNDS));
    }
    console.log('ring: kick to call, one descriptor, one CPU, without QEMU');
    console.log(`        ours: ${spread(times.ours, 2, ' us')}`);
    console.log(`        C: ${spread(times.c, 2, ' us')}`);
    return verdict('kick to call, ours / minimal C', ratios(times.ours, times.c), 1.6);
  } finally {
    await runOn(allowed);
    await rm(directory, { recursive: true, force: true });
  }
}
