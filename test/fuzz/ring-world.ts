// What the cases of both ring layouts share: guest memory by chance, what a device does with a request, and what
// must hold whatever the driver did.
import type { ProtocolError } from '../../src/errors.ts';
import type { DescriptorChain, Virtqueue } from '../../src/virtio/virtqueue.ts';
import { PlainMemory } from '../virtio/plain-memory.ts';
import type { Random } from './random.ts';

export const BASE = 0x10000;
export const STEPS_MAX = 1000;
export const LENGTHS = [1, 4, 16, 16, 32, 64, 512];
/** NEXT and WRITE, as often as a driver has them, or more. */
export const DATA_FLAGS = [0, 0, 0, 0, 1, 2, 2, 2, 2, 3];


export function expectInvariants(memory: PlainMemory, queue: Virtqueue, brokenCalls: number, broken: ProtocolError | undefined): void {
  if (!memory.guardsIntact()) throw new Error('bytes outside of guest memory were written');
  if (brokenCalls > 1) throw new Error(`the queue broke ${brokenCalls} times`);
  if ((queue.broken === undefined) !== (broken === undefined)) throw new Error('queue.broken and onBroken differ');
  if (broken !== undefined && queue.next() !== undefined) throw new Error('a broken queue gave a request');
  const { taken, completed, inFlight } = queue.counts;
  if (inFlight !== taken - completed || inFlight < 0 || inFlight > Math.max(queue.size, 0)) throw new Error(`${taken} taken, ${completed} completed, ${inFlight} in flight`);
}

/** One to three regions: apart, adjacent, or across 4 GiB. */
export function guestMemory(random: Random): PlainMemory {
  const base = random.chance(0.1) ? 0xffff0000 : BASE;
  const sizes = Array.from({ length: 1 + random.below(3) }, () => 4 * (16 + random.below(random.pick([64, 4096, 24576]))));
  let at = base;
  return new PlainMemory(...sizes.map((sizeBytes) => {
    const guestAddress = at;
    at += sizeBytes + (random.chance(0.5) ? 0 : 4 * random.below(4096));
    return { guestAddress, sizeBytes };
  }));
}

export function putU16(memory: PlainMemory, address: number, value: number): void {
  const region = memory.region(address, 2);
  if (region === undefined) return;
  new DataView(region.u8.buffer, region.u8.byteOffset).setUint16(address - region.guestAddress, value, true);
}

export function mutate(random: Random, memory: PlainMemory): void {
  const region = random.pick(memory.regions);
  region.u16[random.below(region.u16.length)] = random.chance(0.5) ? random.below(64) : random.u32();
}

/** What a device does with a request; every span must lie in guest memory. */
export function use(random: Random, memory: PlainMemory, chain: DescriptorChain, size: number): DescriptorChain {
  if (!(chain.readableBytes >= 0 && chain.writableBytes >= 0 && chain.head >= 0 && chain.head < size)) {
    throw new Error(`a request of ${chain.readableBytes} and ${chain.writableBytes} bytes with head ${chain.head}`);
  }
  const readable = Math.min(chain.readableBytes, 8192), writable = Math.min(chain.writableBytes, 8192);
  for (const [spans, expected] of [[chain.readableSpans(0, readable), readable], [chain.writableSpans(0, writable), writable]] as const) {
    let sum = 0;
    for (const span of spans) {
      sum += span.length;
      const region = memory.regions.find(({ backing }) => backing.buffer === span.buffer);
      if (region === undefined || span.byteOffset < region.u8.byteOffset || span.byteOffset + span.length > region.u8.byteOffset + region.sizeBytes) {
        throw new Error('a span outside of guest memory');
      }
    }
    if (sum !== expected) throw new Error(`spans of ${sum} bytes for ${expected}`);
  }
  if (random.chance(0.5)) chain.copyOut(0, new Uint8Array(readable), 0, readable);
  if (random.chance(0.5)) chain.copyIn(0, random.bytes(Math.min(writable, 64)));
  return chain;
}
