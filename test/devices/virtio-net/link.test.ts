// The cable between two cards: what waits, what is dropped, who has to wait; with ports that note what they are sent, and
// with two whole devices whose drivers are mocks.
import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { VirtioNetDevice } from '../../../src/devices/virtio-net/device.ts';
import { netLink } from '../../../src/devices/virtio-net/link.ts';
import type { NetLink } from '../../../src/devices/virtio-net/link.ts';
import type { NetPeer, NetPort } from '../../../src/devices/virtio-net/peer.ts';
import { UsageError } from '../../../src/errors.ts';
import { featureMask, VIRTIO_F } from '../../../src/virtio/features.ts';
import { GUEST_MAC, patterned } from './frames.ts';
import { NetDriver } from './net-driver.ts';
import { Port } from './noting-port.ts';

function plugged(link: NetLink): [Port, Port] {
  const ports = link.ends.map((end) => new Port(end)) as [Port, Port];
  for (const port of ports) port.peer.attached?.(port);
  return ports;
}

describe('a link', () => {
  test('carries frames both ways while both cards are plugged and it is up, and counts those lost', () => {
    const link = netLink();
    const [a, b] = link.ends.map((end) => new Port(end));
    a.peer.attached?.(a);
    a.peer.receive(patterned(60, 1), a, 0);
    expect(link.lost).toBe(1);
    b.peer.attached?.(b);
    a.peer.receive(patterned(60, 2), a, 0);
    b.peer.receive(patterned(60, 3), b, 0);
    link.up = false;
    b.peer.receive(patterned(60, 4), b, 0);
    link.up = true;
    b.peer.detached?.(b);
    a.peer.receive(patterned(60, 5), a, 0);
    expect([a.sent, b.sent].map((sent) => sent.map(({ frame }) => frame))).toEqual([[patterned(60, 3)], [patterned(60, 2)]]);
    expect(link.lost).toBe(3);
  });

  test('has one card an end', () => {
    const { ends: [end] } = netLink();
    const port = new Port(end);
    end.attached?.(port);
    expect(() => end.attached?.(new Port(end))).toThrow(UsageError);
    end.detached?.(port);
    end.attached?.(port);
  });

  test.each([[{ queueFrames: 0 }], [{ queueFrames: 1.5 }], [{ queueFrames: 65537 }], [{ queueFrames: -1, whenFull: 'drop' as const }]])(
    'with %j is a UsageError', (options) => {
      expect(() => netLink(options)).toThrow(UsageError);
    });

  test('keeps what finds no buffers, in order and as it was, and gives it when there are', () => {
    const link = netLink();
    const [a, b] = plugged(link);
    b.delivery = 'no-buffers';
    const view = patterned(60, 1);
    a.peer.receive(view, a, 0);
    view.fill(0);
    expect(link.counts[0]).toMatchObject({ carried: 0, waiting: 1 });
    b.delivery = 'delivered';
    a.peer.receive(patterned(60, 2), a, 0); // not before the first
    b.sent.length = 0;
    b.peer.ready?.(b);
    expect(b.sent.map(({ frame }) => frame)).toEqual([patterned(60, 1), patterned(60, 2)]);
    expect(link.counts[0]).toMatchObject({ carried: 2, waiting: 0, dropped: 0, lost: 0, pauses: 0 });
    expect(link.counts[1]).toMatchObject({ carried: 0, waiting: 0 });
  });

  test('that is full has the sending card wait until half is gone', () => {
    const link = netLink({ queueFrames: 4 });
    const [a, b] = plugged(link);
    b.delivery = 'no-buffers';
    for (let i = 0; i < 3; i += 1) a.peer.receive(patterned(60, i), a, 0);
    expect(a.paused).toBe(false);
    a.peer.receive(patterned(60, 3), a, 0);
    expect([a.paused, b.paused, link.counts[0].pauses]).toEqual([true, false, 1]);
    let left = 1;
    b.send = () => (left-- > 0 ? 'delivered' : 'no-buffers');
    b.peer.ready?.(b);
    expect([a.paused, link.counts[0].waiting]).toEqual([true, 3]);
    left = 1;
    b.peer.ready?.(b);
    expect([a.paused, link.counts[0].waiting]).toEqual([false, 2]);
  });

  test('that is full drops and counts when it is told to, and whoever sends although he has to wait', () => {
    for (const whenFull of ['drop', 'wait'] as const) {
      const link = netLink({ queueFrames: 2, whenFull });
      const [a, b] = plugged(link);
      b.delivery = 'no-buffers';
      for (let i = 0; i < 5; i += 1) a.peer.receive(patterned(60, i), a, 0);
      expect(link.counts[0]).toMatchObject({ waiting: 2, dropped: 3 });
      expect(a.paused).toBe(whenFull === 'wait');
    }
  });

  test.each<[string, (link: NetLink, b: Port) => void]>([
    ['the receiving card leaves', (_link, b) => b.peer.detached?.(b)],
    ['the cable is cut', (link) => { link.up = false; }],
    ['the receiving interface goes down', (_link, b) => {
      b.delivery = 'queue-down';
      b.peer.ready?.(b);
    }],
  ])('loses what waits when %s, and the sender goes on', (_name, end) => {
    const link = netLink({ queueFrames: 2 });
    const [a, b] = plugged(link);
    b.delivery = 'no-buffers';
    for (let i = 0; i < 2; i += 1) a.peer.receive(patterned(60, i), a, 0);
    expect(a.paused).toBe(true);
    end(link, b);
    expect(a.paused).toBe(false);
    expect(link.counts[0]).toMatchObject({ waiting: 0, lost: 2, carried: 0 });
    expect(link.lost).toBe(2);
  });

  test('lets a card that leaves while it waits go: plugged again it does not wait', () => {
    const link = netLink({ queueFrames: 1 });
    const [a, b] = plugged(link);
    b.delivery = 'no-buffers';
    a.peer.receive(patterned(60), a, 0);
    expect(a.paused).toBe(true);
    a.peer.detached?.(a);
    expect([a.paused, link.counts[0].waiting]).toEqual([false, 1]);
    b.delivery = 'delivered';
    b.peer.ready?.(b);
    expect(link.counts[0]).toMatchObject({ carried: 1, waiting: 0 });
  });
});

/** A device, its port and its driver: what virtioNet() is without vhost-user. */
class Card {
  readonly device: VirtioNetDevice;
  readonly driver: NetDriver;

  constructor(peer: NetPeer, ringSize: number) {
    this.device = new VirtioNetDevice({
      queuePairs: 1, queueSizeMax: 256, mac: GUEST_MAC, mtu: undefined, mergeable: true, checksum: true, controlQueue: false,
      onFrame: (frame, pair) => peer.receive(frame, port, pair),
      onReady: () => peer.ready?.(port),
      log: () => undefined,
    });
    const port: NetPort = {
      mac: GUEST_MAC,
      send: (frame, options) => this.device.send(frame, 0, options),
      pause: () => this.device.pause(),
      resume: () => this.device.resume(),
      fail: (error) => { throw error; },
    };
    this.device.negotiated(this.device.features | featureMask(VIRTIO_F.VIRTIO_F_VERSION_1));
    peer.attached?.(port);
    this.driver = new NetDriver(this.device, 0, { size: ringSize });
  }
}

describe('two devices on a link', () => {
  test('lose, double and reorder no frame, however their drivers take turns, and the queue keeps its bound', () => {
    fc.assert(fc.property(
      fc.integer({ min: 1, max: 5 }),
      fc.array(fc.record({ send: fc.integer({ min: 0, max: 6 }), post: fc.integer({ min: 0, max: 6 }) }), { maxLength: 60 }),
      (queueFrames, turns) => {
        const link = netLink({ queueFrames });
        const [a, b] = link.ends.map((end) => new Card(end, 8)) as [Card, Card];
        let [sent, posted] = [0, 0];
        const arrived: Buffer[] = [];
        const collect = (): void => {
          const packets = b.driver.received();
          posted -= packets.reduce((sum, { usedBytes }) => sum + usedBytes.length, 0);
          arrived.push(...packets.map(({ frame }) => frame));
        };
        const post = (count: number): void => {
          for (let i = 0; i < count && posted < 8; i += 1) {
            b.driver.post(112);
            posted += 1;
          }
          collect();
        };
        for (const { send, post: buffers } of turns) {
          a.driver.transmitRing.collect();
          for (let i = 0; i < send && sent - a.device.counts.transmitted.frames < 8; i += 1) {
            a.driver.transmit(patterned(60 + ((sent * 37) % 200), sent)); // one buffer, two or three
            sent += 1;
          }
          post(buffers);
          expect(link.counts[0].waiting).toBeLessThanOrEqual(queueFrames);
        }
        while (arrived.length < sent) {
          const before = arrived.length + posted;
          post(8);
          if (arrived.length + posted === before && posted === 8) break; // it stands still
        }
        expect(arrived).toEqual(Array.from({ length: sent }, (_, i) => patterned(60 + ((i * 37) % 200), i)));
        expect(link.counts[0]).toMatchObject({ carried: sent, dropped: 0, lost: 0, waiting: 0 });
        expect(b.device.counts.received.dropped['no-buffers']).toBe(0);
      },
    ));
  });

  test('with the receiver out of buffers the sender\'s frames stay in its ring, and go on when it has some', () => {
    const link = netLink({ queueFrames: 2 });
    const [a, b] = link.ends.map((end) => new Card(end, 8)) as [Card, Card];
    b.driver.post(200);
    for (let i = 0; i < 8; i += 1) a.driver.transmit(patterned(60, i));
    expect(a.device.counts.transmitted.frames).toBe(3); // one there, two in the queue
    expect(link.counts[0]).toMatchObject({ carried: 1, waiting: 2, pauses: 1 });
    for (let i = 0; i < 7; i += 1) b.driver.post(200);
    expect(b.driver.received().map(({ frame }) => frame)).toEqual(Array.from({ length: 8 }, (_, i) => patterned(60, i)));
    expect(a.device.counts.transmitted.frames).toBe(8);
  });

  test('a frame longer than all that the receiver\'s ring can hold is lost, and does not stop those behind it', () => {
    const link = netLink();
    const [a, b] = link.ends.map((end) => new Card(end, 8)) as [Card, Card];
    for (let i = 0; i < 8; i += 1) b.driver.post(100);
    a.driver.transmit(patterned(1000));
    a.driver.transmit(patterned(70));
    expect(b.driver.received().map(({ frame }) => frame)).toEqual([patterned(70)]);
    expect(link.counts[0]).toMatchObject({ carried: 1, lost: 1 });
    expect(b.device.counts.received.dropped['too-long']).toBe(1);
  });
});
