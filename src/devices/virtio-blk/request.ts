// What a block request is, and everything a driver can do wrong with one: the spec's MUSTs, each with
// a name, the status that it is answered with, and the sentence. Does no I/O.
import type { DescriptorChain } from '../../virtio/virtqueue.ts';
import {
  blkRequestHeader, blkSegment, ID_BYTES, SECTOR_BYTES, SEGMENT_SECTORS_MAX, SEGMENT_UNMAP, SEGMENTS_MAX, VIRTIO_BLK_S, VIRTIO_BLK_T,
} from './layout.ts';

export const HEADER_BYTES = blkRequestHeader.sizeBytes;
const { VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_UNSUPP } = VIRTIO_BLK_S;

/** Faults of a request that can be answered, with the status they are answered with. */
export const BLK_FAULTS = {
  'unsupported-type': { status: VIRTIO_BLK_S_UNSUPP, must: '5.2.6.2: a request type that the device does not know or did not offer' },
  'write-to-read-only': { status: VIRTIO_BLK_S_IOERR, must: '5.2.6.2: with VIRTIO_BLK_F_RO a device fails all writes' },
  'data-not-whole-sectors': { status: VIRTIO_BLK_S_IOERR, must: '5.2.6.1: the length of data MUST be a multiple of 512 bytes' },
  'sector-out-of-range': { status: VIRTIO_BLK_S_IOERR, must: '5.2.6.1: a driver MUST NOT submit a request past the capacity' },
  'data-in-wrong-direction': { status: VIRTIO_BLK_S_IOERR, must: '5.2.6: data is device-writable for IN, device-readable for OUT, DISCARD and WRITE_ZEROES, and none for FLUSH' },
  'data-not-whole-segments': { status: VIRTIO_BLK_S_IOERR, must: '5.2.6.1: the length of data MUST be a multiple of the size of struct virtio_blk_discard_write_zeroes' },
  'too-many-segments': { status: VIRTIO_BLK_S_IOERR, must: '5.2.6.1: a driver MUST NOT give more segments than max_discard_seg or max_write_zeroes_seg' },
  'segment-too-long': { status: VIRTIO_BLK_S_IOERR, must: '5.2.6.1: num_sectors MUST NOT be more than max_discard_sectors or max_write_zeroes_sectors' },
  'segment-flags': { status: VIRTIO_BLK_S_UNSUPP, must: '5.2.6.2: an unknown flag, or the unmap flag of a DISCARD' },
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
  readonly discard: boolean;
  readonly writeZeroes: boolean;
}

/** A part of the disk that the driver wants no more, or wants to be zeroes. */
export interface BlkRange {
  readonly positionBytes: number;
  readonly lengthBytes: number;
  /** Of WRITE_ZEROES: the device may deallocate it. A DISCARD asks for nothing else. */
  readonly unmap: boolean;
}

/** Reads a request's header without leaving garbage: one reader a device, its fields the last request's. */
export class RequestReader {
  type = 0;
  /** Bytes of data after the header or before the status, whichever the type has. */
  dataBytes = 0;
  /** Where on the disk, in bytes; of IN and OUT only. */
  positionBytes = 0;
  /** Of DISCARD and WRITE_ZEROES only. */
  ranges: readonly BlkRange[] = [];
  readonly #header = new Uint8Array(HEADER_BYTES);
  readonly #words = new Uint32Array(this.#header.buffer);

  /** What makes the request impossible to answer, or undefined: then type and dataBytes are set. */
  read(chain: DescriptorChain): BlkRingFault | undefined {
    if (chain.readableBytes < HEADER_BYTES) return 'header-too-short';
    if (chain.writableBytes < 1) return 'no-status-byte';
    chain.copyOut(0, this.#header);
    this.type = this.#words[0];
    const dataOut = chain.readableBytes - HEADER_BYTES;
    const out = this.type === VIRTIO_BLK_T.VIRTIO_BLK_T_OUT || isRanges(this.type);
    this.dataBytes = out ? dataOut : chain.writableBytes - 1;
    return undefined;
  }

  /** What is wrong with the request read last, or undefined: then positionBytes or ranges is set too. */
  check(chain: DescriptorChain, limits: BlkLimits): BlkFault | undefined {
    const { capacitySectors, readOnly } = limits;
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
      case VIRTIO_BLK_T.VIRTIO_BLK_T_DISCARD:
      case VIRTIO_BLK_T.VIRTIO_BLK_T_WRITE_ZEROES:
        if (!(type === VIRTIO_BLK_T.VIRTIO_BLK_T_DISCARD ? limits.discard : limits.writeZeroes)) return 'unsupported-type';
        if (readOnly) return 'write-to-read-only';
        if (otherWay !== 0) return 'data-in-wrong-direction';
        return this.#readRanges(chain, capacitySectors);
      default:
        return 'unsupported-type';
    }
  }

  #readRanges(chain: DescriptorChain, capacitySectors: number): BlkFault | undefined {
    const count = this.dataBytes / blkSegment.sizeBytes;
    if (!Number.isInteger(count) || count === 0) return 'data-not-whole-segments';
    if (count > SEGMENTS_MAX) return 'too-many-segments';
    const bytes = new Uint8Array(this.dataBytes);
    chain.copyOut(HEADER_BYTES, bytes);
    const ranges: BlkRange[] = [];
    for (let at = 0; at < bytes.length; at += blkSegment.sizeBytes) {
      const { sector, num_sectors: sectors, flags } = blkSegment.decode(bytes.subarray(at, at + blkSegment.sizeBytes));
      const allowed = this.type === VIRTIO_BLK_T.VIRTIO_BLK_T_DISCARD ? 0 : SEGMENT_UNMAP;
      if ((flags & ~allowed) !== 0) return 'segment-flags';
      if (sectors > SEGMENT_SECTORS_MAX) return 'segment-too-long';
      if (sector + BigInt(sectors) > BigInt(capacitySectors)) return 'sector-out-of-range';
      ranges.push({ positionBytes: Number(sector) * SECTOR_BYTES, lengthBytes: sectors * SECTOR_BYTES, unmap: flags === SEGMENT_UNMAP });
    }
    this.ranges = ranges;
    return undefined;
  }

  /** For messages: what the driver sent. */
  describe(): string {
    const name = Object.entries(VIRTIO_BLK_T).find(([, type]) => type === this.type)?.[0] ?? `type ${this.type}`;
    const sector = (BigInt(this.#words[3]) << 32n) | BigInt(this.#words[2]);
    return `${name}, sector ${sector}, ${this.dataBytes} bytes`;
  }
}

function isRanges(type: number): boolean {
  return type === VIRTIO_BLK_T.VIRTIO_BLK_T_DISCARD || type === VIRTIO_BLK_T.VIRTIO_BLK_T_WRITE_ZEROES;
}
