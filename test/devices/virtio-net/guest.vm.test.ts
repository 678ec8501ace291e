// The in-tree virtio_net drives our card where the suite does not go: two machines on a link with a capture
// of it, a card that is there at the boot, one of a hanging back end, one without mergeable buffers.
import { createHash } from 'node:crypto';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { capture } from '../../../src/devices/virtio-net/capture.ts';
import { decodeEthernet, ETHERTYPE, macText } from '../../../src/devices/virtio-net/ethernet.ts';
import { virtioNet } from '../../../src/devices/virtio-net/index.ts';
import type { VirtioNet } from '../../../src/devices/virtio-net/index.ts';
import { netLink } from '../../../src/devices/virtio-net/link.ts';
import { scriptedPeer } from '../../../src/devices/virtio-net/scripted-peer.ts';
import { DeadlineError } from '../../../src/errors.ts';
import { boot } from '../../../src/machine/boot.ts';
import { restore } from '../../../src/machine/kept-snapshots.ts';
import type { Machine } from '../../../src/machine/machine.ts';
import { sum16 } from './frames.ts';
import { readPcapng } from './pcapng-reader.ts';

/** Of each file that is moved. */
const FILE_BYTES = 2 ** 20;
let directory: string;
let machine: Machine;
const coldPeer = scriptedPeer({ ipv4: '198.51.100.1' });
const cold = virtioNet({ peer: coldPeer, queuePairs: 2 });
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'virtio-net-vm-'));
  machine = await boot({ devices: [cold] });
}, 180_000);
afterAll(async () => {
  await machine?.close();
  await rm(directory, { recursive: true });
});

async function up(on: Machine, net: VirtioNet, address: string): Promise<string> {
  const fn = await on.functionOf(net);
  const dev = (await on.guest.run(`ls ${fn.sysfs}/virtio*/net`)).stdout.trim();
  await on.guest.run(`ip addr add ${address} dev ${dev} && ip link set ${dev} up`);
  return dev;
}

test('a card that is there when the guest boots is its second one, and works', async () => {
  expect(await up(machine, cold, '198.51.100.2/24')).toBe('eth1');
  expect((await machine.guest.run('ping -c 2 -i 0.1 198.51.100.1')).stdout).toContain('2 packets received');
  expect(coldPeer.answered).toBe(3);
});

test('two machines on a link move a file each way at once, whole, and both can be put together from the capture of the wire', async () => {
  const other = await restore();
  try {
    const path = join(directory, 'wire.pcapng');
    const wire = capture(path);
    const { ends, counts } = netLink();
    const sides = [
      { on: machine, net: virtioNet({ peer: wire.tap(ends[0]) }), address: '192.0.2.2', content: pseudoRandom(1) },
      { on: other, net: virtioNet({ peer: ends[1] }), address: '192.0.2.3', content: pseudoRandom(2) },
    ] as const;
    for (const { on, net, address, content } of sides) {
      await on.plug(net);
      await up(on, net, `${address}/24`);
      await on.guest.upload(content, '/tmp/www/content');
      await on.guest.run('httpd -p 8000 -h /tmp/www');
    }
    await Promise.all(sides.map(async ({ on }, i) => {
      const { address, content } = sides[1 - i] as (typeof sides)[number];
      const { stdout } = await on.guest.run(`wget -q -O - http://${address}:8000/content | sha256sum`, { timeoutMs: 120_000 });
      expect(stdout.split(' ')[0]).toBe(createHash('sha256').update(content).digest('hex'));
    }));
    const [{ net: first }, { net: second }] = sides;
    const { transmitted, received } = first.counts;
    for (const { on, net } of sides) await on.unplug(net);
    expect(counts.map(({ dropped, waiting }) => [dropped, waiting])).toEqual([[0, 0], [0, 0]]);

    const { interfaces, packets } = readPcapng(await readFile(path));
    expect(interfaces).toMatchObject([{ linkType: 1, mac: first.mac.replaceAll(':', '') }]);
    expect(packets.length).toBeGreaterThanOrEqual(transmitted.frames + received.frames);
    expect(wire.frames).toBe(packets.length);
    const streams = { outbound: new Map<number, Buffer>(), inbound: new Map<number, Buffer>() };
    for (const { frame, direction, comment } of packets) {
      const ethernet = decodeEthernet(frame);
      if (ethernet?.etherType !== ETHERTYPE.IPV4 || ethernet.payload[9] !== 6 || comment !== undefined || direction === undefined) continue;
      const datagram = Buffer.from(ethernet.payload);
      const segment = datagram.subarray(20, datagram.readUInt16BE(2));
      const pseudo = Buffer.concat([datagram.subarray(12, 20), Buffer.from([0, 6, segment.length >> 8, segment.length & 0xff])]);
      expect([sum16(datagram.subarray(0, 20)), sum16(pseudo, segment)]).toEqual([0xffff, 0xffff]);
      expect(macText(ethernet.source)).toBe((direction === 'outbound' ? first : second).mac);
      const data = segment.subarray(((segment[12] ?? 0) >> 4) * 4);
      if (segment.readUInt16BE(0) === 8000 && data.length > 0) streams[direction].set(segment.readUInt32BE(4), data);
    }
    expect(putTogether(streams.outbound).subarray(-FILE_BYTES)).toEqual(sides[0].content);
    expect(putTogether(streams.inbound).subarray(-FILE_BYTES)).toEqual(sides[1].content);
  } finally {
    await other.close();
  }
});

/** What a server sent, from its segments by sequence number; a later copy of one takes the earlier one's place. */
function putTogether(segments: ReadonlyMap<number, Buffer>): Buffer {
  const first = [...segments.keys()][0] ?? 0;
  const stream = Buffer.alloc(2 * FILE_BYTES);
  let end = 0;
  for (const [sequence, data] of segments) {
    const at = (sequence - first) >>> 0; // 32 bits, wrapping
    data.copy(stream, at);
    end = Math.max(end, at + data.length);
  }
  return stream.subarray(0, end);
}

function pseudoRandom(seed: number): Buffer {
  const content = Buffer.alloc(FILE_BYTES);
  for (let i = 0; i < content.length; i += 4) content.writeUInt32LE(Math.imul(i + seed, 0x9e3779b1) >>> 0, i);
  return content;
}

test('without mergeable buffers, and without checksums, a driver still gets through', async () => {
  const peer = scriptedPeer({ ipv4: '192.0.2.1' });
  const net = virtioNet({ peer, mergeable: false, checksum: false });
  const fn = await machine.plug(net);
  await up(machine, net, '192.0.2.2/24');
  const features = (await machine.guest.run(`cat ${fn.sysfs}/virtio*/features`)).stdout.trim();
  expect([features[0], features[15], features[32]]).toEqual(['0', '0', '1']); // CSUM, MRG_RXBUF, VERSION_1
  expect((await machine.guest.run('ping -c 2 -i 0.1 -s 1400 192.0.2.1')).stdout).toContain('2 packets received');
  expect(net.refused).toEqual([]);
  await machine.unplug(net);
});

test('of which the back end never answers is a DeadlineError that says what QEMU did not', async () => {
  const victim = await restore();
  try {
    const plug = victim.plug(virtioNet({ hang: 'connection' }), { timeoutMs: 2000 });
    await expect(plug).rejects.toThrow(DeadlineError);
    await expect(plug).rejects.toThrow(/netdev_add of virtio-net-pci[^]*does the back end hang/);
  } finally {
    await victim.close();
  }
});
