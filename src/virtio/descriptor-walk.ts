// Follows one descriptor chain, split or packed, direct and indirect, into a BufferChain (virtio 1.2,
// 2.7.5 and 2.8.6). Every word is read once, every check comes before the use. Violations come back as
// text: the queue makes a ProtocolError of it. Does not touch the avail and used rings.
import type { BufferChain } from './buffer-chain.ts';
import type { GuestMemory } from './guest-memory.ts';
import { availableFlags, VIRTQ_DESC_F_AVAIL, VIRTQ_DESC_F_USED } from './packed-ring.ts';
import { VIRTQ_DESC_F_INDIRECT, VIRTQ_DESC_F_NEXT, VIRTQ_DESC_F_WRITE } from './split-ring.ts';

/** A descriptor table seen as 32-bit words: descriptor i starts at words[base + 4 * i]. */
export interface DescriptorTable {
  words: Uint32Array;
  base: number;
  entries: number;
}

const DESCRIPTOR_BYTES = 16;
/** 2.7.5.2: "Drivers MUST NOT add a descriptor chain longer than 2^32 bytes in total". */
const CHAIN_BYTES_MAX = 2 ** 32;
/** The indirect table being walked: one for all queues, since a walk is never interrupted. */
const inner: DescriptorTable = { words: new Uint32Array(0), base: 0, entries: 0 };

/**
 * Fill `chain` from the descriptors of a split ring that start at chain.head. Returns what the driver did wrong,
 * or undefined. `chainLimit` is the most descriptors a chain may have, indirect ones included.
 */
export function walkSplit(
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

    if ((flagsAndNext & VIRTQ_DESC_F_INDIRECT) !== 0) {
      if (inIndirect) return `indirect descriptor ${index} is INDIRECT again`;
      const wrong = openIndirect(memory, index, address, length, flagsAndNext, indirectAllowed);
      if (wrong !== undefined) return wrong;
      ({ words, base, entries } = inner);
      inIndirect = true;
      index = 0;
      continue;
    }

    const wrong = addBuffer(chain, memory, index, inIndirect, address, length, (flagsAndNext & VIRTQ_DESC_F_WRITE) !== 0, chainLimit);
    if (wrong !== undefined) return `${wrong}, in the chain of head ${chain.head}`;
    if ((flagsAndNext & VIRTQ_DESC_F_NEXT) === 0) return undefined;
    index = flagsAndNext >>> 16;
  }
}

/**
 * Fill `chain` from the descriptors of a packed ring that start at `first` under the wrap counter `wrap`;
 * head (the buffer id) and slots too. `free` is how many descriptors the driver can have made available.
 */
export function walkPacked(
  chain: BufferChain, table: DescriptorTable, first: number, wrap: boolean, free: number,
  memory: GuestMemory, indirectAllowed: boolean, chainLimit: number,
): string | undefined {
  chain.clear();
  const { words, base, entries } = table;
  let index = first;
  let available = availableFlags(wrap);
  for (;;) {
    const at = base + 4 * index;
    const address = guestAddress(words[at], words[at + 1]);
    const length = words[at + 2];
    const idAndFlags = words[at + 3];
    const flags = idAndFlags >>> 16;
    chain.head = idAndFlags & 0xffff;
    chain.slots += 1;
    if (chain.slots > free) return `a chain from descriptor ${first} has more than the ${free} descriptors that the device does not have already`;
    if ((flags & (VIRTQ_DESC_F_AVAIL | VIRTQ_DESC_F_USED)) !== available) {
      return `descriptor ${index}, in the chain from ${first}, is not available`;
    }

    if ((flags & VIRTQ_DESC_F_INDIRECT) !== 0) {
      if (chain.slots > 1) return `descriptor ${index} is INDIRECT and in a chain`;
      return openIndirect(memory, index, address, length, flags, indirectAllowed) ?? walkWhole(chain, memory, chainLimit);
    }
    const wrong = addBuffer(chain, memory, index, false, address, length, (flags & VIRTQ_DESC_F_WRITE) !== 0, chainLimit);
    if (wrong !== undefined) return `${wrong}, in the chain from ${first}`;
    if ((flags & VIRTQ_DESC_F_NEXT) === 0) return undefined;
    index += 1;
    if (index === entries) {
      index = 0;
      wrap = !wrap;
      available = availableFlags(wrap);
    }
  }
}

/** A packed ring's indirect table: every entry, in order; of the flags only WRITE means something (2.8.7). */
function walkWhole(chain: BufferChain, memory: GuestMemory, chainLimit: number): string | undefined {
  const { words, base, entries } = inner;
  for (let index = 0; index < entries; index += 1) {
    const at = base + 4 * index;
    const address = guestAddress(words[at], words[at + 1]);
    const length = words[at + 2];
    const flags = words[at + 3] >>> 16;
    if ((flags & VIRTQ_DESC_F_INDIRECT) !== 0) return `indirect descriptor ${index} is INDIRECT again`;
    const wrong = addBuffer(chain, memory, index, true, address, length, (flags & VIRTQ_DESC_F_WRITE) !== 0, chainLimit);
    if (wrong !== undefined) return `${wrong}, in the chain of buffer id ${chain.head}`;
  }
  return undefined;
}

function addBuffer(
  chain: BufferChain, memory: GuestMemory, index: number, inIndirect: boolean, address: number, length: number, writable: boolean, chainLimit: number,
): string | undefined {
  chain.descriptorCount += 1;
  if (chain.descriptorCount > chainLimit) return `there is a loop, or more than the ${chainLimit} descriptors allowed`;
  if (length === 0) return `${which(inIndirect, index)} has length 0`;
  if (!writable && chain.writableBytes > 0) return `${which(inIndirect, index)} is device-readable and follows a device-writable one`;
  if (chain.readableBytes + chain.writableBytes + length > CHAIN_BYTES_MAX) return 'there are more than 2^32 bytes';
  if (!isExact(address, length) || !chain.append(memory, address, length, writable)) {
    return `the buffer of ${which(inIndirect, index)}, ${range(address, length)}, is not in guest memory`;
  }
  return undefined;
}

/** Check a reference to an indirect table and make `inner` that table. */
function openIndirect(
  memory: GuestMemory, index: number, address: number, length: number, flags: number, indirectAllowed: boolean,
): string | undefined {
  if (!indirectAllowed) return `descriptor ${index} is INDIRECT, which was not negotiated`;
  if ((flags & VIRTQ_DESC_F_NEXT) !== 0) return `descriptor ${index} is both INDIRECT and NEXT`;
  if (length === 0 || length % DESCRIPTOR_BYTES !== 0) return `descriptor ${index} has an indirect table of ${length} bytes, not a multiple of 16`;
  if (length / DESCRIPTOR_BYTES > 0x10000) return `descriptor ${index} has an indirect table of ${length / DESCRIPTOR_BYTES} entries, more than an index reaches`;
  if (!findTable(memory, address, length)) return `the indirect table of descriptor ${index}, ${range(address, length)}, is not in guest memory`;
  return undefined;
}

/** In place when one region holds it at a multiple of 4; gathered into a copy otherwise (rare). */
function findTable(memory: GuestMemory, address: number, length: number): boolean {
  if (!isExact(address, length)) return false;
  inner.entries = length / DESCRIPTOR_BYTES;
  const region = memory.region(address, length);
  if (region !== undefined && (address - region.guestAddress) % 4 === 0) {
    inner.words = region.u32;
    inner.base = (address - region.guestAddress) / 4;
    return true;
  }
  const spans = memory.spans(address, length);
  if (spans === undefined) return false;
  const copy = new Uint8Array(length);
  let at = 0;
  for (const span of spans) {
    copy.set(span, at);
    at += span.length;
  }
  inner.words = new Uint32Array(copy.buffer);
  inner.base = 0;
  return true;
}

/** Above 2^53 the sum is rounded, which is as far outside of every region as the exact one. */
function guestAddress(low: number, high: number): number {
  return high * 2 ** 32 + low;
}

function isExact(address: number, length: number): boolean {
  return address + length <= Number.MAX_SAFE_INTEGER;
}

function which(inIndirect: boolean, index: number): string {
  return `${inIndirect ? 'indirect descriptor' : 'descriptor'} ${index}`;
}

function range(address: number, length: number): string {
  return `${length} bytes at 0x${address.toString(16)}`;
}
