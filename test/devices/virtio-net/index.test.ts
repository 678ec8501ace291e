// What virtioNet() takes and hands to the machine, and a card behind its real vhost-user session: the front
// end is a test's, the socket, the memory and the eventfds are real.
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { capture } from '../../../src/devices/virtio-net/capture.ts';
import { virtioNet } from '../../../src/devices/virtio-net/index.ts';
import type { VirtioNet, VirtioNetOptions } from '../../../src/devices/virtio-net/index.ts';
import { netHeader } from '../../../src/devices/virtio-net/layout.ts';
import { netLink } from '../../../src/devices/virtio-net/link.ts';
import { loopback } from '../../../src/devices/virtio-net/loopback.ts';
import { scriptedPeer } from '../../../src/devices/virtio-net/scripted-peer.ts';
import { UsageError } from '../../../src/errors.ts';
import type { AttachSite, Attachment } from '../../../src/qemu/attachment.ts';
import { within } from '../../../src/wait.ts';
import { FrontEnd } from '../../vhost-user/front-end.ts';
import { patterned } from './frames.ts';

let directory: string;
const failures: Error[] = [];
beforeEach(async () => { directory = await mkdtemp(join(tmpdir(), 'virtio-net-')); });
afterEach(async () => {
  await rm(directory, { recursive: true });
  expect(failures.splice(0)).toEqual([]);
});

function site(id = 'net0'): AttachSite {
  return { id, directory, fail: (error) => failures.push(error), log: () => undefined };
}

describe('virtioNet', () => {
  test.each<[VirtioNetOptions, string]>([
    [{ queuePairs: 0 }, 'queuePairs 0 is not a whole number from 1 to 32'],
    [{ queuePairs: 33 }, 'queuePairs 33'],
    [{ mtu: 67 }, 'mtu 67 is not a whole number from 68 to 65535'],
    [{ mtu: 65536 }, 'mtu 65536'],
    [{ queueSize: 128 }, 'queueSize 128 is not 256, 512 or 1024'],
    [{ latencyMs: -1 }, 'latencyMs -1'],
    [{ mac: '52:54:00:12:34' }, 'no MAC address'],
    [{ mac: '01:00:5e:00:00:01' }, 'is a multicast address'],
  ])('of %j is a UsageError', (options, message) => {
    expect(() => virtioNet(options)).toThrow(UsageError);
    expect(() => virtioNet(options)).toThrow(message);
  });

  test('attaches as virtio-net-pci over a vhost-user netdev, with a vector for each queue and two more', async () => {
    const net = virtioNet({ queuePairs: 4, mac: '52:54:00:12:34:57', mtu: 9000, queueSize: 512 });
    expect(net).toMatchObject({ kind: 'virtio-net', queuePairs: 4, mac: '52:54:00:12:34:57', livePairs: 0 });
    const attachment = await net.attach(site());
    expect(attachment).toMatchObject({
      driver: 'virtio-net-pci',
      properties: { netdev: 'net0-netdev', mac: '52:54:00:12:34:57', mq: true, vectors: 10, host_mtu: 9000, romfile: '', rx_queue_size: 512, tx_queue_size: 512 },
      netdevs: [{ id: 'net0-netdev', type: 'vhost-user', properties: { queues: 4, chardev: 'net0-chardev' } }],
      chardevs: [{ id: 'net0-chardev', path: join(directory, 'net0.sock') }],
    });
    expect(attachment.properties).not.toHaveProperty('chardev');
    await attachment.detach();
    expect(await readdir(directory)).toEqual([]);
  });

  test('has INTx with a QEMU that crashes on its vectors, and vectors again with another', async () => {
    const net = virtioNet();
    const at = (major: number): AttachSite => ({ ...site(), qemu: { version: { major, minor: 2, text: `${major}.2` }, accel: 'tcg' } });
    for (const [major, vectors] of [[7, 0], [11, 4]] as const) {
      const attachment = await net.attach(at(major));
      expect([attachment.properties['vectors'], net.vectors]).toEqual([vectors, vectors]);
      await attachment.detach();
    }
  });

  test('gives each card an address of its own, locally administered', () => {
    const macs = [virtioNet().mac, virtioNet().mac];
    expect(new Set(macs).size).toBe(2);
    for (const mac of macs) expect(mac).toMatch(/^02:52:50:/);
  });

  test('is plugged once at a time, and leaves its peer when it is unplugged', async () => {
    const { ends: [end] } = netLink();
    const [one, other] = [virtioNet({ peer: end }), virtioNet({ peer: end })];
    const attachment = await one.attach(site());
    await expect(one.attach(site('net1'))).rejects.toThrow('plugged already');
    await expect(other.attach(site('net1'))).rejects.toThrow('has a card already');
    await attachment.detach();
    await (await other.attach(site('net1'))).detach();
    await (await one.attach(site())).detach();
    expect(await readdir(directory)).toEqual([]);
  });

  test('nextFrame is a scripted peer\'s, behind a capture too, and of others a UsageError', async () => {
    await expect(virtioNet({ peer: loopback() }).nextFrame()).rejects.toThrow('its peer, loopback');
    const peer = scriptedPeer();
    const net = virtioNet({ peer: capture(join(directory, 'x.pcapng')).tap(peer) });
    peer.receive(patterned(60), { mac: patterned(6), send: () => 'delivered', pause: () => undefined, resume: () => undefined, fail: () => undefined });
    expect(await net.nextFrame()).toEqual(patterned(60));
  });

  test('unplugged, it says that a frame goes nowhere', () => {
    expect(virtioNet().send(patterned(60))).toBe('queue-down');
  });
});

describe('a card over vhost-user', () => {
  let net: VirtioNet;
  let attachment: Attachment;
  let frontEnd: FrontEnd;
  async function plug(options: VirtioNetOptions): Promise<void> {
    net = virtioNet(options);
    attachment = await net.attach(site());
    frontEnd = new FrontEnd(attachment.chardevs[0].path);
  }
  afterEach(async () => {
    frontEnd.close();
    await attachment.detach();
  });

  const until = async (what: string, condition: () => boolean): Promise<void> => {
    const seen = (async () => {
      while (!condition()) await new Promise((resolve) => setImmediate(resolve));
    })();
    await within(seen, { timeoutMs: 5000, what });
  };

  test('offers no config space, which QEMU keeps to itself', async () => {
    await plug({ queuePairs: 2 });
    const features = await frontEnd.ask('GET_PROTOCOL_FEATURES', undefined);
    expect(features.value & (1n << 9n)).toBe(0n);
    expect((await frontEnd.ask('GET_FEATURES', undefined)).value & 0x408021n).toBe(0x408021n); // CSUM, MAC, MRG_RXBUF, MQ
  });

  test('answers GET_QUEUE_NUM with its queue pairs, which QEMU takes it for, and has twice as many rings', async () => {
    await plug({ queuePairs: 3 });
    await frontEnd.negotiate();
    expect((await frontEnd.ask('GET_QUEUE_NUM', undefined)).value).toBe(3n);
    expect((await frontEnd.ask('SET_VRING_ENABLE', { index: 5, num: 0 }, { needReply: true })).value).toBe(0n);
  });

  test('loops a packet back, and each queue fires its own vector', async () => {
    await plug({ peer: loopback() });
    const receive = await frontEnd.start({ size: 16 });
    const transmit = frontEnd.prepareRing(1, { size: 16 });
    await frontEnd.startRing(transmit);
    receive.driver.submit([], [1600]);
    await until('the receive queue to run', () => net.livePairs === 1);
    const packet = Buffer.concat([new Uint8Array(netHeader.sizeBytes), patterned(60)]);
    transmit.driver.submit([packet], []);
    await frontEnd.signalled(receive.callFd);
    await frontEnd.signalled(transmit.callFd);
    const [{ len, written }] = receive.driver.collect();
    expect(Buffer.from(written.subarray(12, len))).toEqual(patterned(60));
    expect(attachment.witness?.fired()).toEqual(new Map([[0, 1], [1, 1]]));
    expect(net.counts).toMatchObject({ transmitted: { frames: 1, bytes: 60 }, received: { frames: 1, bytes: 60 } });
  });

  test('delivers nothing to a disabled queue, and again once it is enabled', async () => {
    await plug({});
    const { driver } = await frontEnd.start({ size: 16 });
    driver.submit([], [1600]);
    await until('the receive queue to run', () => net.livePairs === 1);
    await frontEnd.ask('SET_VRING_ENABLE', { index: 0, num: 0 }, { needReply: true });
    expect([net.livePairs, net.send(patterned(60))]).toEqual([0, 'queue-down']);
    await frontEnd.ask('SET_VRING_ENABLE', { index: 0, num: 1 }, { needReply: true });
    expect([net.livePairs, net.send(patterned(60))]).toEqual([1, 'delivered']);
  });

  test('gives the buffers of a packet that was too long back to the ring when it is stopped', async () => {
    await plug({});
    const { driver } = await frontEnd.start({ size: 16 });
    driver.submit([], [100]);
    driver.submit([], [100]);
    await until('the receive queue to run', () => net.livePairs === 1);
    expect(net.send(patterned(500))).toBe('too-long'); // this front end accepts no mergeable buffers
    expect(net.queue(0).counts.taken).toBe(1);
    const { payload } = await frontEnd.ask('GET_VRING_BASE', { index: 0, num: 0 });
    expect(new Uint32Array(payload.buffer)).toEqual(new Uint32Array([0, 0]));
    expect(net.send(patterned(60))).toBe('queue-down');
  });

  test('a driver that breaks one queue fails the machine with a ProtocolError, and the other queue goes on', async () => {
    await plug({});
    const receive = await frontEnd.start({ size: 16 });
    const transmit = frontEnd.prepareRing(1, { size: 16 });
    await frontEnd.startRing(transmit);
    receive.driver.submit([], [1600]);
    await until('the receive queue to run', () => net.livePairs === 1);
    transmit.driver.submit([Buffer.alloc(5)], []);
    await until('the queue to break', () => failures.length > 0);
    expect(failures.splice(0).map(({ message }) => message)).toEqual([expect.stringContaining('virtio-net queue 1: header-too-short')]);
    expect(net.refused).toEqual([{ queue: 1, fault: 'header-too-short' }]);
    expect(net.send(patterned(60))).toBe('delivered');
  });

  test('a held transmit queue keeps its packet from the peer until it is released', async () => {
    await plug({});
    await frontEnd.start({ size: 16 });
    const transmit = frontEnd.prepareRing(1, { size: 16 });
    await frontEnd.startRing(transmit);
    net.queue(1).hold();
    const request = net.queue(1).nextRequest({ timeoutMs: 5000 });
    transmit.driver.submit([Buffer.concat([new Uint8Array(12), patterned(60)])], []);
    expect((await request).readableBytes).toBe(72);
    expect(net.counts.transmitted.frames).toBe(0);
    net.queue(1).release();
    expect(await net.nextFrame({ timeoutMs: 5000 })).toEqual(patterned(60));
  });
});
