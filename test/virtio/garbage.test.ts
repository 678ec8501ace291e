// A request costs no garbage: taken, copied from and to, and used, over both layouts, in order and not. The driver
// here writes its words by hand, since the mock driver allocates.
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { expect, test } from '@jest/globals';
import { featureMask, VIRTIO_F } from '../../src/virtio/features.ts';
import type { GuestAddress, MemoryRegion } from '../../src/virtio/guest-memory.ts';
import { PACKED_BASE } from '../../src/virtio/packed-virtqueue.ts';
import { createVirtqueue } from '../../src/virtio/virtqueue-factory.ts';
import { LAYOUTS } from './layouts.ts';
import type { Layout } from './layouts.ts';

const [SIZE, MEMORY_BYTES, DRIVER, DEVICE, TABLE, DATA] = [64, 0x10000, 0x2000, 0x4000, 0x8000, 0x9000];
const REQUESTS = 30_000;
/** Less than the smallest object with a field or two. */
const BYTES = 24;

/** A driver with one request at a time in an indirect table, 16 bytes each way; calls `step` to make it available. */
function setUp(layout: Layout, inOrder: boolean): () => void {
  const buffer = new ArrayBuffer(MEMORY_BYTES);
  const [u8, u16, u32] = [new Uint8Array(buffer), new Uint16Array(buffer), new Uint32Array(buffer)];
  const region: MemoryRegion = { guestAddress: 0 as GuestAddress, sizeBytes: MEMORY_BYTES, u8, u16, u32 };
  const packed = layout === 'packed';
  const queue = createVirtqueue({
    memory: { region: (address, length) => (address >= 0 && address + length <= MEMORY_BYTES ? region : undefined), spans: () => undefined },
    features: featureMask(28, 29, ...(inOrder ? [VIRTIO_F.VIRTIO_F_IN_ORDER] : []), ...(packed ? [VIRTIO_F.VIRTIO_F_RING_PACKED] : [])),
    size: SIZE, descAddress: 0 as GuestAddress, driverAddress: DRIVER as GuestAddress, deviceAddress: DEVICE as GuestAddress,
    base: packed ? PACKED_BASE : 0, notify: () => undefined, onBroken: (error) => { throw error; },
  });
  u32.set([DATA, 0, 16, packed ? 0 : 1 | 1 << 16, DATA + 16, 0, 16, packed ? 2 << 16 : 2], TABLE / 4);
  const bytes = new Uint8Array(16).fill(0x5a);
  const read = new Uint8Array(16);
  let [index, wrap] = [0, true];
  return () => {
    const at = packed ? 4 * index : 0;
    u32[at] = TABLE;
    u32[at + 1] = 0;
    u32[at + 2] = 32;
    if (packed) {
      u32[DRIVER / 4] = 2 << 16 | index | (wrap ? 0x8000 : 0);
      u32[at + 3] = (4 | (wrap ? 0x80 : 0x8000)) << 16 | 5;
      index += 1;
      if (index === SIZE) [index, wrap] = [0, !wrap];
    } else {
      u32[at + 3] = 4;
      u16[DRIVER / 2 + 2 + index % SIZE] = 0;
      u16[DRIVER / 2 + 2 + SIZE] = index;
      index = (index + 1) & 0xffff;
      u16[DRIVER / 2 + 1] = index;
    }
    for (let chain = queue.next(); chain !== undefined; chain = queue.next()) {
      chain.copyOut(0, read);
      chain.copyIn(0, bytes);
      queue.complete(chain, 16);
    }
    if (u8[DATA + 16] !== 0x5a) throw new Error('the request was not answered');
    u8[DATA + 16] = 0;
  };
}

test.each(LAYOUTS.flatMap((layout) => [{ layout, inOrder: false }, { layout, inOrder: true }]))(
  'a request of a $layout ring, in order $inOrder, leaves no object behind', ({ layout, inOrder }) => {
    setFlagsFromString('--expose-gc');
    const collect = runInNewContext('gc') as () => void;
    const step = setUp(layout, inOrder);
    for (let i = 0; i < REQUESTS; i += 1) step(); // until it is compiled
    const grown: number[] = [];
    for (let round = 0; round < 4; round += 1) {
      collect();
      const before = process.memoryUsage().heapUsed;
      for (let i = 0; i < REQUESTS; i += 1) step();
      grown.push((process.memoryUsage().heapUsed - before) / REQUESTS);
    }
    // A collection in a round makes it look better, so the worst is taken; code compiled late makes one worse.
    expect(grown.sort((a, b) => b - a)[1]).toBeLessThan(BYTES);
  });
