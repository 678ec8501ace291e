// A packed ring by chance: sizes of all kinds, what the driver puts into it (packed-driver.ts), and a device that takes,
// reads, writes, completes in any order, dies and comes back with the notes of what was in flight, true ones or spoiled.
// Whatever it is, the queue throws nothing, touches nothing outside of guest memory and its notes, and every step ends;
// and of a sound driver every request is answered once.
import { ProtocolError } from '../../src/errors.ts';
import { DirtyLog } from '../../src/vhost-user/dirty-log.ts';
import { regionBytes } from '../../src/vhost-user/inflight.ts';
import { PackedInflight } from '../../src/vhost-user/inflight-packed.ts';
import { RingNotes } from '../../src/vhost-user/ring-notes.ts';
import type { GuestAddress } from '../../src/virtio/guest-memory.ts';
import { PackedVirtqueue } from '../../src/virtio/packed-virtqueue.ts';
import { PlainMemory } from '../virtio/plain-memory.ts';
import type { DescriptorChain } from '../../src/virtio/virtqueue.ts';
import { outcomeOf, type CaseOutcome } from './case-outcome.ts';
import { IDS_MAX, PackedDriver, TABLE_BYTES, type PackedPlace } from './packed-driver.ts';
import { Random } from './random.ts';
import { BASE, expectInvariants, guestMemory, mutate, STEPS_MAX, use } from './ring-world.ts';

const DATA_BYTES = 0x4000;
const SIZES = [1, 1, 2, 3, 4, 5, 7, 8, 13, 16, 31, 64, 100, 256];
const LARGE = [1023, 4096, 32767, 32768];

/** @throws when an invariant does not hold */
export function packedRingCase(seed: number): CaseOutcome {
  const random = new Random(seed);
  const wild = random.pick([0, 0.0003, 0.003, 0.1]);
  const size = random.chance(wild / 2) ? Number(random.edge() & 0x1ffffn) : random.chance(0.003) ? random.pick(LARGE) : random.pick(SIZES);
  const ringBytes = 16 * Math.min(size, 32768) + 64 + TABLE_BYTES * Math.min(size, IDS_MAX);
  const memory = random.chance(wild) ? guestMemory(random) : new PlainMemory(
    { guestAddress: BASE, sizeBytes: ringBytes + DATA_BYTES },
    ...(random.chance(0.5) ? [{ guestAddress: 0x200000, sizeBytes: 0x1000 }] : []),
  );
  const place = layout(random, size, wild, ringBytes);
  const indirect = random.chance(0.6);
  const index = size === 0 ? 0 : random.pick([0, 0, size - 1, random.below(size)]) & 0x7fff;
  const start = index | (random.chance(0.5) ? 0x8000 : 0);
  const base = random.chance(wild) ? random.u32() : (start << 16 | start) >>> 0;
  const driver = new PackedDriver(random, memory, place, { size, wild, indirect, start });
  const inOrder = random.chance(0.2);
  const options = {
    memory, size, base, indirect, inOrder,
    descAddress: place.desc as GuestAddress, driverAddress: place.driver as GuestAddress, deviceAddress: place.device as GuestAddress,
    eventIdx: random.chance(0.5), usedBatches: random.chance(0.5), chainLimit: random.chance(wild) ? random.pick([1, 2, 8, 64, 32768]) : 32768,
    ...(random.chance(0.3) ? { yieldTurn: () => undefined } : {}),
  };
  let broken: ProtocolError | undefined;
  /** What an earlier life broke of. */
  let first: ProtocolError | undefined;
  let brokenCalls = 0;
  const onBroken = (error: ProtocolError): void => { broken = error; brokenCalls += 1; };
  const notes = random.chance(0.5) && size >= 1 && size <= 32768 ? new Notes(size) : undefined;
  /** Undefined when the notes are refused. */
  const live = (): PackedVirtqueue | undefined => {
    first ??= broken;
    broken = undefined;
    brokenCalls = 0;
    if (notes === undefined) return new PackedVirtqueue({ ...options, notify: () => undefined, onBroken });
    try {
      const inflight = notes.region();
      const resumed = inflight.resume({ ...options, base });
      const gap: { queue?: PackedVirtqueue } = {};
      const journal = new RingNotes({
        memory: { guestAddressOf: () => undefined }, size, inflight, log: new DirtyLog(), packedAt: place.desc, onGap: (reason) => gap.queue?.break(reason),
      }, undefined);
      return (gap.queue = new PackedVirtqueue({ ...options, ...resumed, journal, notify: () => undefined, onBroken }));
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error;
      broken = error;
      return undefined;
    }
  };
  let queue = live();
  let held: DescriptorChain[] = [];
  /** With IN_ORDER: what the device has or had, oldest first; those it is done with go when their turn comes. */
  let order: { chain: DescriptorChain; done: boolean }[] = [];
  const done = (chain: DescriptorChain): void => {
    if (!inOrder) return driver.used(chain.head);
    for (const one of order) if (one.chain === chain) one.done = true;
    while (order[0]?.done === true) driver.used((order.shift() as { chain: DescriptorChain }).chain.head);
  };
  const take = (): boolean => {
    const chain = queue?.next();
    if (chain === undefined) return false;
    held.push(use(random, memory, chain, size));
    order.push({ chain, done: false });
    return true;
  };
  const drop = (): DescriptorChain => held.splice(random.below(held.length), 1)[0];

  let steps = 1;
  for (; steps < STEPS_MAX && queue !== undefined; steps += 1) {
    const action = random.below(14);
    if (action < 4) take();
    else if (action < 7 && held.length > 0) {
      const chain = drop();
      if (random.chance(wild)) queue.completeAs(chain, random.below(0x10000), random.below(0x10000));
      else queue.complete(chain, random.below(chain.writableBytes + 1));
      done(chain);
    } else if (action === 7 && held.length > 1) {
      const chains = Array.from({ length: Math.min(held.length, 1 + random.below(4)) }, drop);
      queue.completeTogether(chains, chains.map(({ writableBytes }) => writableBytes));
      chains.forEach(done);
    } else if (action < 10) driver.publish();
    else if (action === 10) {
      if (random.chance(0.5)) driver.askForEvents();
      else if (random.chance(wild)) driver.scribble();
      else if (random.chance(wild)) mutate(random, memory);
      else if (random.chance(wild)) queue.putUsed(random.below(0x10000), random.u32());
    } else if (action === 11 && held.length > 0) {
      if (queue.putBack(held.at(-1) as DescriptorChain)) {
        held.pop();
        order.pop();
      }
    } else if (action === 12 && held.length === 0 && (!inOrder || order.length === 0)) queue.remap();
    else if (action === 13 && notes !== undefined && random.chance(0.3)) {
      expectInvariants(memory, queue, brokenCalls, broken);
      // What waited for its turn was not used: it is in flight like the rest.
      held = [];
      order = [];
      if (wild > 0 && random.chance(0.2)) notes.spoil(random);
      queue = live();
      notes.expectGuards();
    }
    if (broken !== undefined && random.chance(0.5)) break;
  }
  if (queue !== undefined) {
    if (wild === 0) {
      const sound = queue;
      for (let left = 2 * size + 2; driver.outstanding > 0 && left > 0; left -= 1) {
        while (take());
        for (const chain of held.splice(0)) {
          sound.complete(chain, 0);
          done(chain);
        }
      }
      if (driver.outstanding > 0 && broken === undefined) throw new Error(`${driver.outstanding} requests of a sound driver are lost`);
    }
    expectInvariants(memory, queue, brokenCalls, broken);
  }
  notes?.expectGuards();
  first ??= broken;
  if (wild === 0 && first !== undefined) throw new Error(`a sound driver's ring broke: ${first.message}`);
  return { steps, outcome: first === undefined ? 'sound' : outcomeOf(first) };
}

function layout(random: Random, size: number, wild: number, ringBytes: number): PackedPlace {
  const anywhere = (): number => (random.chance(0.7) ? BASE + random.below(0x20000) : Number(random.edge() & 0x3fffffffffffffn));
  const driver = BASE + 16 * size;
  const rest = { tables: driver + 64, data: BASE + ringBytes, dataBytes: DATA_BYTES };
  return random.chance(wild) ? { desc: anywhere(), driver: anywhere(), device: anywhere(), ...rest } : { desc: BASE, driver, device: driver + 4, ...rest };
}

/** The in-flight notes, with guard bytes around them. */
class Notes {
  readonly #backing: Uint8Array;
  readonly #size: number;

  constructor(size: number) {
    this.#size = size;
    this.#backing = new Uint8Array(regionBytes(size, true) + 128).fill(0xa5);
    this.#backing.fill(0, 64, this.#backing.length - 64);
  }

  region(): PackedInflight {
    const u8 = this.#backing.subarray(64, -64);
    const { buffer, byteOffset, length } = u8;
    const views = { u8, u16: new Uint16Array(buffer, byteOffset, length / 2), u32: new Uint32Array(buffer, byteOffset, length / 4) };
    return new PackedInflight(views, { index: 0, size: this.#size, entries: this.#size });
  }

  /** As another process could. */
  spoil(random: Random): void {
    const inner = this.#backing.subarray(64, -64);
    for (let count = 1 + random.below(4); count > 0; count -= 1) inner[random.chance(0.5) ? random.below(32) : random.below(inner.length)] = random.chance(0.5) ? random.below(8) : random.u32();
  }

  expectGuards(): void {
    const guards = [this.#backing.subarray(0, 64), this.#backing.subarray(-64)];
    if (!guards.every((guard) => guard.every((byte) => byte === 0xa5))) throw new Error('bytes outside of the in-flight notes were written');
  }
}
