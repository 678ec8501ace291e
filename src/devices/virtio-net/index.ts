// A virtio network card to plug: QEMU's virtio-net-pci over a vhost-user netdev, with this process as its
// back end. What it does is device.ts's, what its wire leads to peer.ts's. QEMU keeps the control queue, the MAC
// address and the link state to itself there: only packets come here. With `controlQueue` the card is all ours, on
// QEMU's device model for any virtio device.
import { UsageError } from '../../errors.ts';
import { vhostUserNetHasVectors } from '../../qemu/versions.ts';
import type { VirtioDevice } from '../../virtio/device.ts';
import { ringsAsAsked } from '../ring-options.ts';
import type { RingOptions } from '../ring-options.ts';
import { CARRIES_ANY } from '../virtio-device/index.ts';
import { vhostUserDevice } from '../vhost-user-device.ts';
import type { BackEndFaults, ReconnectOptions, VhostUserDevice } from '../vhost-user-device.ts';
import { VirtioNetDevice } from './device.ts';
import type { NetCounts, RefusedFrame, WantedFrames } from './device.ts';
import { macBytes, macText } from './ethernet.ts';
import { MTU_MAX, MTU_MIN } from './layout.ts';
import type { Delivery, NetPeer, NetPort, SendOptions } from './peer.ts';
import { ScriptedPeer } from './scripted-peer.ts';
import type { NextFrameOptions } from './scripted-peer.ts';

export interface VirtioNetOptions extends RingOptions, BackEndFaults, ReconnectOptions {
  /** Queue pairs, 1 (the default) to 32. Pair i has queues 2i (to the guest) and 2i + 1 (from it), each with a vector. */
  readonly queuePairs?: number;
  /** The guest's address, `52:54:00:12:34:56`; a locally administered one of its own unless told. */
  readonly mac?: string;
  /** Offer this MTU, 68 to 65535: the driver takes no larger one, and longer frames are dropped. */
  readonly mtu?: number;
  /** What is on the other end of the wire; a scripted peer without addresses unless told. */
  readonly peer?: NetPeer;
  /** Offer mergeable receive buffers (default). Without, a driver posts buffers for its longest packet. */
  readonly mergeable?: boolean;
  /** Offer to complete the checksums of what the guest sends (default). */
  readonly checksum?: boolean;
  /** Entries of each queue: 256 (the default), 512 or 1024. */
  readonly queueSize?: number;
  /**
   * The driver's control queue comes here too: receive modes, addresses, VLANs and queue pairs are ours to grant, and
   * frames that it does not want are dropped. Needs QEMU 11.1 or newer, and has INTx.
   */
  readonly controlQueue?: boolean;
}

/** queue(2i) receives on pair i, queue(2i + 1) transmits. */
export interface VirtioNet extends VhostUserDevice {
  readonly queuePairs: number;
  readonly mac: string;
  readonly peer: NetPeer;
  /**
   * MSI-X vectors that it has, or had when it was plugged last: one for each queue, one for configuration
   * changes, one for a control queue. 0 (INTx) where QEMU cannot give them: 7.2 under TCG.
   */
  readonly vectors: number;
  readonly counts: NetCounts;
  /** Queue pairs that frames go to the guest on now: 0 while its interface is down. */
  readonly livePairs: number;
  /** What the driver wants to receive, as it says on the control queue; without one it wants everything. */
  readonly wanted: WantedFrames;
  /** What the driver did against the spec, the first thousand times. */
  readonly refused: readonly RefusedFrame[];
  /** Send a frame to the guest, whatever the peer. */
  send(frame: Uint8Array, options?: SendOptions): Delivery;
  /**
   * The next frame that the guest sent and this method has not given yet. DeadlineError after `timeoutMs`
   * (10,000); UsageError when the card's peer is not a scripted one.
   */
  nextFrame(options?: NextFrameOptions): Promise<Buffer>;
}

const PAIRS_MAX = 32;
let cards = 0;

/** Throws UsageError for options that make no card. */
export function virtioNet(options: VirtioNetOptions = {}): VirtioNet {
  const { queuePairs = 1, mtu, mergeable = true, checksum = true, queueSize = 256, controlQueue = false } = options;
  whole('queuePairs', queuePairs, 1, PAIRS_MAX);
  if (mtu !== undefined) whole('mtu', mtu, MTU_MIN, MTU_MAX);
  if (![256, 512, 1024].includes(queueSize)) throw new UsageError(`virtioNet: queueSize ${queueSize} is not 256, 512 or 1024`);
  const mac = options.mac === undefined ? ownMac() : macBytes(options.mac);
  if ((mac[0] & 1) !== 0) throw new UsageError(`virtioNet: ${options.mac} is a multicast address`);
  const peer: NetPeer = options.peer ?? new ScriptedPeer();

  if (controlQueue && options.reconnect === true) {
    throw new UsageError('virtioNet: reconnect with a controlQueue', { hint: 'The device model that carries the control queue cannot find a lost back end again.' });
  }

  let vectors = controlQueue ? 0 : 2 * queuePairs + 2;
  const { core: { card, port }, device } = vhostUserDevice({
    kind: 'virtio-net',
    maker: 'virtioNet',
    ...(controlQueue ? CARRIES_ANY : {
      driver: 'virtio-net-pci',
      properties({ qemu, log }) {
        vectors = qemu === undefined || vhostUserNetHasVectors(qemu.version, qemu.accel) ? 2 * queuePairs + 2 : 0;
        if (vectors === 0) log('virtio-net: INTx: this QEMU crashes when a vhost-user card has vectors under TCG');
        return {
          mac: macText(mac), mq: queuePairs > 1, vectors, romfile: '',
          rx_queue_size: queueSize, tx_queue_size: queueSize, ...(mtu === undefined ? {} : { host_mtu: mtu }),
        };
      },
      netdev: { queues: queuePairs },
    }),
    guest: { modules: ['virtio_pci', 'virtio_net'], ready: 'virtio*/net/*' },
    faults: options,
    reconnect: options.reconnect ?? false,
    make(log, fail): VirtioDevice & { readonly card: VirtioNetDevice; readonly port: NetPort } {
      const card = new VirtioNetDevice({
        queuePairs, queueSizeMax: queueSize, mac, mtu, mergeable, checksum, controlQueue,
        onFrame: (frame, pair) => peer.receive(frame, port, pair),
        onReady: () => peer.ready?.(port),
        log,
      });
      const port: NetPort = {
        mac,
        send(frame, sendOptions = {}) {
          const pair = card.pairOf(frame, sendOptions.queuePair);
          const delivery = card.send(frame, pair, sendOptions);
          if (delivery !== 'no-buffers' || sendOptions.keeps !== true) peer.sent?.(frame, port, delivery, pair);
          return delivery;
        },
        pause: () => card.pause(),
        resume: () => card.resume(),
        fail,
      };
      return { ...deviceOf(card, controlQueue), ...ringsAsAsked(options), card, port };
    },
    open(): void {
      peer.attached?.(port);
    },
    closed(): void {
      peer.detached?.(port);
    },
  });

  return {
    ...device,
    queuePairs,
    mac: macText(mac),
    peer,
    counts: card.counts,
    refused: card.refused,
    get vectors() {
      return vectors;
    },
    get livePairs() {
      return card.livePairs;
    },
    get wanted() {
      return card.wanted;
    },
    send: (frame, sendOptions) => port.send(frame, sendOptions),
    async nextFrame(nextOptions) {
      for (let one: NetPeer | undefined = peer; one !== undefined; one = one.inner) {
        if (one instanceof ScriptedPeer) return one.nextFrame(nextOptions);
      }
      throw new UsageError(`virtioNet: the frames of this card go to its peer, ${peer.kind}`, { hint: 'Only a scripted peer keeps them for nextFrame().' });
    },
  };
}

/** QEMU's vhost-user netdev has config space itself, and warns of a back end that offers one. */
function deviceOf(core: VirtioNetDevice, withConfig: boolean): VirtioDevice {
  return {
    deviceId: core.deviceId,
    features: core.features,
    queueCount: core.queueCount,
    queueSizeMax: core.queueSizeMax,
    config: () => (withConfig ? core.config() : new Uint8Array(0)),
    negotiated: (features) => core.negotiated(features),
    process: (index, queue) => core.process(index, queue),
    disabled: (index) => core.disabled(index),
    drain: (index) => core.drain(index),
    reset: () => core.reset(),
  };
}

/** 02:52:50 ("RP", locally administered), then this process's and this card's number. */
function ownMac(): Uint8Array {
  cards = (cards + 1) & 0xff;
  return Uint8Array.of(0x02, 0x52, 0x50, (process.pid >> 8) & 0xff, process.pid & 0xff, cards);
}

function whole(name: string, value: number, least: number, most: number): void {
  if (!Number.isInteger(value) || value < least || value > most) {
    throw new UsageError(`virtioNet: ${name} ${value} is not a whole number from ${least} to ${most}`);
  }
}
