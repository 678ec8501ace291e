// A split ring by chance: layout, contents, what the driver does to them while the device works, and a device that
// takes, reads, writes and completes. Whatever it is, the queue throws nothing, touches nothing outside of guest
// memory, and every step ends.
import type { ProtocolError } from '../../src/errors.ts';
import type { GuestAddress } from '../../src/virtio/guest-memory.ts';
import { SplitVirtqueue } from '../../src/virtio/split-virtqueue.ts';
import type { DescriptorChain } from '../../src/virtio/virtqueue.ts';
import type { PlainMemory } from '../virtio/plain-memory.ts';
import { outcomeOf, type CaseOutcome } from './case-outcome.ts';
import { Random } from './random.ts';
import { BASE, DATA_FLAGS, expectInvariants, guestMemory, LENGTHS, mutate, putU16, STEPS_MAX, use } from './ring-world.ts';

/** Of a driver that is well, and of any. */
const SOUND_FLAGS = [0, 2];
const FLAGS = [...DATA_FLAGS, 4];

/** @throws when an invariant does not hold */
export function splitRingCase(seed: number): CaseOutcome {
  const random = new Random(seed);
  // From a driver that is well and only changes its mind, to one that is out of its own.
  const wild = random.pick([0, 0.0003, 0.003, 0.1]);
  const memory = guestMemory(random);
  const size = random.chance(wild / 2) ? Number(random.edge() & 0x1ffffn) : 2 ** random.pick([0, 1, 2, 3, 3, 4, 4, 5, 6, 8, 10]);
  const place = layout(random, size, wild);
  const indirect = random.chance(0.6);
  fill(random, memory, place, size, wild);
  const lastAvailIndex = random.pick([0, 0, 1, 0x7fff, 0xfffe, 0xffff, random.below(0x10000)]);
  publish(random, memory, place, size, wild, lastAvailIndex);
  let broken: ProtocolError | undefined;
  let brokenCalls = 0;
  const queue = new SplitVirtqueue({
    memory, size, descAddress: place.desc, driverAddress: place.avail, deviceAddress: place.used, base: lastAvailIndex, indirect,
    eventIdx: random.chance(0.5),
    notify: () => undefined,
    onBroken: (error) => { broken = error; brokenCalls += 1; },
    ...(random.chance(0.3) ? { yieldTurn: () => undefined } : {}),
    ...(random.chance(0.2) ? { chainLimit: random.pick([1, 2, 8, 64, 32768]) } : {}),
  });
  const held: DescriptorChain[] = [];
  let steps = 1;
  for (; steps < STEPS_MAX; steps += 1) {
    const action = random.below(10);
    if (action < 4) {
      const chain = queue.next();
      if (chain !== undefined) held.push(use(random, memory, chain, size));
    } else if (action < 7 && held.length > 0) {
      const [chain] = held.splice(random.below(held.length), 1) as [DescriptorChain];
      if (random.chance(0.9)) queue.complete(chain, random.below(chain.writableBytes + 1));
      else queue.completeAs(chain, random.below(0x10000), random.below(0x10000));
    } else if (action === 7) {
      if (random.chance(wild)) mutate(random, memory);
      else writeDescriptor(random, memory, place.desc + 16 * random.below(size), size, wild);
    } else if (action === 8) {
      const at = availIndex(memory, place);
      const room = size - held.length - ((at - lastAvailIndex - queue.counts.taken) & 0xffff);
      if (random.chance(wild)) publish(random, memory, place, size, wild, random.below(0x10000));
      else if (room > 0) publish(random, memory, place, size, wild, at, room);
    } else if (held.length > 0 && random.chance(0.5)) {
      if (queue.putBack(held.at(-1) as DescriptorChain)) held.pop();
    } else if (held.length === 0) {
      queue.remap();
    }
    if (broken !== undefined && random.chance(0.5)) break;
  }
  expectInvariants(memory, queue, brokenCalls, broken);
  return { steps, outcome: broken === undefined ? 'sound' : outcomeOf(broken) };
}

interface Place {
  readonly desc: GuestAddress;
  readonly avail: GuestAddress;
  readonly used: GuestAddress;
}

function layout(random: Random, size: number, wild: number): Place {
  const regular = (base: number): [number, number, number] => [base, base + 16 * size, (base + 18 * size + 9) & ~3];
  const anywhere = (): number => (random.chance(0.7) ? BASE + random.below(0x20000) : Number(random.edge() & 0x3fffffffffffffn));
  const [desc, avail, used] = !random.chance(wild) ? regular(BASE + 16 * random.below(4)) : [anywhere(), anywhere(), anywhere()];
  return { desc: desc as GuestAddress, avail: avail as GuestAddress, used: used as GuestAddress };
}

/** A plausible descriptor, with now and then a wild field: loops, and what crosses a region's end, are plausible. */
function writeDescriptor(random: Random, memory: PlainMemory, address: number, size: number, wild: number): void {
  const region = memory.region(address, 16);
  if (region === undefined) return;
  const view = new DataView(region.u8.buffer, region.u8.byteOffset + address - region.guestAddress, 16);
  if (random.chance(wild)) view.setBigUint64(0, random.edge(), true);
  else {
    view.setUint32(0, region.guestAddress + random.below(region.sizeBytes - (wild > 0 ? 0 : 600)), true);
    view.setUint32(4, 0, true);
  }
  view.setUint32(8, random.chance(wild) ? Number(random.edge() & 0xffffffffn) : random.pick(LENGTHS), true);
  view.setUint16(12, random.chance(wild) ? random.below(0x10000) : random.pick(wild === 0 ? SOUND_FLAGS : FLAGS), true);
  // Forward, so that a chain ends; back now and then, so that one does not.
  const index = (address & 0xffff) >> 4;
  view.setUint16(14, random.chance(wild) ? random.below(0x10000) : random.chance(wild) ? random.below(size) : Math.min((index % size) + 1, size - 1), true);
}

/** The table, and what lies about in memory: likely enough to be met as an indirect table. */
function fill(random: Random, memory: PlainMemory, { desc }: Place, size: number, wild: number): void {
  for (let i = 0; i < Math.min(size, 64); i += 1) writeDescriptor(random, memory, desc + 16 * i, size, wild);
  if (wild > 0) for (let i = 0; i < 32; i += 1) writeDescriptor(random, memory, BASE + 16 * random.below(0x1800), random.pick([1, 2, 4, 16, size]), wild);
}

/** Make up to `room` entries available, from index `from` on. */
function publish(random: Random, memory: PlainMemory, { avail }: Place, size: number, wild: number, from: number, room = size): void {
  const count = random.chance(wild) ? random.below(0x10000) : random.below(Math.min(room, 16) + 1);
  for (let i = 0; i < Math.min(count, 64); i += 1) {
    const entry = avail + 4 + 2 * ((from + i) % Math.max(size, 1));
    putU16(memory, entry, random.chance(wild) ? random.below(0x10000) : random.below(Math.min(size, 64)));
  }
  putU16(memory, avail + 2, (from + count) & 0xffff);
}

function availIndex(memory: PlainMemory, { avail }: Place): number {
  return memory.region(avail + 2, 2) === undefined ? 0 : memory.view(avail + 2, 2).getUint16(0, true);
}

