// Frames that the driver sends (virtio 1.2, 5.1.6.2): out of the chain, header checked, a partial checksum
// completed. What cannot be a frame is named: it is dropped and counted, or breaks the queue.
import type { DescriptorChain } from '../../virtio/virtqueue.ts';
import { onesComplementSum } from './internet-checksum.ts';
import { ETHERNET_HEADER_BYTES, VIRTIO_NET_HDR_F_NEEDS_CSUM } from './layout.ts';

/** Faults of a frame that is dropped. */
export const NET_FAULTS = {
  'too-short': 'a frame has an Ethernet header of 14 bytes at least',
  'too-long': '5.1.4.2: the frame is longer than the MTU that was offered, or than any',
  'segmentation-not-negotiated': '5.1.6.2: gso_type is GSO_NONE unless a HOST_TSO, UFO or USO feature was negotiated',
  'checksum-not-negotiated': '5.1.6.2.1: NEEDS_CSUM only with VIRTIO_NET_F_CSUM',
  'checksum-out-of-range': '5.1.6.2.1: csum_start and csum_offset lie in the frame',
} as const;
export type NetFault = keyof typeof NET_FAULTS;

/** Faults that break the queue: it is no transmit request. */
export const NET_RING_FAULTS = {
  'header-too-short': '5.1.6.2: a packet starts with a device-readable virtio_net_hdr',
  'writable-buffer': '5.1.6.2.1: a packet to send has no device-writable buffer',
} as const;
export type NetRingFault = keyof typeof NET_RING_FAULTS;

export interface TransmitFormat {
  readonly headerBytes: number;
  /** CSUM was negotiated. */
  readonly checksum: boolean;
}

/** One reader a device; its frame is valid until the next read. */
export class FrameReader {
  /** The frame read last. */
  frame: Uint8Array = new Uint8Array(0);
  readonly #frameBytesMax: number;
  readonly #buffer: Uint8Array;

  constructor(frameBytesMax: number) {
    this.#frameBytesMax = frameBytesMax;
    this.#buffer = new Uint8Array(12 + frameBytesMax);
  }

  /** Undefined: `frame` is set. */
  read(chain: DescriptorChain, { headerBytes, checksum }: TransmitFormat): NetFault | NetRingFault | undefined {
    if (chain.writableBytes > 0) return 'writable-buffer';
    if (chain.readableBytes < headerBytes) return 'header-too-short';
    const frameBytes = chain.readableBytes - headerBytes;
    if (frameBytes < ETHERNET_HEADER_BYTES) return 'too-short';
    if (frameBytes > this.#frameBytesMax) return 'too-long';
    const buffer = this.#buffer;
    chain.copyOut(0, buffer, 0, chain.readableBytes);
    if (buffer[1] !== 0) return 'segmentation-not-negotiated';
    if ((buffer[0] & VIRTIO_NET_HDR_F_NEEDS_CSUM) !== 0) {
      if (!checksum) return 'checksum-not-negotiated';
      const start = headerBytes + (buffer[6] | (buffer[7] << 8));
      const field = start + (buffer[8] | (buffer[9] << 8));
      if (field + 2 > chain.readableBytes) return 'checksum-out-of-range';
      const sum = ~onesComplementSum(buffer, start, chain.readableBytes) & 0xffff;
      // Of UDP 0 means "none" (RFC 768); 0xffff is the same number, and right for TCP too.
      const value = sum === 0 ? 0xffff : sum;
      buffer[field] = value >> 8;
      buffer[field + 1] = value & 0xff;
    }
    this.frame = buffer.subarray(headerBytes, chain.readableBytes);
    return undefined;
  }
}
