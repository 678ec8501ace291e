// The other ends of the wire: loopback, link, scripted peer, capture. Cards are stood in for by ports that
// note what they are sent.
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { capture } from '../../../src/devices/virtio-net/capture.ts';
import { decodeEthernet, encodeEthernet, ipv4Bytes, macBytes, macText } from '../../../src/devices/virtio-net/ethernet.ts';
import { netLink } from '../../../src/devices/virtio-net/link.ts';
import { loopback } from '../../../src/devices/virtio-net/loopback.ts';
import { scriptedPeer } from '../../../src/devices/virtio-net/scripted-peer.ts';
import { DeadlineError, EnvironmentError, UsageError } from '../../../src/errors.ts';
import { GUEST_MAC, partialUdp, patterned, PEER_MAC, sum16 } from './frames.ts';
import { Port } from './noting-port.ts';
import { readPcapng } from './pcapng-reader.ts';

test('a loopback sends each frame back, on its pair', () => {
  const peer = loopback();
  const port = new Port(peer);
  peer.receive(patterned(60), port, 3);
  expect(port.sent).toEqual([{ frame: patterned(60), options: { queuePair: 3 } }]);
});

describe('a scripted peer', () => {
  test('gives each frame once, those that came before it was asked first, and those asked for by kind', async () => {
    const peer = scriptedPeer();
    const port = new Port(peer);
    const arp = encodeEthernet({ destination: PEER_MAC, source: GUEST_MAC, etherType: 0x0806, payload: new Uint8Array(28) });
    peer.receive(patterned(60, 1), port);
    peer.receive(arp, port);
    peer.receive(patterned(60, 2), port);
    const isArp = (frame: Uint8Array): boolean => decodeEthernet(frame)?.etherType === 0x0806;
    expect(await peer.nextFrame({ where: isArp })).toEqual(Buffer.from(arp));
    expect(await peer.nextFrame()).toEqual(patterned(60, 1));
    expect(await peer.nextFrame()).toEqual(patterned(60, 2));
    const [forArp, forAny] = [peer.nextFrame({ where: isArp }), peer.nextFrame()];
    peer.receive(patterned(60, 3), port);
    peer.receive(arp, port);
    expect([await forArp, await forAny]).toEqual([Buffer.from(arp), patterned(60, 3)]);
    await expect(peer.nextFrame({ timeoutMs: 5 })).rejects.toThrow(DeadlineError);
    peer.receive(patterned(60, 4), port);
    expect(peer.waiting).toBe(1); // who gave up gets nothing
  });

  test('keeps a copy of a frame, not the card\'s own view of it', async () => {
    const peer = scriptedPeer();
    const view = patterned(60);
    peer.receive(view, new Port(peer));
    view.fill(0);
    expect(await peer.nextFrame()).toEqual(patterned(60));
  });

  test('forgets the oldest frames when nobody asks', async () => {
    const peer = scriptedPeer();
    const port = new Port(peer);
    for (let i = 0; i < 1030; i += 1) peer.receive(patterned(60, i), port);
    expect([peer.waiting, peer.forgotten]).toEqual([1024, 6]);
    for (let i = 0; i < 70; i += 1) peer.receive(patterned(65_000, i), port);
    expect(peer.waiting).toBeLessThanOrEqual(64);
    expect((await peer.nextFrame()).length).toBe(65_000);
  });

  const STATION = { ipv4: '192.0.2.1', mac: '02:00:00:00:00:09' };

  /** An ARP request of the guest (192.0.2.2), RFC 826 field by field. */
  function arpRequest(target: readonly number[]): Buffer {
    const arp = Buffer.from([0, 1, 8, 0, 6, 4, 0, 1, ...GUEST_MAC, 192, 0, 2, 2, 0, 0, 0, 0, 0, 0, ...target]);
    return Buffer.from(encodeEthernet({ destination: new Uint8Array(6).fill(0xff), source: GUEST_MAC, etherType: 0x0806, payload: arp }));
  }

  function echoRequest(data: Uint8Array, { target = [192, 0, 2, 1] as readonly number[], padding = 0 } = {}): Buffer {
    const icmp = Buffer.concat([Buffer.from([8, 0, 0, 0, 0x12, 0x34, 0, 7]), data]);
    icmp.writeUInt16BE(~sum16(icmp) & 0xffff, 2);
    const ip = Buffer.from([0x45, 0, 0, 0, 0, 1, 0x40, 0, 63, 1, 0, 0, 192, 0, 2, 2, ...target]);
    ip.writeUInt16BE(20 + icmp.length, 2);
    ip.writeUInt16BE(~sum16(ip) & 0xffff, 10);
    return Buffer.from(encodeEthernet({ destination: PEER_MAC, source: GUEST_MAC, etherType: 0x0800, payload: Buffer.concat([ip, icmp, Buffer.alloc(padding)]) }));
  }

  test('with an address answers an ARP request for it, and for no other', async () => {
    const peer = scriptedPeer(STATION);
    const port = new Port(peer);
    peer.receive(arpRequest([192, 0, 2, 9]), port);
    peer.receive(arpRequest([192, 0, 2, 1]), port);
    expect(port.sent.map(({ frame }) => frame.toString('hex'))).toEqual([Buffer.from([
      ...GUEST_MAC, ...PEER_MAC, 8, 6, 0, 1, 8, 0, 6, 4, 0, 2, ...PEER_MAC, 192, 0, 2, 1, ...GUEST_MAC, 192, 0, 2, 2,
    ]).toString('hex')]);
    expect([peer.answered, peer.waiting]).toEqual([1, 2]);
  });

  test('answers an echo request with its data and right checksums, without the padding of its frame', () => {
    const peer = scriptedPeer(STATION);
    for (const length of [0, 1, 55, 56, 1400]) {
      const port = new Port(peer);
      peer.receive(echoRequest(patterned(length), { padding: 3 }), port);
      const [{ frame }] = port.sent;
      expect([macText(frame), macText(frame.subarray(6))]).toEqual([macText(GUEST_MAC), STATION.mac]);
      const datagram = frame.subarray(14);
      expect(datagram.length).toBe(28 + length);
      expect([sum16(datagram.subarray(0, 20)), sum16(datagram.subarray(20))]).toEqual([0xffff, 0xffff]);
      expect([...datagram.subarray(12, 20)]).toEqual([192, 0, 2, 1, 192, 0, 2, 2]);
      expect([...datagram.subarray(20, 22), ...datagram.subarray(24, 28)]).toEqual([0, 0, 0x12, 0x34, 0, 7]);
      expect(datagram.subarray(28)).toEqual(patterned(length));
    }
  });

  test.each([
    ['for another address', echoRequest(patterned(8), { target: [192, 0, 2, 3] })],
    ['to another card', ((frame) => { frame[5] = 1; return frame; })(echoRequest(patterned(8)))],
    ['whose ICMP checksum is wrong', ((frame) => { frame[45] ^= 1; return frame; })(echoRequest(patterned(8)))],
    ['whose IP checksum is wrong', ((frame) => { frame[22] ^= 1; return frame; })(echoRequest(patterned(8)))],
    ['that is a fragment', ((frame) => { frame[20] = 0x20; return frame; })(echoRequest(patterned(8)))],
    ['that says to be longer than it is', ((frame) => { frame[16] = 4; return frame; })(echoRequest(patterned(8)))],
  ])('does not answer an echo request %s', (_, frame) => {
    const peer = scriptedPeer(STATION);
    const port = new Port(peer);
    peer.receive(frame, port);
    expect(port.sent).toEqual([]);
    expect(peer.waiting).toBe(1);
  });

  test('takes any bytes as a frame without failing', () => {
    const peer = scriptedPeer(STATION);
    const port = new Port(peer);
    fc.assert(fc.property(
      fc.uint8Array({ maxLength: 80 }), fc.constantFrom(0x0800, 0x0806), fc.nat({ max: 94 }), fc.nat({ max: 255 }),
      (payload, etherType, at, value) => {
        peer.receive(encodeEthernet({ destination: PEER_MAC, source: GUEST_MAC, etherType, payload }), port);
        const near = echoRequest(patterned(20));
        near[at % near.length] = value;
        peer.receive(near.subarray(0, at), port);
        peer.receive(near, port);
      },
    ));
  });

  test('has one card', () => {
    const peer = scriptedPeer();
    peer.attached(new Port(peer));
    expect(() => peer.attached(new Port(peer))).toThrow(UsageError);
    peer.detached();
    peer.attached(new Port(peer));
  });

  test('refuses addresses that are none', () => {
    expect(() => scriptedPeer({ ipv4: '192.0.2' })).toThrow(UsageError);
    expect(() => scriptedPeer({ ipv4: '192.0.2.256' })).toThrow(UsageError);
    expect(() => scriptedPeer({ mac: '02:00:00:00:00' })).toThrow(UsageError);
    expect([...ipv4Bytes('10.0.200.1')]).toEqual([10, 0, 200, 1]);
    expect(macText(macBytes('AA:0b:00:01:02:03'))).toBe('aa:0b:00:01:02:03');
  });
});

describe('a capture', () => {
  let directory: string;
  let path: string;
  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'capture-'));
    path = join(directory, 'trace.pcapng');
  });
  afterEach(() => rm(directory, { recursive: true }));

  test('holds every frame of both directions, whole, in order, with its card, its pair and its fate', async () => {
    const trace = capture(path);
    const link = netLink();
    const [a, b] = link.ends.map((end, i) => new Port(trace.tap(end), i === 0 ? GUEST_MAC : PEER_MAC));
    const beganUs = Date.now() * 1000;
    a.peer.attached?.(a);
    b.peer.attached?.(b);
    b.delivery = 'no-buffers';
    a.peer.receive(patterned(61), a, 1);
    b.peer.receive(partialUdp({}), b, 0);
    expect(trace.frames).toBe(4);
    a.peer.detached?.(a);
    b.peer.detached?.(b);
    const file = readPcapng(await readFile(path));
    expect(file.application).toBe('rootport');
    expect(file.interfaces).toEqual([
      { linkType: 1, name: `card0 ${macText(GUEST_MAC)}`, mac: Buffer.from(GUEST_MAC).toString('hex') },
      { linkType: 1, name: `card1 ${macText(PEER_MAC)}`, mac: Buffer.from(PEER_MAC).toString('hex') },
    ]);
    const rest: object = { timeUs: expect.any(Number) };
    expect(file.packets).toEqual([
      { ...rest, interfaceId: 0, direction: 'outbound', queue: 1, frame: patterned(61), comment: undefined },
      { ...rest, interfaceId: 1, direction: 'inbound', queue: 0, frame: patterned(61), comment: 'dropped: no-buffers' },
      { ...rest, interfaceId: 1, direction: 'outbound', queue: 0, frame: partialUdp({}), comment: undefined },
      { ...rest, interfaceId: 0, direction: 'inbound', queue: 0, frame: partialUdp({}), comment: undefined },
    ]);
    const times = file.packets.map(({ timeUs }) => timeUs);
    expect(times).toEqual([...times].sort((one, other) => one - other));
    expect(Math.abs(times[0] - beganUs)).toBeLessThan(60e6);
  });

  test('goes on in the same file when a card comes back, and can be read meanwhile', async () => {
    const trace = capture(path);
    const port = new Port(trace.tap(loopback()));
    for (let plug = 0; plug < 3; plug += 1) {
      port.peer.attached?.(port);
      port.peer.receive(patterned(60 + plug), port, 0);
      trace.flush();
      expect(readPcapng(await readFile(path)).packets).toHaveLength(2 * (plug + 1));
      port.peer.detached?.(port);
    }
    expect(readPcapng(await readFile(path)).interfaces).toHaveLength(1);
    port.peer.receive(patterned(60), port, 0); // nobody is plugged: not captured, and no failure
    expect(trace.frames).toBe(6);
  });

  test('of much more than its buffer is written out on the way, complete', async () => {
    const trace = capture(path);
    const port = new Port(trace.tap(loopback()));
    port.peer.attached?.(port);
    for (let i = 0; i < 500; i += 1) port.peer.receive(patterned(1000 + i, i), port, 0);
    expect((await readFile(path)).length).toBeGreaterThan(900_000);
    port.peer.detached?.(port);
    const { packets } = readPcapng(await readFile(path));
    expect(packets.map(({ frame }) => frame)).toEqual(Array.from({ length: 1000 }, (_, i) => patterned(1000 + (i >> 1), i >> 1)));
  });

  test('to where no file can be is an EnvironmentError at the plug, and the peer is not attached', () => {
    const { ends: [end] } = netLink();
    const peer = capture(join(directory, 'missing', 'x')).tap(end);
    const port = new Port(peer);
    expect(() => peer.attached?.(port)).toThrow(EnvironmentError);
    end.attached?.(port);
  });

  test('whose file cannot be written ends, tells the machine once, and the card goes on', () => {
    const trace = capture('/dev/full');
    const port = new Port(trace.tap(loopback()));
    port.peer.attached?.(port);
    for (let i = 0; i < 500; i += 1) port.peer.receive(patterned(1000), port, 0);
    expect(port.failures).toHaveLength(1);
    expect(port.failures[0]).toBeInstanceOf(EnvironmentError);
    expect(port.failures[0].message).toContain('ENOSPC');
    expect(port.sent).toHaveLength(500);
    port.peer.detached?.(port);
  });

  test('does not hide its peer\'s refusal', () => {
    const { ends: [end] } = netLink();
    end.attached?.(new Port(end));
    const peer = capture(path).tap(end);
    expect(() => peer.attached?.(new Port(peer))).toThrow(UsageError);
  });
});
