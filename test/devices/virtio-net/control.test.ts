// The control queue, as a front end that forwards it would have it: each command's effect on what is
// delivered, and the answers to commands that are wrong.
import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { VirtioNetDevice } from '../../../src/devices/virtio-net/device.ts';
import { netConfig } from '../../../src/devices/virtio-net/layout.ts';
import { featureMask, VIRTIO_F } from '../../../src/virtio/features.ts';
import { MockDriver } from '../../virtio/mock-driver.ts';
import { GUEST_MAC, partialUdp, PEER_MAC } from './frames.ts';
import { NetDriver } from './net-driver.ts';

const [OK, ERR] = [0, 1];
const [RX, MAC, VLAN, MQ] = [0, 1, 2, 4];
const [PROMISC, ALLMULTI, ALLUNI, NOMULTI, NOUNI, NOBCAST] = [0, 1, 2, 3, 4, 5];
const BROADCAST = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
const GROUP = [0x01, 0, 0x5e, 0, 0, 1];
const OTHER = [0x52, 0x54, 0, 9, 9, 9];

function setUp(queuePairs = 2) {
  const device = new VirtioNetDevice({
    queuePairs, queueSizeMax: 256, mac: GUEST_MAC, mtu: undefined, mergeable: true, checksum: true, controlQueue: true,
    onFrame: () => undefined, log: () => undefined,
  });
  device.negotiated(device.features | featureMask(VIRTIO_F.VIRTIO_F_VERSION_1));
  const ring = new MockDriver({ size: 8 });
  const queue = ring.queue();
  ring.onKick = () => device.process(2 * queuePairs, queue);
  const drivers = Array.from({ length: queuePairs }, (_, pair) => new NetDriver(device, pair));
  return {
    device, ring, drivers,
    /** Its answer; data in a buffer of its own, as Linux sends it. */
    command(kind: number, command: number, data: readonly number[]): number {
      ring.submit([Buffer.from([kind, command]), ...(data.length > 0 ? [Buffer.from(data)] : [])], [1]);
      const [{ len, written }] = ring.collect();
      expect(len).toBe(1);
      return written[0];
    },
    /** What becomes of a frame to this address, tagged with this VLAN or not. */
    to(destination: readonly number[], vlan?: number): string {
      drivers[0].post(256);
      const tag = vlan === undefined ? [] : [0x81, 0, vlan >> 8, vlan & 0xff];
      const frame = Buffer.from([...destination, ...PEER_MAC, ...tag, 0x88, 0xb5, ...new Array<number>(46).fill(0)]);
      const delivery = device.send(frame, 0);
      drivers[0].received();
      return delivery;
    },
  };
}

const u16 = (value: number): number[] => [value & 0xff, value >> 8];
const u32 = (value: number): number[] => [...u16(value & 0xffff), ...u16(value >>> 16)];

describe('receive modes', () => {
  test('until the driver asks for less, everything is delivered', () => {
    const { to } = setUp();
    expect([OTHER, GROUP, BROADCAST].map((address) => to(address))).toEqual(['delivered', 'delivered', 'delivered']);
  });

  test('without promiscuous mode, only what is for the card and broadcasts', () => {
    const { to, command, device } = setUp();
    expect(command(RX, PROMISC, [0])).toBe(OK);
    expect([[...GUEST_MAC], OTHER, GROUP, BROADCAST].map((address) => to(address))).toEqual(['delivered', 'filtered', 'filtered', 'delivered']);
    expect(device.counts.received.dropped.filtered).toBe(2);
  });

  test.each([
    [ALLMULTI, ['delivered', 'filtered', 'delivered', 'delivered']],
    [ALLUNI, ['delivered', 'delivered', 'filtered', 'delivered']],
    [NOMULTI, ['delivered', 'filtered', 'filtered', 'delivered']],
    [NOUNI, ['filtered', 'filtered', 'filtered', 'delivered']],
    [NOBCAST, ['delivered', 'filtered', 'filtered', 'filtered']],
  ])('mode %i lets through what it says, until it is off again', (mode, expected) => {
    const { to, command } = setUp();
    command(RX, PROMISC, [0]);
    const before = [[...GUEST_MAC], OTHER, GROUP, BROADCAST].map((address) => to(address));
    expect(command(RX, mode, [1])).toBe(OK);
    expect([[...GUEST_MAC], OTHER, GROUP, BROADCAST].map((address) => to(address))).toEqual(expected);
    command(RX, mode, [0]);
    expect([[...GUEST_MAC], OTHER, GROUP, BROADCAST].map((address) => to(address))).toEqual(before);
  });
});

describe('addresses', () => {
  test('a table of unicast and multicast addresses is let through, and replaced by the next', () => {
    const { to, command } = setUp();
    command(RX, PROMISC, [0]);
    expect(command(MAC, 0, [...u32(1), ...OTHER, ...u32(2), ...GROUP, 1, 2, 3, 4, 5, 6])).toBe(OK);
    expect([to(OTHER), to(GROUP), to([1, 2, 3, 4, 5, 6]), to([3, 2, 3, 4, 5, 6])]).toEqual(['delivered', 'delivered', 'delivered', 'filtered']);
    expect(command(MAC, 0, [...u32(0), ...u32(0)])).toBe(OK);
    expect([to(OTHER), to(GROUP)]).toEqual(['filtered', 'filtered']);
  });

  test('more than the table holds lets all of the kind through', () => {
    const { to, command } = setUp();
    command(RX, PROMISC, [0]);
    expect(command(MAC, 0, [...u32(0), ...u32(1025), ...new Array<number>(1025 * 6).fill(1)])).toBe(OK);
    expect([to(GROUP), to(OTHER)]).toEqual(['delivered', 'filtered']);
  });

  test('the card\'s own is set, shown in config space, and the first one again after a reset', () => {
    const { to, command, device } = setUp();
    expect(command(MAC, 1, OTHER)).toBe(OK);
    command(RX, PROMISC, [0]);
    expect([to(OTHER), to([...GUEST_MAC])]).toEqual(['delivered', 'filtered']);
    expect([...netConfig.decode(device.config()).mac]).toEqual(OTHER);
    device.reset();
    expect([...device.mac]).toEqual([...GUEST_MAC]);
  });
});

test('VLANs: of tagged frames only those of VLANs that were added', () => {
  const { to, command } = setUp();
  command(RX, PROMISC, [0]);
  expect([to(BROADCAST), to(BROADCAST, 5)]).toEqual(['delivered', 'filtered']);
  expect(command(VLAN, 0, u16(5))).toBe(OK);
  expect([to(BROADCAST, 5), to(BROADCAST, 6), to(OTHER, 5)]).toEqual(['delivered', 'filtered', 'filtered']);
  expect(command(VLAN, 1, u16(5))).toBe(OK);
  expect(to(BROADCAST, 5)).toBe('filtered');
});

test('queue pairs: one until the driver asks for more, and as many as it asks for', () => {
  const { device, command, drivers } = setUp(4);
  const frame = partialUdp({});
  drivers[3].transmit(frame);
  expect([device.livePairs, device.pairOf(frame)]).toEqual([1, 0]);
  expect(command(MQ, 0, u16(4))).toBe(OK);
  expect([device.livePairs, device.pairOf(frame)]).toEqual([4, 3]);
  expect(command(MQ, 0, u16(2))).toBe(OK);
  expect([device.livePairs, device.pairOf(frame)]).toEqual([2, 0]);
  expect([command(MQ, 0, u16(0)), command(MQ, 0, u16(5)), command(MQ, 1, u16(2)), command(MQ, 0, [1])]).toEqual([ERR, ERR, ERR, ERR]);
  expect(device.livePairs).toBe(2);
  device.reset();
  drivers.forEach((driver, pair) => device.process(2 * pair, driver.receiveQueue));
  expect(device.livePairs).toBe(1);
});

describe('a command that is wrong', () => {
  test.each([
    ['an unknown class', 9, 0, [0]],
    ['an unknown receive mode', RX, 6, [1]],
    ['a receive mode without data', RX, PROMISC, []],
    ['an unknown MAC command', MAC, 2, OTHER],
    ['an address of 5 bytes', MAC, 1, OTHER.slice(1)],
    ['a table without its second half', MAC, 0, u32(0)],
    ['a table longer than its data', MAC, 0, [...u32(0xffffffff), ...OTHER, ...u32(0)]],
    ['a VLAN that there is not', VLAN, 0, u16(4096)],
    ['an unknown VLAN command', VLAN, 2, u16(1)],
    ['data of more than 64 KiB', MAC, 0, new Array<number>(65537).fill(0)],
  ])('(%s) is answered ERR and changes nothing', (_, kind, command, data) => {
    const rig = setUp();
    rig.command(RX, PROMISC, [0]);
    expect(rig.command(kind, command, data)).toBe(ERR);
    expect([rig.to([...GUEST_MAC]), rig.to(OTHER), rig.to(GROUP)]).toEqual(['delivered', 'filtered', 'filtered']);
    expect(rig.ring.failures).toEqual([]);
  });

  test.each([['a command of one byte', [Buffer.from([0])], [1]], ['no place for the answer', [Buffer.from([0, 0, 1])], []]] as const)(
    'in a way that cannot be answered (%s) breaks the queue', (_, readable, writable) => {
      const { ring } = setUp();
      ring.submit(readable, writable);
      expect(ring.failures.map(({ message }) => message)).toEqual([expect.stringContaining('control queue')]);
    });

  test('of any bytes is answered OK or ERR', () => {
    const { command, ring } = setUp();
    fc.assert(fc.property(fc.nat({ max: 6 }), fc.nat({ max: 7 }), fc.array(fc.nat({ max: 255 }), { maxLength: 40 }), (kind, number, data) => {
      expect([OK, ERR]).toContain(command(kind, number, data));
    }));
    expect(ring.failures).toEqual([]);
  });
});
