// The virtio block device (virtio 1.2, 5.2) over any Storage: read, write, flush, get-id, discard, write-zeroes
// and another capacity. Secure-erase is not offered and answered UNSUPP. Knows no transport and no test.
import { ProtocolError } from '../../errors.ts';
import { featureMask, hasFeature, RING_FEATURES, VIRTIO_BLK_F } from '../../virtio/features.ts';
import { VIRTIO_ID } from '../../virtio/ids.ts';
import type { VirtioDevice } from '../../virtio/device.ts';
import type { DescriptorChain, Virtqueue } from '../../virtio/virtqueue.ts';
import { blkConfig, ID_BYTES, SECTOR_BYTES, SEGMENT_SECTORS_MAX, SEGMENTS_MAX, VIRTIO_BLK_S, VIRTIO_BLK_T } from './layout.ts';
import { BLK_FAULTS, BLK_RING_FAULTS, HEADER_BYTES, RequestReader } from './request.ts';
import type { BlkFault, BlkLimits, BlkRange, BlkRingFault } from './request.ts';
import type { Storage, Work } from './storage.ts';

export interface VirtioBlkDeviceOptions {
  readonly storage: Storage;
  readonly queueCount: number;
  /** Largest queue size taken; config.seg_max leaves room in it for the header and the status. */
  readonly queueSizeMax: number;
  readonly readOnly: boolean;
  /** Offer VIRTIO_BLK_F_DISCARD. */
  readonly discard?: boolean;
  /** Offer VIRTIO_BLK_F_WRITE_ZEROES. */
  readonly writeZeroes?: boolean;
  /** At most 20 bytes. */
  readonly serial: string;
  readonly log: (line: string) => void;
  readonly ringFeatures?: bigint;
  readonly usedBatches?: boolean;
  /** Called with what is added to one of the lists. */
  readonly onKept?: (kept: Kept) => void;
}

/** A request that the driver should not have made. */
export interface RefusedRequest {
  readonly queue: number;
  readonly fault: BlkFault | BlkRingFault;
  /** Its type, sector and length, in words. */
  readonly request: string;
}

/** The lists of a disk, the first thousand of each: what its driver did wrong, discarded, had zeroed. */
export interface KeptLists {
  readonly refused: RefusedRequest[];
  readonly discarded: BlkRange[];
  readonly zeroed: BlkRange[];
}

/** Entries for one of them. */
export interface Kept {
  readonly list: keyof KeptLists;
  readonly entries: readonly (RefusedRequest | BlkRange)[];
}

const { VIRTIO_BLK_S_OK, VIRTIO_BLK_S_IOERR } = VIRTIO_BLK_S;
const { VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_WRITE_ZEROES } = VIRTIO_BLK_T;
/** A guest can make any number of bad requests, and of discards; this many are kept, and the bad ones logged. */
const KEPT_MAX = 1000;

export class VirtioBlkDevice implements VirtioDevice {
  readonly deviceId = VIRTIO_ID.BLOCK;
  readonly features: bigint;
  readonly ringFeatures: bigint;
  readonly usedBatches: boolean;
  readonly queueCount: number;
  readonly queueSizeMax: number;
  /** What the driver did wrong, the first thousand. */
  readonly refused: RefusedRequest[] = [];
  /** What the driver discarded, and what it had zeroed: the first thousand ranges of each. */
  readonly discarded: BlkRange[] = [];
  readonly zeroed: BlkRange[] = [];
  readonly #storage: Storage;
  #limits: BlkLimits;
  #config: Uint8Array;
  readonly #id = new Uint8Array(ID_BYTES);
  readonly #log: (line: string) => void;
  readonly #reader = new RequestReader();
  readonly #status = new Uint8Array(1);
  /** Asynchronous requests per queue, and who waits for them to end. */
  readonly #inFlight: number[];
  readonly #idle: (() => void)[][];
  readonly #onKept: VirtioBlkDeviceOptions['onKept'];
  #flushEachWrite = false;

  constructor(options: VirtioBlkDeviceOptions) {
    const { storage, queueCount, queueSizeMax, readOnly, discard = false, writeZeroes = false, serial, log } = options;
    this.ringFeatures = options.ringFeatures ?? RING_FEATURES;
    this.usedBatches = options.usedBatches ?? false;
    this.queueCount = queueCount;
    this.queueSizeMax = queueSizeMax;
    this.#storage = storage;
    this.#log = log;
    this.#onKept = options.onKept;
    this.#inFlight = new Array<number>(queueCount).fill(0);
    this.#idle = Array.from({ length: queueCount }, () => []);
    this.#limits = { capacitySectors: storage.capacityBytes / SECTOR_BYTES, readOnly, discard, writeZeroes };
    this.#id.set(Buffer.from(serial).subarray(0, ID_BYTES));
    this.features = featureMask(
      VIRTIO_BLK_F.VIRTIO_BLK_F_SEG_MAX,
      VIRTIO_BLK_F.VIRTIO_BLK_F_BLK_SIZE,
      VIRTIO_BLK_F.VIRTIO_BLK_F_FLUSH,
      VIRTIO_BLK_F.VIRTIO_BLK_F_TOPOLOGY,
      VIRTIO_BLK_F.VIRTIO_BLK_F_MQ,
      ...(readOnly ? [VIRTIO_BLK_F.VIRTIO_BLK_F_RO] : []),
      ...(discard ? [VIRTIO_BLK_F.VIRTIO_BLK_F_DISCARD] : []),
      ...(writeZeroes ? [VIRTIO_BLK_F.VIRTIO_BLK_F_WRITE_ZEROES] : []),
    );
    const blocksInPhysical = storage.physicalBlockBytes / SECTOR_BYTES;
    this.#config = blkConfig.encode({
      capacity: BigInt(this.#limits.capacitySectors),
      // A chain has at most as many descriptors as the queue: two are the header and the status.
      seg_max: queueSizeMax - 2,
      blk_size: SECTOR_BYTES,
      physical_block_exp: Math.log2(blocksInPhysical),
      min_io_size: blocksInPhysical,
      num_queues: queueCount,
      ...(discard ? { max_discard_sectors: SEGMENT_SECTORS_MAX, max_discard_seg: SEGMENTS_MAX, discard_sector_alignment: blocksInPhysical } : {}),
      ...(writeZeroes ? { max_write_zeroes_sectors: SEGMENT_SECTORS_MAX, max_write_zeroes_seg: SEGMENTS_MAX, write_zeroes_may_unmap: 1 } : {}),
    });
  }

  /** Requests are held to the new capacity from now on; a config-change interrupt is the caller's. */
  async resize(capacityBytes: number): Promise<void> {
    const capacitySectors = capacityBytes / SECTOR_BYTES;
    const grows = capacitySectors > this.#limits.capacitySectors;
    if (grows) await this.#storage.resize(capacityBytes);
    this.#limits = { ...this.#limits, capacitySectors };
    this.#config = blkConfig.encode({ ...blkConfig.decode(this.#config), capacity: BigInt(capacitySectors) });
    if (!grows) await this.#storage.resize(capacityBytes);
  }

  config(): Uint8Array {
    return this.#config;
  }

  negotiated(features: bigint): void {
    // 5.2.6.2: a driver that cannot flush is told of a write only when it is stable.
    this.#flushEachWrite = !hasFeature(features, VIRTIO_BLK_F.VIRTIO_BLK_F_FLUSH);
  }

  process(index: number, queue: Virtqueue): void {
    for (let chain = queue.next(); chain !== undefined; chain = queue.next()) this.#serve(index, queue, chain);
  }

  drain(index: number): Promise<void> {
    if (this.#inFlight[index] === 0) return Promise.resolve();
    return new Promise((resolve) => this.#idle[index].push(resolve));
  }

  async close(): Promise<void> {
    await Promise.all(this.#inFlight.map((_, index) => this.drain(index)));
    await this.#storage.close();
  }

  #serve(index: number, queue: Virtqueue, chain: DescriptorChain): void {
    const reader = this.#reader;
    const ringFault = reader.read(chain);
    if (ringFault !== undefined) {
      this.#refuse(index, ringFault, `${chain.readableBytes} readable and ${chain.writableBytes} writable bytes`);
      queue.break(new ProtocolError(`virtio-blk queue ${index}: ${ringFault}`, { hint: `virtio 1.2, ${BLK_RING_FAULTS[ringFault]}.` }));
      return;
    }
    const fault = reader.check(chain, this.#limits);
    if (fault !== undefined) {
      this.#refuse(index, fault, reader.describe());
      this.#finish(queue, chain, BLK_FAULTS[fault].status);
      return;
    }
    const { type, positionBytes, dataBytes } = reader;
    let work: Work;
    try {
      work = this.#start(chain, type, positionBytes, dataBytes, reader.ranges);
    } catch (error) {
      return this.#failed(queue, chain, error);
    }
    if (work === undefined) return this.#finish(queue, chain, VIRTIO_BLK_S_OK);
    this.#inFlight[index] += 1;
    work.then(
      () => this.#finish(queue, chain, VIRTIO_BLK_S_OK),
      (error: unknown) => this.#failed(queue, chain, error),
    ).finally(() => {
      this.#inFlight[index] -= 1;
      if (this.#inFlight[index] === 0) for (const resolve of this.#idle[index].splice(0)) resolve();
    });
  }

  #start(chain: DescriptorChain, type: number, positionBytes: number, dataBytes: number, ranges: readonly BlkRange[]): Work {
    switch (type) {
      case VIRTIO_BLK_T_IN:
        return this.#storage.read(chain, positionBytes, dataBytes);
      case VIRTIO_BLK_T_OUT:
        return this.#stable(this.#storage.write(chain, HEADER_BYTES, positionBytes, dataBytes));
      case VIRTIO_BLK_T_DISCARD:
        this.#keep('discarded', ...ranges.slice(0, KEPT_MAX - this.discarded.length));
        return inTurn(ranges, (range) => this.#storage.discard(range.positionBytes, range.lengthBytes));
      case VIRTIO_BLK_T_WRITE_ZEROES:
        this.#keep('zeroed', ...ranges.slice(0, KEPT_MAX - this.zeroed.length));
        return this.#stable(inTurn(ranges, (range) => this.#storage.zero(range.positionBytes, range.lengthBytes)));
      case VIRTIO_BLK_T_FLUSH:
        return this.#storage.flush();
      default: // GET_ID: check() lets nothing else through
        chain.copyIn(0, this.#id, 0, Math.min(ID_BYTES, dataBytes));
        return undefined;
    }
  }

  #stable(work: Work): Work {
    if (!this.#flushEachWrite) return work;
    return work === undefined ? this.#storage.flush() : work.then(() => this.#storage.flush());
  }

  #failed(queue: Virtqueue, chain: DescriptorChain, error: unknown): void {
    this.#log(`virtio-blk: I/O of the host failed: ${(error as Error).message}`);
    this.#finish(queue, chain, VIRTIO_BLK_S_IOERR);
  }

  /** The status byte is the last writable one. A request that failed is said to have no data. */
  #finish(queue: Virtqueue, chain: DescriptorChain, status: number): void {
    this.#status[0] = status;
    chain.copyIn(chain.writableBytes - 1, this.#status);
    queue.complete(chain, status === VIRTIO_BLK_S_OK || chain.writableBytes === 1 ? chain.writableBytes : 0);
  }

  #keep<L extends keyof KeptLists>(list: L, ...entries: KeptLists[L]): void {
    (this[list] as KeptLists[L][number][]).push(...entries);
    if (entries.length > 0) this.#onKept?.({ list, entries });
  }

  #refuse(queue: number, fault: BlkFault | BlkRingFault, request: string): void {
    if (this.refused.length >= KEPT_MAX) return;
    this.#keep('refused', { queue, fault, request });
    this.#log(`virtio-blk: queue ${queue}: ${fault}: ${request}`);
  }
}

/** One after the other, synchronously as long as none takes its time. */
function inTurn(ranges: readonly BlkRange[], work: (range: BlkRange) => Work): Work {
  for (const [index, range] of ranges.entries()) {
    const begun = work(range);
    if (begun !== undefined) return begun.then(() => inTurn(ranges.slice(index + 1), work));
  }
  return undefined;
}
