// Guest memory as a vhost-user front end shares it (SET_MEM_TABLE, ADD_MEM_REG), mapped into this process:
// the GuestMemory that the rings see, and the translation of the front end's own addresses. A region of
// over 4 GiB is several mappings. Who unmaps must know that nothing uses the memory any more.
import { fstatSync } from 'node:fs';
import { ProtocolError } from '../errors.ts';
import { MAPPING_SIZE_MAX, mapFile, unmapFile } from '../native/index.ts';
import type { GuestAddress, GuestMemory, MemoryRegion } from '../virtio/guest-memory.ts';
import type { RegionDescription } from './codec.ts';
import { MEMORY_SLOTS_MAX } from './protocol.ts';

/** One region of the table: guest addresses, the front end's, and the file behind them. */
interface TableRegion {
  readonly guestAddress: number;
  readonly sizeBytes: number;
  readonly userAddress: number;
  /** What it maps, to know it again in the next table. */
  readonly identity: string;
  /**
   * How often it was added and not removed. QEMU 7.2 adds every region once for each queue pair of a network card, all of
   * which share one connection (vhost_user_add_remove_regions; not among vhost_user_one_time_request there), and
   * removes it as often; 10.0 does it once.
   */
  holders: number;
  readonly pieces: readonly Piece[];
}

interface Piece extends MemoryRegion {
  readonly mapping: ArrayBuffer;
}

/** A table prepared but not yet in force. */
export interface MemoryChange {
  /** Mapped before and not any more: their users must end before `commit`. */
  readonly removes: boolean;
  /** Put the new table in force and unmap what is not in it. */
  commit(): void;
  /** Unmap what was mapped for the new table; the old one stays in force. */
  abandon(): void;
}

export class MemoryMap implements GuestMemory {
  #table: readonly TableRegion[] = [];
  /** All pieces by guest address, ascending. */
  #pieces: readonly Piece[] = [];
  #last: Piece | undefined;

  get regionCount(): number {
    return this.#table.length;
  }

  region(address: number, lengthBytes: number): MemoryRegion | undefined {
    const last = this.#last;
    if (last !== undefined && holds(last, address, lengthBytes)) return last;
    const piece = this.#pieceAt(address);
    if (piece === undefined || !holds(piece, address, lengthBytes)) return undefined;
    this.#last = piece;
    return piece;
  }

  spans(address: number, lengthBytes: number): Uint8Array[] | undefined {
    const views: Uint8Array[] = [];
    let at = address;
    let left = lengthBytes;
    while (left > 0) {
      const piece = this.region(at, 1);
      if (piece === undefined) return undefined;
      const start = at - piece.guestAddress;
      const count = Math.min(left, piece.sizeBytes - start);
      views.push(piece.u8.subarray(start, start + count));
      at += count;
      left -= count;
    }
    return views.length === 0 ? undefined : views;
  }

  /** Whether any byte of the range is mapped. */
  overlaps(address: bigint, sizeBytes: bigint): boolean {
    return this.#table.some((region) => BigInt(region.guestAddress) < address + sizeBytes && address < BigInt(region.guestAddress + region.sizeBytes));
  }

  /** The guest-physical address of one of the front end's own addresses, or undefined when it shares none there. */
  fromUserAddress(userAddress: bigint): GuestAddress | undefined {
    const address = Number(userAddress);
    const region = this.#table.find((entry) => address >= entry.userAddress && address < entry.userAddress + entry.sizeBytes);
    return region === undefined ? undefined : ((address - region.userAddress + region.guestAddress) as GuestAddress);
  }

  /** The guest-physical address of the first byte of a view into this memory, or undefined. Searches: not for hot paths. */
  guestAddressOf(view: Uint8Array): number | undefined {
    const piece = this.#pieces.find(({ mapping }) => mapping === view.buffer);
    return piece === undefined ? undefined : piece.guestAddress + view.byteOffset - piece.u8.byteOffset;
  }

  /**
   * Map a new table; `fds` are only looked at. Regions that were mapped already are kept as they are.
   * Throws ProtocolError for a table that makes no sense or cannot be mapped; then nothing changed.
   */
  prepare(descriptions: readonly RegionDescription[], fds: readonly number[]): MemoryChange {
    const named = descriptions.map((description, index) => ({ description, fd: fds[index] as number, name: `region ${index} of SET_MEM_TABLE` }));
    return this.#prepare('SET_MEM_TABLE', [], named);
  }

  /** One region more (ADD_MEM_REG), or the same one again; `fd` is only looked at. Throws ProtocolError, and then nothing changed. */
  prepareAdd(description: RegionDescription, fd: number): MemoryChange {
    if (this.#table.length >= MEMORY_SLOTS_MAX) throw new ProtocolError(`vhost-user: ADD_MEM_REG beyond the ${MEMORY_SLOTS_MAX} regions of GET_MAX_MEM_SLOTS`);
    return this.#prepare('ADD_MEM_REG', this.#table, [{ description, fd, name: 'the region of ADD_MEM_REG' }]);
  }

  /** One region less (REM_MEM_REG): the one of this guest address, user address and size, added as often as removed. Throws ProtocolError when there is none. */
  prepareRemove(description: RegionDescription): MemoryChange {
    const { guestAddress, size, userAddress } = check(description, 'the region of REM_MEM_REG');
    const found = this.#table.find((region) => region.guestAddress === guestAddress && region.userAddress === userAddress && region.sizeBytes === size);
    if (found === undefined) throw new ProtocolError('vhost-user: REM_MEM_REG of a region that is not there', { received: description });
    if (found.holders > 1) return { removes: false, commit: () => { found.holders -= 1; }, abandon: () => undefined };
    return this.#change(this.#table.filter((region) => region !== found), []);
  }

  #prepare(request: string, kept: readonly TableRegion[], added: readonly NewRegion[]): MemoryChange {
    const regions = [...kept];
    const fresh: TableRegion[] = [];
    const again: TableRegion[] = [];
    try {
      for (const { description, fd, name } of added) {
        const { size: sizeBytes, ...checked } = check(description, name);
        const { dev, ino, blksize } = fstatSync(fd);
        const identity = [checked.guestAddress, sizeBytes, checked.userAddress, checked.mmapOffset, dev, ino].join(' ');
        const same = this.#table.find((region) => region.identity === identity);
        if (same !== undefined && kept.includes(same)) {
          again.push(same);
          continue;
        }
        const region = same ?? { ...checked, sizeBytes, identity, holders: 1, pieces: mapPieces({ ...checked, sizeBytes }, fd, blksize) };
        if (same === undefined) fresh.push(region);
        regions.push(region);
      }
      refuseOverlap(request, regions, 'guestAddress');
      refuseOverlap(request, regions, 'userAddress');
    } catch (error) {
      fresh.forEach(unmapRegion);
      if (error instanceof ProtocolError) throw error;
      throw new ProtocolError(`vhost-user: ${request} cannot be mapped: ${error instanceof Error ? error.message : String(error)}`, {
        cause: error, received: added.map(({ description }) => description),
      });
    }
    const change = this.#change(regions, fresh);
    return {
      ...change,
      commit: () => {
        change.commit();
        for (const region of regions) if (!kept.includes(region)) region.holders = 1;
        for (const region of again) region.holders += 1;
      },
    };
  }

  #change(regions: readonly TableRegion[], fresh: readonly TableRegion[]): MemoryChange {
    const removed = this.#table.filter((region) => !regions.includes(region));
    return {
      removes: removed.length > 0,
      commit: () => {
        this.#use(regions);
        removed.forEach(unmapRegion);
      },
      abandon: () => fresh.forEach(unmapRegion),
    };
  }

  /** Unmap everything: every view has length 0 afterwards. */
  clear(): void {
    const removed = this.#table;
    this.#use([]);
    removed.forEach(unmapRegion);
  }

  #use(regions: readonly TableRegion[]): void {
    this.#table = regions;
    this.#pieces = regions.flatMap(({ pieces }) => pieces).sort((a, b) => a.guestAddress - b.guestAddress);
    this.#last = undefined;
  }

  /** The piece with the highest start that is not above the address. */
  #pieceAt(address: number): Piece | undefined {
    const pieces = this.#pieces;
    let low = 0;
    let high = pieces.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((pieces[middle] as Piece).guestAddress <= address) low = middle + 1;
      else high = middle;
    }
    return pieces[low - 1];
  }
}

interface NewRegion {
  readonly description: RegionDescription;
  readonly fd: number;
  /** For messages. */
  readonly name: string;
}

function holds(piece: Piece, address: number, lengthBytes: number): boolean {
  const start = address - piece.guestAddress;
  return start >= 0 && lengthBytes > 0 && start + lengthBytes <= piece.sizeBytes;
}

interface CheckedRegion {
  readonly guestAddress: number;
  readonly size: number;
  readonly userAddress: number;
  readonly mmapOffset: number;
}

/** Addresses as numbers: above 2^53 no machine has memory. */
function check(description: RegionDescription, name: string): CheckedRegion {
  const { guestAddress, size, userAddress, mmapOffset } = description;
  const most = BigInt(Number.MAX_SAFE_INTEGER);
  const refuse = (why: string): never => {
    throw new ProtocolError(`vhost-user: ${name} ${why}`, { received: description });
  };
  if (size === 0n) refuse('is empty');
  if ([guestAddress, userAddress, mmapOffset].some((start) => start + size > most)) refuse('ends beyond 2^53');
  if (guestAddress % 8n !== 0n || mmapOffset % 8n !== 0n) refuse('does not start at a multiple of 8');
  return { guestAddress: Number(guestAddress), size: Number(size), userAddress: Number(userAddress), mmapOffset: Number(mmapOffset) };
}

function refuseOverlap(request: string, regions: readonly TableRegion[], key: 'guestAddress' | 'userAddress'): void {
  const sorted = [...regions].sort((a, b) => a[key] - b[key]);
  sorted.forEach((region, i) => {
    const next = sorted[i + 1];
    if (next !== undefined && region[key] + region.sizeBytes > next[key]) {
      throw new ProtocolError(`vhost-user: regions of ${request} overlap at ${key} 0x${next[key].toString(16)}`);
    }
  });
}

interface MappedRange {
  readonly guestAddress: number;
  readonly sizeBytes: number;
  readonly mmapOffset: number;
}

function mapPieces({ guestAddress, sizeBytes, mmapOffset }: MappedRange, fd: number, blockBytes: number): Piece[] {
  const pieces: Piece[] = [];
  // mmap wants page multiples, huge ones for hugetlbfs; st_blksize is the file's page size on both.
  const lead = mmapOffset % blockBytes;
  try {
    for (let done = 0; done < sizeBytes; ) {
      const skip = done === 0 ? lead : 0;
      const size = Math.min(sizeBytes - done, MAPPING_SIZE_MAX - skip);
      const mapping = mapFile(fd, mmapOffset + done - skip, size + skip);
      pieces.push({
        mapping,
        guestAddress: (guestAddress + done) as GuestAddress,
        sizeBytes: size,
        u8: new Uint8Array(mapping, skip, size),
        u16: new Uint16Array(mapping, skip, Math.floor(size / 2)),
        u32: new Uint32Array(mapping, skip, Math.floor(size / 4)),
      });
      done += size;
    }
  } catch (error) {
    for (const { mapping } of pieces) unmapFile(mapping);
    throw error;
  }
  return pieces;
}

function unmapRegion({ pieces }: TableRegion): void {
  for (const { mapping } of pieces) unmapFile(mapping);
}
