// What is in flight in a split ring, as the front end's file has it, and what is made of that after a crash.
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { ProtocolError } from '../../src/errors.ts';
import { closeFd, mapFile, unmapFile } from '../../src/native/index.ts';
import { createInflightFile, InflightArea, regionBytes } from '../../src/vhost-user/inflight.ts';
import { descStateSplit, queueRegionSplit, type SplitInflight } from '../../src/vhost-user/inflight-split.ts';
import type { JournalledRequest } from '../../src/virtio/ring-journal.ts';

const request = (head: number): JournalledRequest => ({ head, slots: 1 });

describe('the region of a ring', () => {
  let fd = -1;
  let mapping: ArrayBuffer;
  let bytes: Uint8Array;
  let area: InflightArea;
  beforeEach(() => {
    const made = createInflightFile(2, 8, false);
    fd = made.fd;
    mapping = mapFile(fd, 0, Number(made.description.mmapSize));
    bytes = new Uint8Array(mapping);
    area = new InflightArea(fd, made.description, false);
  });
  afterEach(() => {
    area.close();
    unmapFile(mapping);
    closeFd(fd);
  });
  const region = (index: number, size: number): SplitInflight => area.region(index, size, false) as SplitInflight;
  const queue = (index: number): Uint8Array => bytes.subarray(index * regionBytes(8, false), (index + 1) * regionBytes(8, false));
  const state = (head: number, index = 0): { inflight: number; next: number; counter: bigint } =>
    descStateSplit.decode(queue(index), queueRegionSplit.sizeBytes + 16 * head);

  test('has the layout of the specification: 16 bytes, and 16 for each entry', () => {
    const offsets = ({ fields }: { fields: Record<string, { offset: number }> }): Record<string, number> =>
      Object.fromEntries(Object.entries(fields).map(([name, { offset }]) => [name, offset]));
    expect(offsets(queueRegionSplit)).toEqual({ features: 0, version: 8, desc_num: 10, last_batch_head: 12, used_idx: 14 });
    expect(offsets(descStateSplit)).toEqual({ inflight: 0, next: 6, counter: 8 });
    expect(regionBytes(8, false)).toBe(192); // 144, at a multiple of 64
  });

  test('that nothing was noted in is made ready, and says so', () => {
    expect(region(1, 8).recover(7)).toBeUndefined();
    expect(queueRegionSplit.decode(queue(1))).toEqual({ features: 0n, version: 1, desc_num: 8, last_batch_head: 0, used_idx: 7 });
    expect(queue(0).every((byte) => byte === 0)).toBe(true);
    expect(region(1, 8).recover(7)).toEqual([]);
  });

  test('notes each request taken with its turn, and each used one in the order of the specification', () => {
    const notes = region(0, 8);
    notes.recover(0);
    for (const head of [3, 5, 0]) notes.taken(request(head));
    expect([3, 5, 0].map((head) => state(head))).toEqual([0n, 1n, 2n].map((counter) => ({ inflight: 1, next: 0, counter })));
    notes.using(request(5));
    expect(queueRegionSplit.decode(queue(0))).toMatchObject({ last_batch_head: 5, used_idx: 0 });
    expect(state(5).inflight).toBe(1);
    notes.used(1);
    expect(state(5)).toEqual({ inflight: 0, next: 0, counter: 1n });
    notes.using(request(3));
    notes.used(2);
    expect(state(3)).toEqual({ inflight: 0, next: 5, counter: 0n });
    expect(queueRegionSplit.decode(queue(0))).toMatchObject({ last_batch_head: 3, used_idx: 2 });
    expect(region(0, 8).recover(2)).toEqual([0]);
  });

  test('gives what is in flight in the order it was taken, and goes on counting behind it', () => {
    const first = region(0, 8);
    first.recover(0);
    for (const head of [6, 1, 4]) first.taken(request(head));
    const second = region(0, 8);
    expect(second.recover(0)).toEqual([6, 1, 4]);
    second.taken(request(6));
    expect(region(0, 8).recover(0)).toEqual([1, 4, 6]);
  });

  test.each([
    ['before the used index moved', 0, [2, 7]],
    ['after the used index moved, before the request was struck out', 1, [2]],
  ])('a back end that ended %s is put right', (_when, usedIndex, inFlight) => {
    const notes = region(0, 8);
    notes.recover(0);
    notes.taken(request(2));
    notes.taken(request(7));
    notes.using(request(7));
    const next = region(0, 8);
    expect(next.recover(usedIndex)).toEqual(inFlight);
    expect(queueRegionSplit.decode(queue(0)).used_idx).toBe(usedIndex);
    expect(region(0, 8).recover(usedIndex)).toEqual(inFlight);
  });

  test('a batch of several used requests of another back end is followed through its list', () => {
    const notes = region(0, 8);
    notes.recover(0);
    for (const head of [0, 1, 2, 3]) notes.taken(request(head));
    for (const head of [1, 3, 0]) notes.using(request(head)); // libvhost-user may use several before it strikes them out
    expect(region(0, 8).recover(3)).toEqual([2]);
  });

  test.each([
    ['of another version', (view: DataView) => view.setUint16(8, 2, true), 0, 'version 2'],
    ['of another size', (view: DataView) => view.setUint16(10, 16, true), 0, 'for 16 entries'],
    ['whose used index is far behind', () => undefined, 100, 'used 100 requests'],
    ['whose batch names a head that is none', (view: DataView) => view.setUint16(12, 8, true), 1, 'names head 8 of 8'],
  ] as const)('a region %s is a ProtocolError', (_what, spoil, usedIndex, said) => {
    region(0, 8).recover(0);
    spoil(new DataView(mapping));
    expect(() => region(0, 8).recover(usedIndex)).toThrow(ProtocolError);
    expect(() => region(0, 8).recover(usedIndex)).toThrow(said);
  });

  test('a ring with fewer entries than the area has room for leaves the area’s number in it', () => {
    const notes = region(1, 4);
    notes.recover(0);
    expect(queueRegionSplit.decode(queue(1)).desc_num).toBe(8);
    notes.taken(request(3));
    expect(region(1, 4).recover(0)).toEqual([3]);
  });

  test('a ring beyond the area, or larger than its queues, has no place in it', () => {
    expect(() => region(2, 8)).toThrow('ring 2 of 8 entries has no place in the in-flight area of 2 queues of 8');
    expect(() => region(0, 16)).toThrow(ProtocolError);
  });

  test('counters beyond 2^32 keep their order', () => {
    const notes = region(0, 8);
    notes.recover(0);
    const at = queueRegionSplit.sizeBytes;
    bytes.set(descStateSplit.encode({ inflight: 1, counter: 2n ** 32n + 5n }), at);
    bytes.set(descStateSplit.encode({ inflight: 1, counter: 6n }), at + 16);
    const next = region(0, 8);
    expect(next.recover(0)).toEqual([1, 0]);
    next.taken(request(1));
    expect(state(1).counter).toBe(2n ** 32n + 6n);
  });
});
