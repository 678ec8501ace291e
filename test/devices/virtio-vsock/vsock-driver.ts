// A driver of the socket device over two rings in memory: sends packets, and collects those that the device sends.
import { vsockHeader, VIRTIO_VSOCK_TYPE } from '../../../src/devices/virtio-vsock/layout.ts';
import type { Decoded } from '../../../src/bytes/layout.ts';
import { VirtioVsockDevice } from '../../../src/devices/virtio-vsock/device.ts';
import { MockDriver } from '../../virtio/mock-driver.ts';

export type Header = Decoded<typeof vsockHeader.fields>;
export interface Packet {
  readonly header: Header;
  readonly payload: Buffer;
}

export const GUEST_CID = 3;
export const BUFFER_BYTES = 1000;
const ROOM_BYTES = 100;

export class VsockDriver {
  readonly log: string[] = [];
  readonly device: VirtioVsockDevice;
  readonly rx: MockDriver;
  readonly tx: MockDriver;

  constructor({ bufferBytes = BUFFER_BYTES, rxBuffers = 4 } = {}) {
    this.device = new VirtioVsockDevice({ guestCid: GUEST_CID, bufferBytes, log: (line) => this.log.push(line) });
    this.rx = new MockDriver({ size: 8 });
    this.tx = new MockDriver({ size: 8 });
    const queues = [this.rx.queue(), this.tx.queue()];
    this.rx.onKick = () => this.device.process(0, queues[0]);
    this.tx.onKick = () => this.device.process(1, queues[1]);
    this.give(rxBuffers);
  }

  /** Receive buffers, with room for 100 bytes of payload each. */
  give(count: number): void {
    for (let i = 0; i < count; i += 1) this.rx.submit([], [44 + ROOM_BYTES]);
  }

  send(op: number, fields: Partial<Header> = {}, payload: Uint8Array = new Uint8Array(0)): void {
    this.tx.submit([vsockHeader.encode({
      src_cid: BigInt(GUEST_CID), dst_cid: 2n, src_port: 77, dst_port: 1234, len: payload.length,
      type: VIRTIO_VSOCK_TYPE.VIRTIO_VSOCK_TYPE_STREAM, op, buf_alloc: 250, fwd_cnt: 0, ...fields,
    }), ...(payload.length > 0 ? [payload] : [])]);
    this.tx.collect();
  }

  /** What the device has sent since; as many buffers are given again unless told not to. */
  received({ giveAgain = true } = {}): Packet[] {
    const packets = this.rx.collect().map(({ len, written }) => ({
      header: vsockHeader.decode(written), payload: Buffer.from(written.subarray(44, len)),
    }));
    if (giveAgain) this.give(packets.length);
    return packets;
  }
}
