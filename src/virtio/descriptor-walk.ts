// Follows one descriptor chain of a split ring, direct and indirect, into a BufferChain (virtio 1.2,
// 2.7.5). Every word is read once, every check comes before the use. Violations come back as text:
// the queue makes a ProtocolError of it. Does not touch the avail and used rings.
import type { BufferChain } from './buffer-chain.ts';
import type { GuestMemory } from './guest-memory.ts';
import { VIRTQ_DESC_F_INDIRECT, VIRTQ_DESC_F_NEXT, VIRTQ_DESC_F_WRITE } from './split-ring.ts';

/** A descriptor table seen as 32-bit words: descriptor i starts at words[base + 4 * i]. */
export interface DescriptorTable {
  readonly words: Uint32Array;
  readonly base: number;
  readonly entries: number;
}

const DESCRIPTOR_BYTES = 16;
/** 2.7.5.2: "Drivers MUST NOT add a descriptor chain longer than 2^32 bytes in total". */
const CHAIN_BYTES_MAX = 2 ** 32;

/**
 * Fill `chain` from the descriptors that start at chain.head. Returns what the driver did wrong, or
 * undefined. `chainLimit` is the most descriptors a chain may have, indirect ones included.
 */
export function walkDescriptors(
  chain: BufferChain, table: DescriptorTable, memory: GuestMemory, indirectAllowed: boolean, chainLimit: number,
): string | undefined {
  chain.clear();
  let { words, base, entries } = table;
  let inIndirect = false;
  let index = chain.head;
  for (;;) {
    if (index >= entries) return `descriptor ${index} is outside the ${inIndirect ? 'indirect table' : 'table'} of ${entries}`;
    const at = base + 4 * index;
    const address = guestAddress(words[at], words[at + 1]);
    const length = words[at + 2];
    const flagsAndNext = words[at + 3];
    const where = inIndirect ? 'indirect descriptor' : 'descriptor';

    if ((flagsAndNext & VIRTQ_DESC_F_INDIRECT) !== 0) {
      if (!indirectAllowed) return `descriptor ${index} is INDIRECT, which was not negotiated`;
      if (inIndirect) return `indirect descriptor ${index} is INDIRECT again`;
      if ((flagsAndNext & VIRTQ_DESC_F_NEXT) !== 0) return `descriptor ${index} is both INDIRECT and NEXT`;
      if (length === 0 || length % DESCRIPTOR_BYTES !== 0) return `descriptor ${index} has an indirect table of ${length} bytes, not a multiple of 16`;
      if (length / DESCRIPTOR_BYTES > 0x10000) return `descriptor ${index} has an indirect table of ${length / DESCRIPTOR_BYTES} entries, more than an index reaches`;
      const inner = indirectTable(memory, address, length);
      if (inner === undefined) return `the indirect table of descriptor ${index}, ${range(address, length)}, is not in guest memory`;
      ({ words, base, entries } = inner);
      inIndirect = true;
      index = 0;
      continue;
    }

    chain.descriptorCount += 1;
    if (chain.descriptorCount > chainLimit) return `the chain of head ${chain.head} has a loop, or more than the ${chainLimit} descriptors allowed`;
    if (length === 0) return `${where} ${index} has length 0`;
    const writable = (flagsAndNext & VIRTQ_DESC_F_WRITE) !== 0;
    if (!writable && chain.writableBytes > 0) return `${where} ${index} is device-readable and follows a device-writable one`;
    if (chain.readableBytes + chain.writableBytes + length > CHAIN_BYTES_MAX) return `the chain of head ${chain.head} has more than 2^32 bytes`;
    if (!isExact(address, length) || !chain.append(memory, address, length, writable)) {
      return `the buffer of ${where} ${index}, ${range(address, length)}, is not in guest memory`;
    }
    if ((flagsAndNext & VIRTQ_DESC_F_NEXT) === 0) return undefined;
    index = flagsAndNext >>> 16;
  }
}

/** Above 2^53 the sum is rounded, which is as far outside of every region as the exact one. */
function guestAddress(low: number, high: number): number {
  return high * 2 ** 32 + low;
}

function isExact(address: number, length: number): boolean {
  return address + length <= Number.MAX_SAFE_INTEGER;
}

/** In place when one region holds it at a multiple of 4; gathered into a copy otherwise (rare). */
function indirectTable(memory: GuestMemory, address: number, length: number): DescriptorTable | undefined {
  if (!isExact(address, length)) return undefined;
  const entries = length / DESCRIPTOR_BYTES;
  const region = memory.region(address, length);
  if (region !== undefined && (address - region.guestAddress) % 4 === 0) {
    return { words: region.u32, base: (address - region.guestAddress) / 4, entries };
  }
  const spans = memory.spans(address, length);
  if (spans === undefined) return undefined;
  const copy = new Uint8Array(length);
  let at = 0;
  for (const span of spans) {
    copy.set(span, at);
    at += span.length;
  }
  return { words: new Uint32Array(copy.buffer), base: 0, entries };
}

function range(address: number, length: number): string {
  return `${length} bytes at 0x${address.toString(16)}`;
}
