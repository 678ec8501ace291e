// The virtio network device (virtio 1.2, 5.1): queue pairs, mergeable receive buffers, transmit checksums, and
// a control queue for front ends that forward it. What is on the other end of the wire is peer.ts's. No
// segmentation, RSS, announcements or received partial checksums. Knows no transport and no test.
import { ProtocolError, UsageError } from '../../errors.ts';
import type { VirtioDevice } from '../../virtio/device.ts';
import { featureMask, hasFeature, VIRTIO_F } from '../../virtio/features.ts';
import { VIRTIO_ID } from '../../virtio/ids.ts';
import type { Virtqueue } from '../../virtio/virtqueue.ts';
import { control } from './control.ts';
import { macText } from './ethernet.ts';
import { FrameReader, NET_FAULTS, NET_RING_FAULTS } from './frame-reader.ts';
import type { NetFault, NetRingFault } from './frame-reader.ts';
import {
  ETHERNET_HEADER_BYTES, HEADER_BYTES, LEGACY_HEADER_BYTES, MTU_MAX, netConfig, VIRTIO_NET_F, VIRTIO_NET_S_LINK_UP, VLAN_TAG_BYTES,
} from './layout.ts';
import type { Delivery, SendOptions } from './peer.ts';
import { ReceiveFilter } from './receive-filter.ts';
import type { ReceiveMode } from './receive-filter.ts';
import { ReceiveQueue } from './receive-queue.ts';
import { FlowSteering } from './steering.ts';

export interface VirtioNetDeviceOptions {
  readonly queuePairs: number;
  readonly queueSizeMax: number;
  /** 6 bytes. */
  readonly mac: Uint8Array;
  /** Offered as config.mtu, and longer frames are dropped; undefined: any MTU. */
  readonly mtu: number | undefined;
  readonly mergeable: boolean;
  readonly checksum: boolean;
  /** Offer a control queue, after the pairs. */
  readonly controlQueue: boolean;
  /** The guest sent a frame: a view that is valid during the call. */
  readonly onFrame: (frame: Uint8Array, queuePair: number) => void;
  /** The guest gave receive buffers, or a receive queue stopped. */
  readonly onReady?: () => void;
  readonly log: (line: string) => void;
}

/** A frame or a request that the driver should not have made. */
export interface RefusedFrame {
  readonly queue: number;
  readonly fault: NetFault | NetRingFault;
}

/** What the driver asked for on the control queue (virtio 1.2, 5.1.6.5). */
export interface WantedFrames {
  /** The card's address, or the one that the driver set in its place. */
  readonly mac: string;
  readonly modes: Readonly<Record<ReceiveMode, boolean>>;
  /** Further addresses, sorted; 'all' when there are more than the table holds. */
  readonly unicast: readonly string[] | 'all';
  readonly multicast: readonly string[] | 'all';
  /** VLAN ids whose frames pass; undefined: of every VLAN. */
  readonly vlans: readonly number[] | undefined;
  /** Queue pairs in use. */
  readonly queuePairs: number;
}

type Drop = Exclude<Delivery, 'delivered'>;

/** Since the device was made. */
export interface NetCounts {
  /** From the guest. */
  readonly transmitted: { readonly frames: number; readonly bytes: number; readonly dropped: Readonly<Record<NetFault, number>> };
  /** To the guest. */
  readonly received: { readonly frames: number; readonly bytes: number; readonly dropped: Readonly<Record<Drop, number>> };
}

const FRAME_BYTES_MAX = ETHERNET_HEADER_BYTES + VLAN_TAG_BYTES + MTU_MAX;
/** A guest can do any number of things wrong; this many are kept and logged. */
const REFUSED_MAX = 1000;

export class VirtioNetDevice implements VirtioDevice {
  readonly deviceId = VIRTIO_ID.NET;
  readonly features: bigint;
  readonly queueCount: number;
  readonly queueSizeMax: number;
  /** What the driver did wrong, the first thousand. */
  readonly refused: RefusedFrame[] = [];
  readonly counts = {
    transmitted: { frames: 0, bytes: 0, dropped: zeroes<NetFault>(Object.keys(NET_FAULTS)) },
    received: { frames: 0, bytes: 0, dropped: zeroes<Drop>(['no-buffers', 'too-long', 'filtered', 'queue-down']) },
  } satisfies NetCounts;
  readonly #options: VirtioNetDeviceOptions;
  readonly #reader: FrameReader;
  readonly #receivers: readonly ReceiveQueue[];
  readonly #steering = new FlowSteering();
  #mac: Uint8Array;
  #filter = new ReceiveFilter();
  #activePairs = 1;
  #paused = false;
  /** Transmit queues that were looked at while paused, by index. */
  readonly #kept = new Map<number, Virtqueue>();
  #format = { headerBytes: HEADER_BYTES, mergeable: false, checksum: false };

  constructor(options: VirtioNetDeviceOptions) {
    const { queuePairs, mtu, mergeable, checksum, controlQueue } = options;
    this.#options = options;
    this.#mac = options.mac;
    this.queueCount = 2 * queuePairs + (controlQueue ? 1 : 0);
    this.queueSizeMax = options.queueSizeMax;
    this.#reader = new FrameReader(mtu === undefined ? FRAME_BYTES_MAX : ETHERNET_HEADER_BYTES + VLAN_TAG_BYTES + mtu);
    this.#receivers = Array.from({ length: queuePairs }, (_, pair) => new ReceiveQueue(2 * pair));
    const bits = VIRTIO_NET_F;
    this.features = featureMask(
      bits.VIRTIO_NET_F_MAC,
      bits.VIRTIO_NET_F_STATUS,
      ...(mtu === undefined ? [] : [bits.VIRTIO_NET_F_MTU]),
      ...(mergeable ? [bits.VIRTIO_NET_F_MRG_RXBUF] : []),
      ...(checksum ? [bits.VIRTIO_NET_F_CSUM] : []),
      ...(queuePairs > 1 ? [bits.VIRTIO_NET_F_MQ] : []),
      ...(controlQueue ? [
        bits.VIRTIO_NET_F_CTRL_VQ, bits.VIRTIO_NET_F_CTRL_RX, bits.VIRTIO_NET_F_CTRL_RX_EXTRA,
        bits.VIRTIO_NET_F_CTRL_VLAN, bits.VIRTIO_NET_F_CTRL_MAC_ADDR,
      ] : []),
    );
    this.#begin();
  }

  /** The address in force: the driver may have set another. */
  get mac(): Uint8Array {
    return this.#mac;
  }

  get wanted(): WantedFrames {
    const { modes, unicast, multicast, vlans } = this.#filter;
    return { mac: macText(this.#mac), modes: { ...modes }, unicast, multicast, vlans, queuePairs: this.#activePairs };
  }

  /** Pairs that frames go to the guest on: running and, where the driver said how many, in use. */
  get livePairs(): number {
    return this.#receivers.filter(({ live }, pair) => live && pair < this.#activePairs).length;
  }

  config(): Uint8Array {
    return netConfig.encode({
      mac: this.#mac, status: VIRTIO_NET_S_LINK_UP, max_virtqueue_pairs: this.#options.queuePairs, mtu: this.#options.mtu ?? 0,
    });
  }

  negotiated(features: bigint): void {
    const mergeable = hasFeature(features, VIRTIO_NET_F.VIRTIO_NET_F_MRG_RXBUF);
    const modern = hasFeature(features, VIRTIO_F.VIRTIO_F_VERSION_1);
    this.#format = {
      mergeable,
      headerBytes: mergeable || modern ? HEADER_BYTES : LEGACY_HEADER_BYTES,
      checksum: hasFeature(features, VIRTIO_NET_F.VIRTIO_NET_F_CSUM),
    };
    this.#filter.vlanFilter = hasFeature(features, VIRTIO_NET_F.VIRTIO_NET_F_CTRL_VLAN);
  }

  process(index: number, queue: Virtqueue): void {
    if (index >= 2 * this.#options.queuePairs) this.#control(queue);
    else if (index % 2 === 1) this.#transmit(index, queue);
    else this.#receive(this.#receivers[index / 2], (receiver) => receiver.use(queue));
  }

  disabled(index: number): void {
    this.#kept.delete(index);
    this.#receive(this.#receiverOf(index), (receiver) => receiver.disable());
  }

  drain(index: number): Promise<void> {
    this.#kept.delete(index);
    this.#receive(this.#receiverOf(index), (receiver) => receiver.stop());
    return Promise.resolve();
  }

  /** Take no frames from the driver until resume(). It outlives resets. */
  pause(): void {
    this.#paused = true;
  }

  resume(): void {
    this.#paused = false;
    const kept = [...this.#kept];
    this.#kept.clear();
    for (const [index, queue] of kept) this.#transmit(index, queue);
  }

  #receive(receiver: ReceiveQueue | undefined, change: (receiver: ReceiveQueue) => void): void {
    if (receiver === undefined) return;
    change(receiver);
    this.#options.onReady?.();
  }

  reset(): void {
    this.#begin();
    this.#options.onReady?.();
  }

  #begin(): void {
    for (const receiver of this.#receivers) receiver.reset();
    this.#kept.clear();
    this.#steering.clear();
    this.#filter = new ReceiveFilter();
    this.#mac = this.#options.mac;
    // Who forwards the control queue has one pair until the driver asks for more; who does not enables rings.
    this.#activePairs = this.#options.controlQueue ? 1 : this.#options.queuePairs;
  }

  /** The pair that a frame to the guest goes on. UsageError for a pair that there is not. */
  pairOf(frame: Uint8Array, wanted?: number): number {
    if (wanted !== undefined) {
      if (this.#receivers[wanted] === undefined) throw new UsageError(`virtioNet: there is no queue pair ${wanted}`, { hint: `The card has ${this.#receivers.length}.` });
      return wanted;
    }
    if (this.#receivers.length === 1) return 0;
    const pair = this.#steering.pairOf(frame);
    return pair < this.#activePairs && this.#receivers[pair].live ? pair : 0;
  }

  /** Hand a frame to the driver on this pair, now, or drop and count it; a sender that keeps it counts itself. */
  send(frame: Uint8Array, pair: number, { header, keeps = false }: Omit<SendOptions, 'queuePair'> = {}): Delivery {
    if (frame.length > FRAME_BYTES_MAX) throw new UsageError(`virtioNet: a frame of ${frame.length} bytes`, { hint: `The longest has ${FRAME_BYTES_MAX}.` });
    const delivery = this.#filter.passes(frame, this.#mac) ? this.#receivers[pair].deliver(frame, this.#format, header) : 'filtered';
    const { received } = this.counts;
    if (delivery === 'delivered') {
      received.frames += 1;
      received.bytes += frame.length;
    } else if (delivery !== 'no-buffers' || !keeps) {
      received.dropped[delivery] += 1;
    }
    return delivery;
  }

  #transmit(index: number, queue: Virtqueue): void {
    const { transmitted } = this.counts;
    const pair = (index - 1) / 2;
    for (;;) {
      if (this.#paused) return void this.#kept.set(index, queue);
      const chain = queue.next();
      if (chain === undefined) return;
      const fault = this.#reader.read(chain, this.#format);
      if (fault !== undefined && fault in NET_RING_FAULTS) return this.#break(index, queue, fault as NetRingFault);
      queue.complete(chain, 0); // the frame was copied: the driver may have its buffers back
      if (fault !== undefined) {
        transmitted.dropped[fault as NetFault] += 1;
        this.#refuse(index, fault);
        continue;
      }
      const { frame } = this.#reader;
      transmitted.frames += 1;
      transmitted.bytes += frame.length;
      if (this.#receivers.length > 1) this.#steering.learn(frame, pair);
      this.#options.onFrame(frame, pair);
    }
  }

  #control(queue: Virtqueue): void {
    for (let chain = queue.next(); chain !== undefined; chain = queue.next()) {
      const answered = control(chain, {
        filter: this.#filter,
        queuePairs: this.#options.queuePairs,
        setMac: (mac) => { this.#mac = mac; },
        setActivePairs: (count) => { this.#activePairs = count; },
      });
      if (!answered) {
        return queue.break(new ProtocolError(`virtio-net control queue: a command of ${chain.readableBytes} readable and ${chain.writableBytes} writable bytes`, {
          hint: 'virtio 1.2, 5.1.6.5: a command has a class and a command to read, and a byte for its answer to write.',
        }));
      }
      queue.complete(chain, 1);
    }
  }

  #receiverOf(index: number): ReceiveQueue | undefined {
    return index % 2 === 0 ? this.#receivers[index / 2] : undefined;
  }

  #break(index: number, queue: Virtqueue, fault: NetRingFault): void {
    this.#refuse(index, fault);
    queue.break(new ProtocolError(`virtio-net queue ${index}: ${fault}`, { hint: `virtio 1.2, ${NET_RING_FAULTS[fault]}.` }));
  }

  #refuse(queue: number, fault: NetFault | NetRingFault): void {
    if (this.refused.length >= REFUSED_MAX) return;
    this.refused.push({ queue, fault });
    this.#options.log(`virtio-net: queue ${queue}: ${fault}`);
  }
}

function zeroes<K extends string>(keys: readonly string[]): Record<K, number> {
  return Object.fromEntries(keys.map((key) => [key, 0])) as Record<K, number>;
}
