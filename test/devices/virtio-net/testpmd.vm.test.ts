// Another people's front end: DPDK's virtio-user drives our network card, without QEMU. testpmd sends back whatever
// comes; each frame is sent by us, with bytes that follow from its number, and held against them when it is back.
import { mkdtemp } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import pRetry from 'p-retry';
import { virtioNet } from '../../../src/devices/virtio-net/index.ts';
import type { NetPeer } from '../../../src/devices/virtio-net/peer.ts';
import { within } from '../../../src/wait.ts';
import { startTestpmd } from './testpmd.ts';

/** Frames under way at once, on all pairs: few enough for their buffers to be in the ring, so that none is dropped. */
const WINDOW = 64;
const HEADER = Buffer.from('02000000000102000000000288b5', 'hex'); // to nobody in particular, local experimental

/** Bytes without a period that a page, a buffer or a frame could have. */
const NOISE = Buffer.alloc(2 ** 17);
for (let i = 0, state = 1; i < NOISE.length; i += 4) {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
  NOISE.writeUInt32LE((state ^ (state >>> 15)) >>> 0, i);
}

/** The frame of this number: its length, and every byte after the header, follow from it. */
function numbered(sequence: number, bytesMax: number): Buffer {
  const frame = Buffer.allocUnsafe(60 + ((sequence * 37) % (bytesMax - 59)));
  HEADER.copy(frame);
  frame.writeUInt32BE(sequence, HEADER.length);
  NOISE.copy(frame, HEADER.length + 4, (sequence * 7) % 2 ** 16);
  return frame;
}

/** Sent until one comes back: testpmd's driver throws away what came before it had started its port, testpmd what before its forwarding. */
const GREETING = numbered(0xffffffff, 60);

/** Feature bits (virtio 1.2): MRG_RXBUF, RING_INDIRECT_DESC, RING_PACKED, IN_ORDER. */
const BITS = { mergeable: 15n, indirect: 28n, packed: 34n, inOrder: 35n };

describe.each([
  { name: 'split rings with mergeable buffers', packed: false, mergeable: true },
  { name: 'split rings without mergeable buffers', packed: false, mergeable: false },
  { name: 'packed rings with mergeable buffers', packed: true, mergeable: true },
  { name: 'packed rings without mergeable buffers', packed: true, mergeable: false },
  { name: 'split rings used in order', packed: false, mergeable: true, inOrder: true, frames: 20_000 },
  { name: 'packed rings used in order', packed: true, mergeable: true, inOrder: true, frames: 20_000 },
  { name: 'two pairs of split rings', packed: false, mergeable: true, queuePairs: 2, frames: 20_000 },
  { name: 'two pairs of packed rings', packed: true, mergeable: true, queuePairs: 2, frames: 20_000 },
])('testpmd on $name', ({ packed, mergeable, inOrder = false, queuePairs = 1, frames = 100_000 }) => {
  test(`sends back ${frames} frames whole, each once, in the order of its pair`, async () => {
    // Mergeable: up to three of the driver's buffers of 2 KiB, which it then sends in as many pieces and its header.
    const bytesMax = mergeable ? 5000 : 1500;
    // In an indirect table of a packed ring DPDK (22.11 to 26.11) leaves the header's piece marked as device-writable
    // (drivers/net/virtio/virtqueue.h, vring_desc_init_indirect_packed), before readable ones: our card refuses it.
    const indirect = !packed;
    let sent = 0;
    let back = 0;
    let bytes = 0;
    let wrong: string | undefined;
    let done: () => void = () => undefined;
    const finished = new Promise<void>((resolve) => { done = resolve; });
    let greeted = false;
    /** The number that comes next on each pair: a frame is sent on the pair of its number's remainder. */
    const awaited = Array.from({ length: queuePairs }, (_, pair) => pair);
    const lines: string[] = [];

    const peer: NetPeer = {
      kind: 'counting peer',
      receive(frame, port, pair) {
        if (GREETING.equals(frame)) {
          greeted = true;
          return;
        }
        const number = awaited[pair] ?? 0;
        if (!numbered(number, bytesMax).equals(frame)) {
          wrong ??= `in place of frame ${number} pair ${pair} gave ${frame.length} bytes: ${Buffer.from(frame.subarray(0, 40)).toString('hex')}`;
        }
        awaited[pair] = number + queuePairs;
        back += 1;
        bytes += frame.length;
        if (back === frames || wrong !== undefined) done();
        else fill();
      },
    };
    const net = virtioNet({ peer, mergeable, packed, inOrder, indirect, queuePairs });
    const fill = (): void => {
      while (sent < frames && sent - back < WINDOW) {
        if (net.send(numbered(sent, bytesMax), { queuePair: sent % queuePairs }) !== 'delivered') return;
        sent += 1;
      }
    };

    const directory = await mkdtemp(join(tmpdir(), 'rootport-testpmd-'));
    const fail = (error: Error): void => {
      wrong ??= error.message;
      done();
    };
    const attachment = await net.attach({ id: 'net0', directory, fail, log: (line) => lines.push(line) });
    const testpmd = await startTestpmd({
      directory, socket: attachment.chardevs[0]?.path ?? '', queuePairs, packed, mergeable, inOrder, frameBytesMax: bytesMax + 4,
    });
    try {
      const started = pRetry(() => {
        if (greeted) return;
        net.send(GREETING);
        throw new Error('nothing came back yet');
      }, { retries: 10_000, factor: 1, minTimeout: 20 });
      await within(Promise.race([started, testpmd.lost]), { timeoutMs: 60_000, what: 'testpmd to send a frame back' });
      const before = { ...net.counts.received, buffers: Array.from({ length: queuePairs }, (_, pair) => net.queue(2 * pair).counts.completed) };
      fill();
      const all = Promise.race([finished, testpmd.lost]);
      await within(all, { timeoutMs: 120_000, what: 'the frames to come back' }).catch((error: Error) => { wrong ??= error.message; });
      expect({ wrong, sent, back }).toEqual({ wrong: undefined, sent: frames, back: frames });

      const { transmitted, received } = net.counts;
      expect(received.frames - before.frames).toBe(frames);
      expect(received.bytes - before.bytes).toBe(bytes);
      expect(Object.values(transmitted.dropped).every((count) => count === 0)).toBe(true);
      expect(net.refused).toEqual([]);
      for (let pair = 0; pair < queuePairs; pair += 1) {
        const buffers = net.queue(2 * pair).counts.completed - (before.buffers[pair] ?? 0);
        if (mergeable) expect(buffers).toBeGreaterThan((1.5 * frames) / queuePairs);
        else expect(buffers).toBe(frames / queuePairs);
      }
      const features = BigInt(/SET_FEATURES (0x[0-9a-f]+)/.exec(lines.join('\n'))?.[1] ?? 0);
      const negotiated = Object.fromEntries(Object.entries(BITS).map(([name, bit]) => [name, (features >> bit & 1n) === 1n]));
      expect(negotiated).toEqual({ mergeable, indirect, packed, inOrder });

      const { exitCode, output } = await within(testpmd.quit(), { timeoutMs: 30_000, what: 'testpmd to end' });
      expect({ exitCode, bye: output.includes('Bye...') }).toEqual({ exitCode: 0, bye: true });
      expect(net.livePairs).toBe(0);
    } finally {
      await testpmd.end();
      await attachment.detach();
    }
  });
});
