// What is on the other end of a network card's wire: it is handed each frame that the guest sent, and
// sends frames of its own. loopback.ts, scripted-peer.ts, capture.ts and link.ts are peers; a test may
// write its own.

import type { Decoded } from '../../bytes/layout.ts';
import type { netHeader } from './layout.ts';

/**
 * What became of a frame that was sent to the guest: `no-buffers` waited for it, it was longer than the
 * driver's buffers (`too-long`), the driver's filters do not pass it (`filtered`), or there is no running
 * receive queue (`queue-down`: not plugged, no driver, interface down).
 */
export type Delivery = 'delivered' | 'no-buffers' | 'too-long' | 'filtered' | 'queue-down';

/** Fields of struct virtio_net_hdr that are to be other than true. */
export type SentHeader = Partial<Decoded<(typeof netHeader)['fields']>>;

export interface SendOptions {
  /** On this pair, whatever the driver's flows say. UsageError when there is no such pair. */
  readonly queuePair?: number;
  /** Tell the driver these fields of the header, true or not: num_buffers, flags, gso_type... */
  readonly header?: SentHeader;
  /**
   * The sender keeps a frame that no buffer waits for, and sends it again when its peer is told `ready`: of
   * `no-buffers` nothing is counted, and no watcher told.
   */
  readonly keeps?: boolean;
}

/** A frame is an Ethernet frame without preamble and frame check sequence. */
export interface NetPort {
  /** The card's own address, 6 bytes. */
  readonly mac: Uint8Array;
  /**
   * Send a frame to the guest, now or not at all: a frame that no buffer waits for is dropped and
   * counted, as on a wire. On a card with several queue pairs the pair is the one that the driver last
   * sent the flow on, unless told. Any length up to 65553 bytes, runts too; UsageError above.
   */
  send(frame: Uint8Array, options?: SendOptions): Delivery;
  /** Take no more frames from the guest, until resume(): its driver's rings fill up, and it waits. Those of an unplugged card go on. */
  pause(): void;
  /** Take frames again. Those that wait come to receive() before this returns. */
  resume(): void;
  /** Something of the peer failed that the machine is to know of. */
  fail(error: Error): void;
}

export interface NetPeer {
  /** In messages: loopback. */
  readonly kind: string;
  /** The peer that this one stands before. */
  readonly inner?: NetPeer;
  /** The card is plugged. UsageError when the peer takes no further one. */
  attached?(port: NetPort): void;
  /** The guest sent a frame. The view is the card's own, and valid during the call only. */
  receive(frame: Uint8Array, port: NetPort, queuePair: number): void;
  /** A frame was sent to the guest, by whoever it was; for those that watch. */
  sent?(frame: Uint8Array, port: NetPort, delivery: Delivery, queuePair: number): void;
  /** A frame that was kept may be sent again: the guest gave receive buffers, or gives none any more (`queue-down`). */
  ready?(port: NetPort): void;
  /** The card was unplugged. Does not throw. */
  detached?(port: NetPort): void;
}
