// What is in flight in a packed ring, as the front end's file has it, and notes that cannot be true. What a crash
// leaves is inflight-crash.test.ts's.
import { beforeEach, describe, expect, test } from '@jest/globals';
import { ProtocolError } from '../../src/errors.ts';
import { regionBytes } from '../../src/vhost-user/inflight.ts';
import { descStatePacked, PackedInflight, queueRegionPacked } from '../../src/vhost-user/inflight-packed.ts';
import type { DescriptorTable } from '../../src/virtio/descriptor-walk.ts';
import type { GuestAddress } from '../../src/virtio/guest-memory.ts';
import { pvirtqDesc, VIRTQ_DESC_F_AVAIL, VIRTQ_DESC_F_USED } from '../../src/virtio/packed-ring.ts';
import { PlainMemory } from '../virtio/plain-memory.ts';

const DESC = 0x10000 as GuestAddress;
const SIZE = 8;
/** Fresh: both indices 0 in their first lap. */
const BASE = 0x80008000;
const NEXT = 1;

let area: Uint8Array;
let memory: PlainMemory;
beforeEach(() => {
  area = new Uint8Array(regionBytes(SIZE, true));
  memory = new PlainMemory({ guestAddress: DESC, sizeBytes: 16 * SIZE });
});

const region = (size = SIZE): PackedInflight =>
  new PackedInflight({ u8: area, u16: new Uint16Array(area.buffer), u32: new Uint32Array(area.buffer) }, { index: 1, size, entries: SIZE });
const resume = (notes = region(), base = BASE): ReturnType<PackedInflight['resume']> =>
  notes.resume({ memory, descAddress: DESC, deviceAddress: 0 as GuestAddress, base });
const head = (): ReturnType<typeof queueRegionPacked.decode> => queueRegionPacked.decode(area);
const entry = (index: number): ReturnType<typeof descStatePacked.decode> => descStatePacked.decode(area, queueRegionPacked.sizeBytes + 32 * index);
const table = (): DescriptorTable => ({ words: memory.regions[0].u32, base: 0, entries: SIZE });

/** A chain of single bytes in the ring, available in its first lap. */
function chain(first: number, id: number, slots: number): void {
  for (let i = 0; i < slots; i += 1) {
    const flags = VIRTQ_DESC_F_AVAIL | (i < slots - 1 ? NEXT : 0);
    memory.write(DESC + 16 * (first + i), pvirtqDesc.encode({ addr: BigInt(0x1_0000_0000 + 256 * (first + i)), len: 1 + i, id, flags }));
  }
}

function take(notes: PackedInflight, first: number, id: number, slots: number): void {
  chain(first, id, slots);
  expect(notes.taken({ head: id, slots }, table(), first)).toBe(true);
}

function use(notes: PackedInflight, id: number, slots: number, place: number): void {
  notes.using({ head: id, slots });
  notes.used(place);
}

test('the region has the layout of the specification: 32 bytes, and 32 for each entry', () => {
  const offsets = ({ fields }: { fields: Record<string, { offset: number }> }): Record<string, number> =>
    Object.fromEntries(Object.entries(fields).map(([name, { offset }]) => [name, offset]));
  expect(offsets(queueRegionPacked)).toEqual({
    features: 0, version: 8, desc_num: 10, free_head: 12, old_free_head: 14, used_idx: 16, old_used_idx: 18, used_wrap_counter: 20, old_used_wrap_counter: 21,
  });
  expect(offsets(descStatePacked)).toEqual({ inflight: 0, next: 2, last: 4, num: 6, counter: 8, id: 16, flags: 18, len: 20, addr: 24 });
  expect([queueRegionPacked.sizeBytes, descStatePacked.sizeBytes]).toEqual([32, 32]);
  expect(regionBytes(7, true)).toBe(256);
  expect(regionBytes(8, true)).toBe(320); // 288, at a multiple of 64
});

test('that nothing was noted in is made ready: a list of free entries, and the base it started from', () => {
  expect(resume(region(), 0x00038003)).toBeUndefined();
  expect(head()).toEqual({
    features: 0n, version: 1, desc_num: SIZE, free_head: 0, old_free_head: 0, used_idx: 3, old_used_idx: 3, used_wrap_counter: 0, old_used_wrap_counter: 0,
  });
  expect(Array.from({ length: SIZE }, (_, i) => entry(i).next)).toEqual([1, 2, 3, 4, 5, 6, 7, 8]);
  expect(resume()).toEqual({ base: 0x00030003, resubmit: [] });
});

test('a request taken takes entries off the list, with its descriptors; one that was used gives them back in front', () => {
  const notes = region();
  resume(notes);
  take(notes, 0, 5, 3);
  take(notes, 3, 2, 1);
  expect(head()).toMatchObject({ free_head: 4, old_free_head: 4, used_idx: 0, used_wrap_counter: 1 });
  expect(entry(0)).toEqual({ inflight: 1, next: 1, last: 2, num: 3, counter: 0n, id: 5, flags: VIRTQ_DESC_F_AVAIL | NEXT, len: 1, addr: 0x1_0000_0000n });
  expect(entry(2)).toMatchObject({ inflight: 0, id: 5, flags: VIRTQ_DESC_F_AVAIL, len: 3, addr: 0x1_0000_0200n });
  expect(entry(3)).toMatchObject({ inflight: 1, last: 3, num: 1, counter: 1n, id: 2 });
  notes.using({ head: 5, slots: 3 });
  expect(head()).toMatchObject({ free_head: 0, old_free_head: 4, used_idx: 3, old_used_idx: 0 });
  expect(entry(2).next).toBe(4);
  expect(entry(0).inflight).toBe(1);
  notes.used(0x8003);
  expect(head()).toMatchObject({ free_head: 0, old_free_head: 0, used_idx: 3, old_used_idx: 3, old_used_wrap_counter: 1 });
  expect(entry(0).inflight).toBe(0);
});

test('what is in flight comes back in the order it was taken, with descriptors that the ring has lost, and a base behind it', () => {
  const notes = region();
  resume(notes);
  for (const [first, id, slots] of [[0, 7, 2], [2, 1, 1], [3, 4, 3]] as const) take(notes, first, id, slots);
  use(notes, 1, 1, 0x8001);
  memory.write(DESC, pvirtqDesc.encode({ id: 1, flags: VIRTQ_DESC_F_AVAIL | VIRTQ_DESC_F_USED }));
  const resumed = resume();
  expect(resumed?.base).toBe(0x80018006);
  expect(resumed?.resubmit.map(({ head: id, descriptors }) => [id, descriptors.length / 4])).toEqual([[7, 2], [4, 3]]);
  expect([...resumed?.resubmit[0].descriptors ?? []]).toEqual([
    0, 1, 1, (VIRTQ_DESC_F_AVAIL | NEXT) << 16 | 7,
    256, 1, 2, VIRTQ_DESC_F_AVAIL << 16 | 7,
  ]);
});

test('more than the area has room for is refused', () => {
  const notes = region();
  resume(notes);
  take(notes, 0, 0, 5);
  expect(notes.taken({ head: 1, slots: 4 }, table(), 5)).toBe(false);
  expect(head()).toMatchObject({ free_head: 5, old_free_head: 5 });
});

test('counters beyond 2^32 keep their order, and new ones follow them', () => {
  const notes = region();
  resume(notes);
  take(notes, 0, 0, 1);
  take(notes, 1, 1, 1);
  new DataView(area.buffer).setBigUint64(queueRegionPacked.sizeBytes + 8, 2n ** 32n + 5n, true);
  const next = region();
  expect(resume(next)?.resubmit.map(({ head: id }) => id)).toEqual([1, 0]);
  take(next, 2, 2, 1);
  expect(entry(2).counter).toBe(2n ** 32n + 6n);
});

describe('notes that cannot be true are a ProtocolError', () => {
  const at = (index: number, offset: number): number => queueRegionPacked.sizeBytes + 32 * index + offset;
  test.each([
    ['of another version', 8, 2, 'version 2'],
    ['of another size', 10, 16, 'for 16 entries'],
    ['a free list that leaves the area', at(4, 2), 9, 'entry 9 of 8'],
    ['a free list that is a circle', at(5, 2), 4, 'entry 4 of 8 twice'],
    ['a free list that starts outside', 14, 200, 'free entry 200 of 8'],
    ['a request of no descriptors', at(0, 6), 0, 'a request of 0 descriptors'],
    ['a request of more than there are', at(0, 6), 9, 'a request of 9 descriptors'],
    ['a request that runs into the free list', at(1, 2), 4, 'entry 4 of 8 twice'],
    ['a request that leaves the area', at(0, 2), 0xffff, 'entry 65535 of 8'],
    ['a buffer id that is none', at(2, 16), 8, 'names buffer id 8'],
    ['a used index that is none', 18, 8, 'used index 8 of a ring of 8'],
  ])('%s', (_what, offset, value, said) => {
    const notes = region();
    resume(notes);
    take(notes, 0, 5, 3);
    take(notes, 3, 2, 1);
    new DataView(area.buffer).setUint16(offset, value, true);
    expect(() => resume()).toThrow(ProtocolError);
    expect(() => resume()).toThrow(said);
  });

  test('more in flight than the ring has, though the area has room for it', () => {
    const notes = region();
    resume(notes);
    take(notes, 0, 1, 3);
    take(notes, 3, 2, 2);
    expect(() => resume(region(4))).toThrow('5 descriptors in flight of a ring of 4');
  });

  test('whatever the bytes are, they are refused or read: never a hang, nor anything outside of them', () => {
    const notes = region();
    resume(notes);
    for (const [first, id, slots] of [[0, 5, 3], [3, 2, 1], [4, 1, 2]] as const) take(notes, first, id, slots);
    const sound = area.slice();
    let read = 0;
    for (let offset = 8; offset < queueRegionPacked.sizeBytes + 32 * SIZE; offset += 1) {
      for (const value of [0, 1, 2, 7, 8, 9, 0x7f, 0x80, 0xff]) {
        area.set(sound);
        area[offset] = value;
        try {
          const { resubmit = [] } = resume() ?? {};
          read += 1;
          expect(resubmit.every(({ head: id, descriptors }) => id < SIZE && descriptors.length <= 4 * SIZE)).toBe(true);
        } catch (error) {
          expect(error).toBeInstanceOf(ProtocolError);
        }
      }
    }
    expect(read).toBeGreaterThan(100);
  });
});
