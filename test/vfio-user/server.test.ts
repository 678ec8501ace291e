// The vfio-user server against a client of our own: what QEMU sends is answered by the specification, and what no client
// should send ends the connection, or is refused, with no descriptor left.
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { closeFd, createEventfd, createMemfd, mapFile, readEventfd, unmapFile } from '../../src/native/index.ts';
import {
  DEVICE_INFO, DMA_MAP, DMA_UNMAP, ERRNO, HEADER_FLAG, IRQ_INFO, IRQ_SET, IRQ_SET_FLAG, REGION_ACCESS, REGION_INFO, VFIO_USER,
} from '../../src/vfio-user/protocol.ts';
import { VfioUserServer } from '../../src/vfio-user/index.ts';
import { VfioUserClient } from './client.ts';

const openFds = (): number => readdirSync('/proc/self/fd').length;

let directory: string;
let server: VfioUserServer;
let client: VfioUserClient;
let errors: Error[];
let resets: number;
let written: string[];
let before: number;

beforeEach(() => {
  before = openFds();
  directory = mkdtempSync(join(tmpdir(), 'vfio-user-'));
  [errors, resets, written] = [[], 0, []];
  const path = join(directory, 'sock');
  server = VfioUserServer.listen({
    path, onError: (error) => errors.push(error),
    function: {
      vectorCount: 3,
      reset: () => { resets += 1; },
      regions: [
        { sizeBytes: 4096, read: (offset, into) => into.fill(offset), write: (offset, bytes) => written.push(`${offset}: ${Buffer.from(bytes).toString('hex')}`) },
        undefined,
        { sizeBytes: 2 ** 33, read: (_, into) => into.fill(0xee) },
        undefined, undefined, undefined, undefined,
        { sizeBytes: 256, read: (_, into) => { if (into.length === 3) throw new RangeError('three bytes'); into.fill(1); } },
      ],
    },
  });
  client = new VfioUserClient(path);
});
afterEach(() => {
  client.close();
  server.close();
  rmSync(directory, { recursive: true });
  expect(openFds()).toBe(before);
});

const access = (region: number, offset: bigint, count: number, data: Uint8Array = new Uint8Array(0)): Uint8Array => Buffer.concat([REGION_ACCESS.encode({ region, offset, count }), data]);

describe('a client that keeps to the protocol', () => {
  beforeEach(async () => { await client.version(); });

  test('is told of the version, of what a message may carry, and of the device', async () => {
    const { payload, flags } = await client.version(0, '{"capabilities":{"max_msg_fds":8}}');
    expect(flags).toBe(HEADER_FLAG.REPLY);
    expect(JSON.parse(Buffer.from(payload.subarray(4, -1)).toString())).toEqual({ capabilities: { max_msg_fds: 16, max_data_xfer_size: 65536, max_dma_maps: 509, pgsizes: 4096 } });
    expect(DEVICE_INFO.decode((await client.ask(VFIO_USER.DEVICE_GET_INFO, DEVICE_INFO.encode({ argsz: 16 }))).payload)).toEqual({ argsz: 16, flags: 3, regionCount: 9, irqCount: 5 });
  });

  test.each([[0, 3, 4096n], [1, 0, 0n], [2, 1, 2n ** 33n], [7, 1, 256n], [8, 0, 0n]])('region %i has flags %i and %d bytes', async (index, flags, size) => {
    const { payload } = await client.ask(VFIO_USER.DEVICE_GET_REGION_INFO, REGION_INFO.encode({ argsz: 32, index }));
    expect(REGION_INFO.decode(payload)).toEqual({ argsz: 32, flags, index, capOffset: 0, size, offset: 0n });
  });

  test.each([[0, 0], [1, 0], [2, 3], [4, 0]])('interrupt %i has %i vectors', async (index, count) => {
    const { payload } = await client.ask(VFIO_USER.DEVICE_GET_IRQ_INFO, IRQ_INFO.encode({ argsz: 16, index }));
    expect(IRQ_INFO.decode(payload)).toMatchObject({ index, count, flags: count > 0 ? 1 : 0 });
  });

  test('reads and writes regions; what is written to a read-only one is dropped', async () => {
    const { payload } = await client.ask(VFIO_USER.REGION_READ, access(0, 0x12n, 2));
    expect([...payload.subarray(REGION_ACCESS.sizeBytes)]).toEqual([0x12, 0x12]);
    expect((await client.ask(VFIO_USER.REGION_WRITE, access(0, 8n, 4, Uint8Array.of(1, 2, 3, 4)))).flags).toBe(HEADER_FLAG.REPLY);
    expect((await client.ask(VFIO_USER.REGION_WRITE, access(2, 2n ** 33n - 4n, 4, Uint8Array.of(1, 2, 3, 4)))).flags).toBe(HEADER_FLAG.REPLY);
    expect(written).toEqual(['8: 01020304']);
    await client.ask(VFIO_USER.DEVICE_RESET);
    expect(resets).toBe(1);
  });

  test('a command in pieces of one byte is one command, and those behind it are answered in order', async () => {
    const first = VfioUserClient.message(VFIO_USER.REGION_READ, access(0, 1n, 1), { messageId: 41 });
    for (const byte of first) client.send(Uint8Array.of(byte));
    client.send(Buffer.concat([VfioUserClient.message(VFIO_USER.DEVICE_RESET, new Uint8Array(0), { messageId: 42, flags: HEADER_FLAG.NO_REPLY }), VfioUserClient.message(VFIO_USER.REGION_READ, access(0, 2n, 1), { messageId: 43 })]));
    expect([await client.reply(), await client.reply()].map(({ messageId, payload }) => [messageId, payload.at(-1)])).toEqual([[41, 1], [43, 2]]);
    expect(resets).toBe(1);
  });

  test('vectors signal the eventfds that it gives, and nobody when it takes them back', async () => {
    const fds = [createEventfd(), createEventfd()];
    const assign = (start: number, count: number, given: readonly number[]): Promise<{ error: number }> =>
      client.ask(VFIO_USER.DEVICE_SET_IRQS, IRQ_SET.encode({ argsz: 20, flags: IRQ_SET_FLAG.DATA_EVENTFD | IRQ_SET_FLAG.TRIGGER, index: 2, start, count }), given);
    expect((await assign(1, 2, fds)).error).toBe(0);
    expect([server.signal(0), server.signal(1), server.signal(2), server.signal(2)]).toEqual([false, true, true, true]);
    expect(fds.map(readEventfd)).toEqual([1, 2]);
    await assign(1, 1, []);
    expect([server.signal(1), server.signal(2)]).toEqual([false, true]);
    await client.ask(VFIO_USER.DEVICE_SET_IRQS, IRQ_SET.encode({ argsz: 20, flags: IRQ_SET_FLAG.DATA_NONE | IRQ_SET_FLAG.TRIGGER, index: 2 }));
    expect(server.signal(2)).toBe(false);
    fds.forEach(closeFd);
  });

  test('its memory is seen through what it maps, and no more when it is taken back', async () => {
    const fd = createMemfd('guest', 1 << 16);
    const map = (address: bigint, size: bigint): Promise<{ error: number }> => client.ask(VFIO_USER.DMA_MAP, DMA_MAP.encode({ argsz: 32, flags: 3, offset: 4096n, address, size }), [fd]);
    expect((await map(0x10_0000n, 8192n)).error).toBe(0);
    const mine = mapFile(fd, 0, 1 << 16);
    new Uint8Array(mine)[4096 + 5] = 0x77;
    expect(server.memory.spans(0x10_0005, 1)?.[0]?.[0]).toBe(0x77);
    expect((await map(0x10_1000n, 8192n)).error).toBe(ERRNO.EEXIST);
    const unmap = DMA_UNMAP.encode({ argsz: 24, address: 0x10_0000n, size: 8192n });
    expect((await client.ask(VFIO_USER.DMA_UNMAP, unmap)).payload).toEqual(unmap);
    expect(server.memory.spans(0x10_0005, 1)).toBeUndefined();
    expect((await client.ask(VFIO_USER.DMA_UNMAP, unmap)).error).toBe(ERRNO.EINVAL);
    unmapFile(mine);
    closeFd(fd);
  });

  test('memory without a descriptor is another device\'s: it maps to nothing, and is taken back', async () => {
    const at = { address: 0xfe00_0000n, size: 4096n };
    expect((await client.ask(VFIO_USER.DMA_MAP, DMA_MAP.encode({ argsz: 32, flags: 1, ...at }))).error).toBe(0);
    expect(server.memory.spans(0xfe00_0000, 1)).toBeUndefined();
    expect((await client.ask(VFIO_USER.DMA_UNMAP, DMA_UNMAP.encode({ argsz: 24, ...at }))).error).toBe(0);
  });

  test('the next client is served when it has left, with nothing of its own kept; a second one beside it is turned away', async () => {
    const other = new VfioUserClient(join(directory, 'sock'));
    await other.end();
    other.close();
    const fd = createEventfd();
    await client.ask(VFIO_USER.DEVICE_SET_IRQS, IRQ_SET.encode({ argsz: 20, flags: IRQ_SET_FLAG.DATA_EVENTFD | IRQ_SET_FLAG.TRIGGER, index: 2, count: 1 }), [fd]);
    closeFd(fd);
    client.close();
    for (let turn = 0; server.connected && turn < 1000; turn += 1) await new Promise((resolve) => { setImmediate(resolve); });
    expect([server.connected, server.signal(0), errors]).toEqual([false, false, []]);
    client = new VfioUserClient(join(directory, 'sock'));
    expect((await client.version()).flags).toBe(HEADER_FLAG.REPLY);
  });
});

describe('what is asked wrongly is refused, and the connection goes on', () => {
  beforeEach(async () => { await client.version(); });

  test.each<[string, number, Uint8Array, number]>([
    ['a command that the server has not', VFIO_USER.DEVICE_FEATURE, new Uint8Array(8), ERRNO.ENOTSUP],
    ['one that nobody has', 999, new Uint8Array(0), ERRNO.ENOTSUP],
    ['a read across the region\'s end', VFIO_USER.REGION_READ, access(0, 4095n, 2), ERRNO.EINVAL],
    ['an offset that overflows', VFIO_USER.REGION_READ, access(0, 2n ** 64n - 1n, 2), ERRNO.EINVAL],
    ['a region that is not there', VFIO_USER.REGION_READ, access(1, 0n, 1), ERRNO.EINVAL],
    ['a region beyond all', VFIO_USER.REGION_WRITE, access(0xffff_ffff, 0n, 0), ERRNO.EINVAL],
    ['more data than a message may have', VFIO_USER.REGION_READ, access(2, 0n, 65537), ERRNO.EINVAL],
    ['a write shorter than it says', VFIO_USER.REGION_WRITE, access(0, 0n, 4, Uint8Array.of(1)), ERRNO.EINVAL],
    ['information on region 9', VFIO_USER.DEVICE_GET_REGION_INFO, REGION_INFO.encode({ index: 9 }), ERRNO.EINVAL],
    ['information on interrupt 5', VFIO_USER.DEVICE_GET_IRQ_INFO, IRQ_INFO.encode({ index: 5 }), ERRNO.EINVAL],
    ['vectors beyond the last', VFIO_USER.DEVICE_SET_IRQS, IRQ_SET.encode({ flags: 0x21, index: 2, start: 2, count: 2 }), ERRNO.EINVAL],
    ['INTx, which it has not', VFIO_USER.DEVICE_SET_IRQS, IRQ_SET.encode({ flags: 0x21, index: 0 }), ERRNO.EINVAL],
    ['a mask, which it does not take', VFIO_USER.DEVICE_SET_IRQS, IRQ_SET.encode({ flags: 0x9, index: 2, count: 1 }), ERRNO.EINVAL],
  ])('%s', async (_, command, payload, errno) => {
    const { flags, error, payload: replied } = await client.ask(command, payload);
    expect([flags, error, replied.length]).toEqual([HEADER_FLAG.REPLY | HEADER_FLAG.ERROR, errno, 0]);
    expect((await client.ask(VFIO_USER.REGION_READ, access(0, 0n, 1))).error).toBe(0);
    expect(errors).toEqual([]);
  });

  test.each<[string, () => number, number]>([
    ['a descriptor that is no eventfd', () => createMemfd('none', 4096), 1],
    ['fewer eventfds than vectors', createEventfd, 2],
  ])('%s', async (_, make, count) => {
    const fd = make();
    const { error } = await client.ask(VFIO_USER.DEVICE_SET_IRQS, IRQ_SET.encode({ flags: IRQ_SET_FLAG.DATA_EVENTFD | IRQ_SET_FLAG.TRIGGER, index: 2, count }), [fd]);
    closeFd(fd);
    expect([error, server.signal(0)]).toEqual([ERRNO.EINVAL, false]);
  });

  test.each([['of no byte', 0n, 0n], ['beyond 2^53', 2n ** 60n, 4096n], ['larger than its file', 0n, 2n ** 40n]])('memory %s', async (_, address, size) => {
    const fd = createMemfd('guest', 4096);
    const { error } = await client.ask(VFIO_USER.DMA_MAP, DMA_MAP.encode({ argsz: 32, flags: 3, address, size }), [fd]);
    closeFd(fd);
    expect([error, server.memory.spans(Number(address), 1)]).toEqual([ERRNO.EINVAL, undefined]);
  });
});

describe('what breaks the protocol ends the connection, and is told', () => {
  test.each<[string, Uint8Array, RegExp]>([
    ['a command before VFIO_USER_VERSION', VfioUserClient.message(VFIO_USER.DEVICE_RESET, new Uint8Array(0)), /command 13 before VFIO_USER_VERSION/],
    ['another major version', VfioUserClient.message(VFIO_USER.VERSION, Uint8Array.of(1, 0, 0, 0)), /speaks version 1\.0/],
    ['a version without a version', VfioUserClient.message(VFIO_USER.VERSION, new Uint8Array(2)), /VFIO_USER_VERSION is 4 bytes, and 2 are there/],
    ['a reply', VfioUserClient.message(VFIO_USER.VERSION, new Uint8Array(4), { flags: HEADER_FLAG.REPLY }), /sent a reply/],
    ['a message shorter than its header', VfioUserClient.message(VFIO_USER.VERSION, new Uint8Array(0), { sizeBytes: 15 }), /a message of 15 bytes/],
    ['a message of 4 GiB', VfioUserClient.message(VFIO_USER.VERSION, new Uint8Array(0), { sizeBytes: 0xffff_ffff }), /a message of 4294967295 bytes/],
  ])('%s', async (_, bytes, words) => {
    client.send(bytes);
    await client.end();
    expect(errors.map(({ message }) => message)).toEqual([expect.stringMatching(words)]);
  });

  test('more descriptors than a message may have: none of them is kept', async () => {
    const fds = Array.from({ length: 17 }, createEventfd);
    client.send(VfioUserClient.message(VFIO_USER.VERSION, new Uint8Array(4)), fds);
    await client.end();
    fds.forEach(closeFd);
    expect(errors.map(({ message }) => message)).toEqual([expect.stringMatching(/more descriptors came than the 16/)]);
  });

  test('a client that hangs up within a message', async () => {
    client.send(VfioUserClient.message(VFIO_USER.VERSION, new Uint8Array(4)).subarray(0, 18));
    client.close();
    for (let turn = 0; errors.length === 0 && turn < 1000; turn += 1) await new Promise((resolve) => { setImmediate(resolve); });
    expect(errors.map(({ message }) => message)).toEqual([expect.stringMatching(/hung up within a message, after 18 bytes/)]);
    client = new VfioUserClient(join(directory, 'sock'));
  });

  test('the function\'s own code throws', async () => {
    await client.version();
    client.send(VfioUserClient.message(VFIO_USER.REGION_READ, access(7, 0n, 3)));
    await client.end();
    expect(errors.map(({ message }) => message)).toEqual(['three bytes']);
  });
});
