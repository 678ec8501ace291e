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
import type { Machine } from '../../../src/machine/machine.ts';
import { sum16 } from './frames.ts';
import { readPcapng } from './pcapng-reader.ts';

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

test('two machines on a link move a file, whole, and the capture of the wire has every packet of it, with right checksums', async () => {
  const other = await boot();
  try {
    const path = join(directory, 'wire.pcapng');
    const wire = capture(path);
    const { ends } = netLink();
    const [server, client] = [virtioNet({ peer: wire.tap(ends[0]) }), virtioNet({ peer: ends[1] })];
    await machine.plug(server);
    await other.plug(client);
    await up(machine, server, '192.0.2.2/24');
    await up(other, client, '192.0.2.3/24');
    const content = Buffer.alloc(2 ** 20);
    for (let i = 0; i < content.length; i += 4) content.writeUInt32LE(Math.imul(i, 0x9e3779b1) >>> 0, i);
    await machine.guest.upload(content, '/tmp/www/content');
    await machine.guest.run('httpd -p 8000 -h /tmp/www');
    const { stdout } = await other.guest.run('wget -q -O - http://192.0.2.2:8000/content | sha256sum', { timeoutMs: 60_000 });
    expect(stdout.split(' ')[0]).toBe(createHash('sha256').update(content).digest('hex'));
    const { transmitted, received } = server.counts;
    await machine.unplug(server);
    await other.unplug(client);

    const { interfaces, packets } = readPcapng(await readFile(path));
    expect(interfaces).toMatchObject([{ linkType: 1, mac: server.mac.replaceAll(':', '') }]);
    expect(packets.length).toBeGreaterThanOrEqual(transmitted.frames + received.frames);
    expect(wire.frames).toBe(packets.length);
    let dataBytes = 0;
    for (const { frame, direction, comment } of packets) {
      const ethernet = decodeEthernet(frame);
      if (ethernet?.etherType !== ETHERTYPE.IPV4 || ethernet.payload[9] !== 6 || comment !== undefined) continue;
      const datagram = Buffer.from(ethernet.payload);
      const segment = datagram.subarray(20, datagram.readUInt16BE(2));
      const pseudo = Buffer.concat([datagram.subarray(12, 20), Buffer.from([0, 6, segment.length >> 8, segment.length & 0xff])]);
      expect([sum16(datagram.subarray(0, 20)), sum16(pseudo, segment)]).toEqual([0xffff, 0xffff]);
      expect(macText(ethernet.source)).toBe(direction === 'outbound' ? server.mac : client.mac);
      if (direction === 'outbound') dataBytes += segment.length - ((segment[12] ?? 0) >> 4) * 4;
    }
    expect(dataBytes).toBeGreaterThanOrEqual(content.length);
  } finally {
    await other.close();
  }
});

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
  const victim = await boot();
  try {
    const plug = victim.plug(virtioNet({ hang: 'connection' }), { timeoutMs: 2000 });
    await expect(plug).rejects.toThrow(DeadlineError);
    await expect(plug).rejects.toThrow(/netdev_add of virtio-net-pci[^]*does the back end hang/);
  } finally {
    await victim.close();
  }
});
