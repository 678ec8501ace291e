// The driver's side of a network device over mock rings: posts receive buffers, sends packets, and puts
// received packets together again as num_buffers says.
import type { SplitVirtqueue } from '../../../src/virtio/split-virtqueue.ts';
import type { VirtioDevice } from '../../../src/virtio/device.ts';
import { HEADER_BYTES, LEGACY_HEADER_BYTES, netHeader } from '../../../src/devices/virtio-net/layout.ts';
import type { Decoded } from '../../../src/bytes/layout.ts';
import { MockDriver } from '../../virtio/mock-driver.ts';
import type { MockDriverOptions } from '../../virtio/mock-driver.ts';

export type NetHeader = Decoded<(typeof netHeader)['fields']>;

export interface Packet {
  readonly header: NetHeader;
  readonly frame: Buffer;
  /** Bytes used of each of its buffers. */
  readonly usedBytes: readonly number[];
}

export class NetDriver {
  readonly receiveRing: MockDriver;
  readonly transmitRing: MockDriver;
  receiveQueue: SplitVirtqueue;
  readonly transmitQueue: SplitVirtqueue;
  readonly #device: VirtioDevice;
  readonly #headerBytes: number;

  constructor(device: VirtioDevice, readonly pair = 0, { legacy = false, ...options }: MockDriverOptions & { legacy?: boolean } = {}) {
    this.#device = device;
    this.#headerBytes = legacy ? LEGACY_HEADER_BYTES : HEADER_BYTES;
    this.receiveRing = new MockDriver({ size: 16, ...options });
    this.transmitRing = new MockDriver({ size: 16, ...options });
    this.receiveQueue = this.receiveRing.queue();
    this.transmitQueue = this.transmitRing.queue();
    this.receiveRing.onKick = () => device.process(2 * pair, this.receiveQueue);
    this.transmitRing.onKick = () => device.process(2 * pair + 1, this.transmitQueue);
    this.receiveRing.onKick();
  }

  /** Post receive buffers of these sizes, header included. */
  post(...sizes: readonly number[]): void {
    for (const size of sizes) this.receiveRing.submit([], [size]);
  }

  /** Send a packet: header and frame in one buffer, or cut up. */
  transmit(frame: Uint8Array, header: Partial<NetHeader> = {}, cuts: readonly number[] = []): void {
    const packet = Buffer.concat([netHeader.encode(header).subarray(0, this.#headerBytes), frame]);
    const ends = [...cuts, packet.length];
    this.transmitRing.submit(ends.map((end, i) => packet.subarray(ends[i - 1] ?? 0, end)).filter(({ length }) => length > 0), []);
    this.transmitRing.collect();
  }

  /** Packets received since the last call. Throws when num_buffers and the used buffers disagree. */
  received(): Packet[] {
    const used = this.receiveRing.collect();
    const packets: Packet[] = [];
    while (used.length > 0) {
      const first = Buffer.from(used[0].written);
      const header = netHeader.decode(Buffer.concat([first.subarray(0, this.#headerBytes), Buffer.alloc(2)]));
      const count = this.#headerBytes === LEGACY_HEADER_BYTES ? 1 : header.num_buffers;
      if (count < 1 || count > used.length) throw new Error(`num_buffers ${count}, and ${used.length} are used`);
      const parts = used.splice(0, count);
      const bytes = Buffer.concat(parts.map(({ written, len }) => written.subarray(0, len)));
      packets.push({ header, frame: bytes.subarray(this.#headerBytes), usedBytes: parts.map(({ len }) => len) });
    }
    return packets;
  }

  /** Stop the receive queue as a session does, and start another where it stopped. */
  async restartReceive(): Promise<number> {
    await this.#device.drain?.(2 * this.pair);
    const { base } = this.receiveQueue;
    this.receiveQueue.stop();
    this.receiveQueue = this.receiveRing.queue({ base });
    this.#device.process(2 * this.pair, this.receiveQueue);
    return base;
  }
}
