// The network device over rings in memory: what a driver sends and takes, right and wrong.
import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { VirtioNetDevice } from '../../../src/devices/virtio-net/device.ts';
import type { VirtioNetDeviceOptions } from '../../../src/devices/virtio-net/device.ts';
import { netConfig, VIRTIO_NET_F } from '../../../src/devices/virtio-net/layout.ts';
import { ProtocolError, UsageError } from '../../../src/errors.ts';
import { featureMask, VIRTIO_F } from '../../../src/virtio/features.ts';
import { MockDriver } from '../../virtio/mock-driver.ts';
import type { MockDriverOptions } from '../../virtio/mock-driver.ts';
import { GUEST_MAC, partialUdp, patterned, pseudoHeader, sum16 } from './frames.ts';
import { NetDriver } from './net-driver.ts';

const MODERN = featureMask(VIRTIO_F.VIRTIO_F_VERSION_1);
const { VIRTIO_NET_F_MRG_RXBUF, VIRTIO_NET_F_CSUM } = VIRTIO_NET_F;

interface Rig {
  readonly device: VirtioNetDevice;
  readonly sent: { readonly frame: Buffer; readonly pair: number }[];
  readonly log: string[];
  driver(pair?: number, options?: MockDriverOptions & { legacy?: boolean }): NetDriver;
}

function setUp(options: Partial<VirtioNetDeviceOptions> = {}, features?: bigint): Rig {
  const sent: Rig['sent'] = [];
  const log: string[] = [];
  const device = new VirtioNetDevice({
    queuePairs: 1, queueSizeMax: 256, mac: GUEST_MAC, mtu: undefined, mergeable: true, checksum: true, controlQueue: false,
    onFrame: (frame, pair) => sent.push({ frame: Buffer.from(frame), pair }),
    log: (line) => log.push(line),
    ...options,
  });
  device.negotiated(features ?? device.features | MODERN);
  return { device, sent, log, driver: (pair, driverOptions) => new NetDriver(device, pair, driverOptions) };
}

describe('a frame to the guest', () => {
  test('goes into one buffer that holds it, after a header of one buffer', () => {
    const { device, driver: make } = setUp();
    const driver = make();
    driver.post(1526, 1526);
    const frame = patterned(100);
    expect(device.send(frame, 0)).toBe('delivered');
    const [packet, ...more] = driver.received();
    expect(more).toEqual([]);
    expect(packet.frame).toEqual(frame);
    expect(packet.header).toEqual({ flags: 0, gso_type: 0, hdr_len: 0, gso_size: 0, csum_start: 0, csum_offset: 0, num_buffers: 1 });
    expect(packet.usedBytes).toEqual([112]);
    expect(device.counts.received).toMatchObject({ frames: 1, bytes: 100 });
  });

  test('is spread over as many buffers as it takes, made used together, whatever their sizes', () => {
    fc.assert(fc.property(
      fc.array(fc.array(fc.integer({ min: 12, max: 300 }), { minLength: 1, maxLength: 8 }), { minLength: 1, maxLength: 20 }),
      fc.array(fc.integer({ min: 0, max: 1200 }), { minLength: 1, maxLength: 20 }),
      fc.boolean(),
      (posts, lengths, eventIdx) => {
        const { device, driver: make } = setUp();
        const driver = make(0, { size: 16, eventIdx });
        let posted: number[] = [];
        const postMore = (sizes: readonly number[]): void => {
          for (const size of sizes.slice(0, 16 - posted.length)) {
            driver.post(size);
            posted.push(size);
          }
        };
        lengths.forEach((length, n) => {
          postMore(posts[n % posts.length]);
          const frame = patterned(length, n);
          let count = 0;
          for (let room = 0; room < length + 12 && count <= posted.length; count += 1) room += posted[count] ?? 0;
          const interrupts = driver.receiveRing.interrupts;
          if (count > posted.length) {
            // A ring that is full of buffers gets no more of them.
            expect(device.send(frame, 0)).toBe(posted.length === 16 ? 'too-long' : 'no-buffers');
            expect(driver.received()).toEqual([]);
            return;
          }
          expect(device.send(frame, 0)).toBe('delivered');
          expect(driver.receiveRing.interrupts).toBe(interrupts + 1);
          const packets = driver.received();
          expect(packets).toHaveLength(1);
          expect(packets[0].frame).toEqual(frame);
          expect(packets[0].header.num_buffers).toBe(count);
          expect(packets[0].usedBytes.slice(0, -1)).toEqual(posted.slice(0, count - 1));
          posted = posted.slice(count);
        });
        expect(driver.receiveRing.memory.guardsIntact()).toBe(true);
        expect(driver.receiveRing.failures).toEqual([]);
      },
    ), { numRuns: 100 });
  });

  test('with no buffer posted is dropped and counted, and the next one is delivered', () => {
    const { device, driver: make } = setUp();
    const driver = make();
    expect(device.send(patterned(60), 0)).toBe('no-buffers');
    driver.post(1526);
    expect(device.send(patterned(61), 0)).toBe('delivered');
    expect(driver.received().map(({ frame }) => frame.length)).toEqual([61]);
    expect(device.counts.received).toMatchObject({ frames: 1, dropped: { 'no-buffers': 1, 'too-long': 0, 'queue-down': 0, filtered: 0 } });
  });

  test('that all posted buffers together do not hold leaves them to a shorter one', () => {
    const { device, driver: make } = setUp();
    const driver = make();
    driver.post(64, 64);
    expect(device.send(patterned(200), 0)).toBe('no-buffers');
    expect(driver.received()).toEqual([]);
    expect(device.send(patterned(100), 0)).toBe('delivered');
    expect(driver.received()).toMatchObject([{ usedBytes: [64, 48] }]);
  });

  test('without mergeable buffers must fit into one, with num_buffers 1 all the same', () => {
    const { device, driver: make } = setUp({ mergeable: false });
    const driver = make();
    driver.post(64, 1526);
    expect(device.send(patterned(100), 0)).toBe('too-long');
    expect(device.send(patterned(52), 0)).toBe('delivered');
    expect(device.send(patterned(100), 0)).toBe('delivered');
    expect(driver.received().map(({ header, frame }) => [header.num_buffers, frame.length])).toEqual([[1, 52], [1, 100]]);
  });

  test('to a legacy driver has a header of 10 bytes', () => {
    const { device, driver: make } = setUp({}, 0n);
    const driver = make(0, { legacy: true });
    driver.post(200);
    const frame = patterned(64);
    device.send(frame, 0);
    expect(driver.received()).toMatchObject([{ frame, usedBytes: [74] }]);
    driver.transmit(frame);
    expect(device.counts.transmitted.frames).toBe(1);
  });

  test('may have a header that lies', () => {
    const { device, driver: make } = setUp();
    const driver = make();
    driver.post(200);
    device.send(patterned(64), 0, { header: { num_buffers: 7, flags: 1 } });
    expect([...driver.receiveRing.collect()[0].written.subarray(0, 12)]).toEqual([1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7, 0]);
  });

  test('goes nowhere before the queue runs, while it is disabled, and after it stopped', async () => {
    const { device, driver: make } = setUp();
    expect(device.send(patterned(60), 0)).toBe('queue-down');
    expect(device.livePairs).toBe(0);
    const driver = make();
    driver.post(200, 200, 200);
    expect(device.livePairs).toBe(1);
    device.disabled(0);
    expect(device.send(patterned(60), 0)).toBe('queue-down');
    device.process(0, driver.receiveQueue);
    expect(device.send(patterned(60), 0)).toBe('delivered');
    await device.drain(0);
    expect(device.send(patterned(60), 0)).toBe('queue-down');
    expect(driver.received()).toHaveLength(1);
    expect(device.counts.received.dropped['queue-down']).toBe(3);
  });

  test('that was too long leaves its buffers to the queue\'s next life, in their order', async () => {
    const { device, driver: make } = setUp();
    const driver = make();
    driver.post(64, 65, 66);
    device.send(patterned(52), 0);
    driver.received();
    expect(device.send(patterned(400), 0)).toBe('no-buffers'); // takes the other two, and keeps them
    device.disabled(0);
    expect(await driver.restartReceive()).toBe(1);
    expect(device.send(patterned(110), 0)).toBe('delivered');
    expect(driver.received()).toMatchObject([{ usedBytes: [65, 57] }]);
  });

  test('more than a turn of them, with the ring never empty, are all delivered', () => {
    const { device } = setUp();
    let turns = 0;
    const ring = new MockDriver({ size: 16 });
    const queue = ring.queue({ yieldTurn: () => { turns += 1; } });
    device.process(0, queue);
    for (let i = 0; i < 16; i += 1) ring.descriptor(i, { addr: ring.arena, len: 128, flags: 2 });
    ring.publish([0, 1, 2, 3, 4, 5, 6, 7]);
    for (let i = 0; i < 10_000; i += 1) {
      device.send(patterned(60), 0);
      ring.publish([(i + 8) % 16]);
    }
    expect(device.counts.received.frames).toBe(10_000);
    expect(turns).toBeGreaterThan(0);
  });

  test('longer than any is the caller\'s mistake', () => {
    const { device } = setUp();
    expect(() => device.send(new Uint8Array(65554), 0)).toThrow(UsageError);
    expect(() => device.pairOf(patterned(60), 1)).toThrow('no queue pair 1');
  });
});

describe('a frame from the guest', () => {
  test('reaches the peer as it was sent, however it was cut up', () => {
    fc.assert(fc.property(
      fc.integer({ min: 14, max: 4000 }),
      fc.uniqueArray(fc.integer({ min: 1, max: 2000 }), { maxLength: 6 }),
      (length, cuts) => {
        const { sent, driver: make } = setUp();
        const driver = make();
        const frame = patterned(length);
        driver.transmit(frame, {}, [...cuts].sort((a, b) => a - b).filter((cut) => cut < length + 12));
        expect(sent).toEqual([{ frame, pair: 0 }]);
      },
    ));
  });

  test('with a partial checksum has it completed, odd lengths too', () => {
    const { sent, driver: make } = setUp();
    const driver = make();
    for (let length = 0; length < 40; length += 1) {
      const frame = partialUdp({ data: patterned(length, length) });
      driver.transmit(frame, { flags: 1, csum_start: 34, csum_offset: 6 });
      const datagram = sent.at(-1)?.frame.subarray(14) ?? Buffer.alloc(0);
      expect(sum16(pseudoHeader(datagram), datagram.subarray(20))).toBe(0xffff);
      expect(datagram.readUInt16BE(26)).not.toBe(0);
    }
    expect(sent).toHaveLength(40);
  });

  test('whose checksum comes out as 0 says 0xffff, which of UDP is not "none"', () => {
    const { sent, driver: make } = setUp();
    const driver = make();
    const frame = partialUdp({ data: Buffer.from([0, 0]) });
    const sum = sum16(frame.subarray(34)); // of the partial one: choose the data so that the whole is 0xffff
    frame.writeUInt16BE(0xffff - sum, 42);
    driver.transmit(frame, { flags: 1, csum_start: 34, csum_offset: 6 });
    expect(sent[0].frame.readUInt16BE(40)).toBe(0xffff);
    expect(sum16(pseudoHeader(frame.subarray(14)), sent[0].frame.subarray(34))).toBe(0xffff);
  });

  const udp = { flags: 1, csum_start: 34, csum_offset: 6 };
  test.each([
    ['too-short', patterned(13), {}],
    ['too-long', patterned(1519), {}],
    ['segmentation-not-negotiated', patterned(64), { gso_type: 1 }],
    ['checksum-not-negotiated', partialUdp({}), udp],
    ['checksum-out-of-range', partialUdp({}), { ...udp, csum_start: 0xffff }],
    ['checksum-out-of-range', partialUdp({}), { ...udp, csum_offset: 12 - 1 }],
    ['checksum-out-of-range', partialUdp({}), { ...udp, csum_offset: 0xffff }],
  ] as const)('that is %s is dropped and counted, its buffer given back, and the next one passes', (fault, frame, header) => {
    const { device, sent, log, driver: make } = setUp({ mtu: 1500, checksum: fault !== 'checksum-not-negotiated' });
    const driver = make();
    driver.transmit(frame, header);
    expect(sent).toEqual([]);
    expect(device.counts.transmitted).toMatchObject({ frames: 0, bytes: 0, dropped: { [fault]: 1 } });
    expect(device.refused).toEqual([{ queue: 1, fault }]);
    expect(log).toEqual([`virtio-net: queue 1: ${fault}`]);
    expect(driver.transmitRing.freeDescriptors).toBe(16);
    driver.transmit(patterned(1518));
    expect(sent).toHaveLength(1);
    expect(driver.transmitRing.failures).toEqual([]);
  });

  test('whose length is a lie of 4 GiB is dropped without being copied', () => {
    const { device, driver: make } = setUp();
    const driver = make();
    const ring = driver.transmitRing;
    const lengthBytes = ring.memory.regions[0].sizeBytes;
    const start = ring.memory.regions[0].guestAddress;
    for (let i = 0; i < 16; i += 1) ring.descriptor(i, { addr: start, len: lengthBytes, flags: i < 15 ? 1 : 0, next: i + 1 });
    ring.publish([0]);
    expect(device.counts.transmitted.dropped['too-long']).toBe(1);
  });

  test('the first thousand faults are kept, and all are counted', () => {
    const { device, log, driver: make } = setUp();
    const driver = make();
    for (let i = 0; i < 1500; i += 1) driver.transmit(patterned(5));
    expect([device.refused.length, log.length, device.counts.transmitted.dropped['too-short']]).toEqual([1000, 1000, 1500]);
  });
});

describe('a queue is broken by', () => {
  test.each([
    ['a packet to send that is shorter than its header', 1, [Buffer.alloc(11)], [], /header-too-short/],
    ['a packet to send with a writable buffer', 1, [Buffer.alloc(80)], [4], /writable-buffer/],
    ['a receive buffer with readable bytes', 0, [Buffer.alloc(4)], [1526], /4 readable and 1526 writable/],
    ['a receive buffer shorter than the header', 0, [], [11], /0 readable and 11 writable/],
  ] as const)('%s, and the other goes on', (_, queue, readable, writable, message) => {
    const { device, sent, driver: make } = setUp();
    const driver = make();
    const ring = queue === 0 ? driver.receiveRing : driver.transmitRing;
    ring.submit(readable, writable);
    if (queue === 0) expect(device.send(patterned(64), 0)).toBe('queue-down');
    expect(ring.failures).toHaveLength(1);
    expect(ring.failures[0]).toBeInstanceOf(ProtocolError);
    expect(ring.failures[0].message).toMatch(message);
    if (queue === 0) {
      driver.transmit(patterned(64));
      expect(sent).toHaveLength(1);
    } else {
      driver.post(200);
      expect(device.send(patterned(64), 0)).toBe('delivered');
    }
  });

  test('anything that random rings hold: a ProtocolError at most, and the guards stay', () => {
    fc.assert(fc.property(
      fc.array(fc.record({
        addr: fc.integer({ min: 0xf000, max: 0x112000 }), len: fc.oneof(fc.integer({ min: 0, max: 2000 }), fc.integer({ min: 0, max: 0xffffffff })),
        flags: fc.integer({ min: 0, max: 7 }), next: fc.integer({ min: 0, max: 20 }),
      }), { minLength: 16, maxLength: 16 }),
      fc.array(fc.integer({ min: 0, max: 17 }), { maxLength: 16 }),
      fc.integer({ min: 0, max: 1 }),
      (descriptors, heads, which) => {
        const { device, driver: make } = setUp();
        const driver = make();
        const ring = which === 0 ? driver.receiveRing : driver.transmitRing;
        descriptors.forEach((descriptor, i) => ring.descriptor(i, descriptor));
        heads.forEach((head, i) => ring.availHead(i, head));
        ring.availIndex(heads.length);
        ring.onKick?.();
        for (const length of [0, 60, 3000]) device.send(patterned(length), 0);
        expect(ring.failures.length).toBeLessThanOrEqual(1);
        expect(ring.memory.guardsIntact()).toBe(true);
      },
    ), { numRuns: 500 });
  });
});

describe('several queue pairs', () => {
  test('a reply goes to the pair that its flow was last sent on, until the driver sends on another', () => {
    const { device, sent, driver: make } = setUp({ queuePairs: 4 });
    const drivers = [0, 1, 2, 3].map((pair) => make(pair));
    const request = partialUdp({ sourcePort: 5000, destinationPort: 7 });
    const reply = partialUdp({ from: [10, 0, 0, 2], to: [10, 0, 0, 1], sourcePort: 7, destinationPort: 5000 });
    expect(device.pairOf(reply)).toBe(0);
    drivers[2].transmit(request);
    expect(sent).toMatchObject([{ pair: 2 }]);
    expect(device.pairOf(reply)).toBe(2);
    drivers[3].transmit(request);
    expect(device.pairOf(reply)).toBe(3);
    expect(device.pairOf(reply, 1)).toBe(1);
  });

  test('a flow whose pair is disabled goes to the first', () => {
    const { device, driver: make } = setUp({ queuePairs: 2 });
    const drivers = [make(0), make(1)];
    const frame = partialUdp({});
    drivers[1].transmit(frame);
    expect(device.pairOf(frame)).toBe(1);
    device.disabled(2);
    expect([device.pairOf(frame), device.livePairs]).toEqual([0, 1]);
  });

  test('flows that differ in a port are told apart, and one flow is one in both directions; the oldest are forgotten', () => {
    const { device, driver: make } = setUp({ queuePairs: 2 });
    const drivers = [make(0), make(1)];
    const reply = (port: number): Uint8Array => partialUdp({ sourcePort: 80, destinationPort: port, from: [10, 0, 0, 2], to: [10, 0, 0, 1] });
    for (let port = 1024; port < 1124; port += 1) {
      drivers[1].transmit(partialUdp({ sourcePort: port, destinationPort: 80 }));
      drivers[0].transmit(partialUdp({ sourcePort: port, destinationPort: 81 }));
    }
    for (let port = 1024; port < 1124; port += 1) expect(device.pairOf(reply(port))).toBe(1);
    for (let port = 2000; port < 2000 + 4096; port += 1) drivers[1].transmit(partialUdp({ sourcePort: port, destinationPort: 80 }));
    expect([device.pairOf(reply(1024)), device.pairOf(reply(2000))]).toEqual([0, 1]);
    for (const runt of [0, 13, 14, 20, 33, 36]) expect(device.pairOf(partialUdp({}).subarray(0, runt))).toBeLessThan(2);
  });
});

describe('features and config space', () => {
  test('what is not asked for is not offered', () => {
    const bits = (options: Partial<VirtioNetDeviceOptions>): number[] =>
      [...Array(40).keys()].filter((bit) => (setUp(options).device.features >> BigInt(bit) & 1n) === 1n);
    expect(bits({ mergeable: false, checksum: false })).toEqual([5, 16]);
    expect(bits({})).toEqual([0, 5, 15, 16]);
    expect(bits({ queuePairs: 2, mtu: 1400, controlQueue: true })).toEqual([0, 3, 5, 15, 16, 17, 18, 19, 20, 22, 23]);
  });

  test('config space says the address, the link, the pairs and the MTU', () => {
    const { device } = setUp({ queuePairs: 3, mtu: 1400, controlQueue: true });
    expect(netConfig.decode(device.config())).toEqual({ mac: GUEST_MAC, status: 1, max_virtqueue_pairs: 3, mtu: 1400 });
    expect(device.queueCount).toBe(7);
  });

  test('what was not negotiated is not done', () => {
    const { device, driver: make } = setUp({}, MODERN | featureMask(VIRTIO_NET_F_CSUM));
    expect(device.features & featureMask(VIRTIO_NET_F_MRG_RXBUF)).not.toBe(0n);
    const driver = make();
    driver.post(64, 64);
    expect(device.send(patterned(100), 0)).toBe('too-long');
  });
});
