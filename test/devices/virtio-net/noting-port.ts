// A stand-in for a card in tests of peers: it notes what it is sent.
import type { Delivery, NetPeer, NetPort, SendOptions } from '../../../src/devices/virtio-net/peer.ts';
import { GUEST_MAC } from './frames.ts';

export class Port implements NetPort {
  readonly sent: { frame: Buffer; options: SendOptions | undefined }[] = [];
  readonly failures: Error[] = [];
  delivery: Delivery = 'delivered';
  paused = false;

  constructor(readonly peer: NetPeer, readonly mac: Uint8Array = GUEST_MAC) {}

  send(frame: Uint8Array, options?: SendOptions): Delivery {
    this.sent.push({ frame: Buffer.from(frame), options });
    this.peer.sent?.(frame, this, this.delivery, options?.queuePair ?? 0);
    return this.delivery;
  }

  pause(): void {
    this.paused = true;
  }

  resume(): void {
    this.paused = false;
  }

  fail(error: Error): void {
    this.failures.push(error);
  }
}
