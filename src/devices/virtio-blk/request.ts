// What a block request is, and everything a driver can do wrong with one: the spec's MUSTs, each with
// a name, the status that it is answered with, and the sentence. Does no I/O.
import type { DescriptorChain } from '../../virtio/virtqueue.ts';
import { blkRequestHeader, ID_BYTES, SECTOR_BYTES, VIRTIO_BLK_S, VIRTIO_BLK_T } from './layout.ts';

export const HEADER_BYTES = blkRequestHeader.sizeBytes;
const { VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_UNSUPP } = VIRTIO_BLK_S;

/** Faults of a request that can be answered, with the status they are answered with. */
export const BLK_FAULTS = {
  'unsupported-type': { status: VIRTIO_BLK_S_UNSUPP, must: '5.2.6.2: a request type that the device does not know or did not offer' },
  'write-to-read-only': { status: VIRTIO_BLK_S_IOERR, must: '5.2.6.2: with VIRTIO_BLK_F_RO a device fails all writes' },
  'data-not-whole-sectors': { status: VIRTIO_BLK_S_IOERR, must: '5.2.6.1: the length of data MUST be a multiple of 512 bytes' },
  'sector-out-of-range': { status: VIRTIO_BLK_S_IOERR, must: '5.2.6.1: a driver MUST NOT submit a request past the capacity' },
  'data-in-wrong-direction': { status: VIRTIO_BLK_S_IOERR, must: '5.2.6: data is device-writable for IN, device-readable for OUT, and none for FLUSH' },
  'id-buffer-too-long': { status: VIRTIO_BLK_S_IOERR, must: '5.2.6: the id string is at most 20 bytes, and so is the buffer for it' },
} as const;
export type BlkFault = keyof typeof BLK_FAULTS;

/** Faults of a request that has no place for a status: they break the queue. */
export const BLK_RING_FAULTS = {
  'header-too-short': '5.2.6: a request starts with 16 device-readable bytes',
  'no-status-byte': '5.2.6: a request ends with a device-writable status byte',
} as const;
export type BlkRingFault = keyof typeof BLK_RING_FAULTS;

/** Bounds that requests are held to. */
export interface BlkLimits {
  readonly capacitySectors: number;
  readonly readOnly: boolean;
}

/** Reads a request's header without leaving garbage: one reader a device, its fields the last request's. */
export class RequestReader {
  type = 0;
  /** Bytes of data after the header or before the status, whichever the type has. */
  dataBytes = 0;
  /** Where on the disk, in bytes; of IN and OUT only. */
  positionBytes = 0;
  readonly #header = new Uint8Array(HEADER_BYTES);
  readonly #words = new Uint32Array(this.#header.buffer);

  /** What makes the request impossible to answer, or undefined: then type and dataBytes are set. */
  read(chain: DescriptorChain): BlkRingFault | undefined {
    if (chain.readableBytes < HEADER_BYTES) return 'header-too-short';
    if (chain.writableBytes < 1) return 'no-status-byte';
    chain.copyOut(0, this.#header);
    this.type = this.#words[0];
    const dataOut = chain.readableBytes - HEADER_BYTES;
    this.dataBytes = this.type === VIRTIO_BLK_T.VIRTIO_BLK_T_OUT ? dataOut : chain.writableBytes - 1;
    return undefined;
  }

  /** What is wrong with the request read last, or undefined: then positionBytes is set too. */
  check(chain: DescriptorChain, { capacitySectors, readOnly }: BlkLimits): BlkFault | undefined {
    const { type, dataBytes } = this;
    const otherWay = chain.readableBytes - HEADER_BYTES + chain.writableBytes - 1 - dataBytes;
    switch (type) {
      case VIRTIO_BLK_T.VIRTIO_BLK_T_IN:
      case VIRTIO_BLK_T.VIRTIO_BLK_T_OUT: {
        if (readOnly && type === VIRTIO_BLK_T.VIRTIO_BLK_T_OUT) return 'write-to-read-only';
        if (otherWay !== 0) return 'data-in-wrong-direction';
        if (dataBytes % SECTOR_BYTES !== 0) return 'data-not-whole-sectors';
        const sector = this.#words[3] * 2 ** 32 + this.#words[2];
        if (sector + dataBytes / SECTOR_BYTES > capacitySectors) return 'sector-out-of-range';
        this.positionBytes = sector * SECTOR_BYTES;
        return undefined;
      }
      case VIRTIO_BLK_T.VIRTIO_BLK_T_FLUSH:
        return otherWay + dataBytes === 0 ? undefined : 'data-in-wrong-direction';
      case VIRTIO_BLK_T.VIRTIO_BLK_T_GET_ID:
        if (otherWay !== 0) return 'data-in-wrong-direction';
        return dataBytes <= ID_BYTES ? undefined : 'id-buffer-too-long';
      default:
        return 'unsupported-type';
    }
  }

  /** For messages: what the driver sent. */
  describe(): string {
    const name = Object.entries(VIRTIO_BLK_T).find(([, type]) => type === this.type)?.[0] ?? `type ${this.type}`;
    const sector = (BigInt(this.#words[3]) << 32n) | BigInt(this.#words[2]);
    return `${name}, sector ${sector}, ${this.dataBytes} bytes`;
  }
}
