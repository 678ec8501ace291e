// A front end that breaks the protocol, by table and at random: the session ends with a ProtocolError,
// the process does not, every descriptor is closed, and the next front end is served.
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { ProtocolError } from '../../src/errors.ts';
import { closeFd, createMemfd, socketPair } from '../../src/native/index.ts';
import { encodeMessage } from '../../src/vhost-user/codec.ts';
import type { PayloadOf } from '../../src/vhost-user/codec.ts';
import { VhostUserBackend } from '../../src/vhost-user/index.ts';
import { header, HEADER_FLAGS } from '../../src/vhost-user/protocol.ts';
import { REQUESTS } from '../../src/vhost-user/requests.ts';
import type { RequestName } from '../../src/vhost-user/requests.ts';
import { within } from '../../src/wait.ts';
import { openDescriptors } from '../native/open-descriptors.ts';
import { EchoDevice } from './echo-device.ts';
import { FrontEnd, GUEST_BASE, MEMORY_BYTES, USER_BASE } from './front-end.ts';

let directory = '';
let before: string[] = [];
let device: EchoDevice;
let backend: VhostUserBackend;
let errors: Error[] = [];

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'vhost-'));
  before = openDescriptors();
  errors = [];
  device = new EchoDevice();
  backend = VhostUserBackend.listen({ path: join(directory, 's'), device, onError: (error) => errors.push(error), drainTimeoutMs: 50 });
});
afterEach(async () => {
  await backend.close();
  rmSync(directory, { recursive: true });
  expect(openDescriptors()).toEqual(before);
  expect(readFileSync('/proc/self/maps', 'utf8')).not.toMatch(/memfd:(guest|tiny|inflight)/);
});

async function sessionEnd(): Promise<void> {
  const ended = (async () => {
    while (backend.connected) await new Promise((resolve) => setImmediate(resolve));
  })();
  await within(ended, { timeoutMs: 2000, what: 'the session to end' });
}

async function serves(): Promise<boolean> {
  const frontEnd = new FrontEnd(backend.path);
  try {
    const ring = await frontEnd.start();
    ring.driver.submitOne('still here');
    await frontEnd.signalled(ring.callFd);
    return ring.driver.collect().length === 1;
  } finally {
    frontEnd.close();
    await sessionEnd();
  }
}

type Region = PayloadOf<'SET_MEM_TABLE'>[number];
const region = (changed: Partial<Region> = {}): Region => ({
  guestAddress: BigInt(GUEST_BASE), size: BigInt(MEMORY_BYTES), userAddress: BigInt(USER_BASE), mmapOffset: 0n, ...changed,
});

/** What a front end does wrong, after it negotiated and shared its memory. */
const offences: readonly [string, (frontEnd: FrontEnd) => void | Promise<void>, string][] = [
  ['a feature that was not offered', (f) => f.send('SET_FEATURES', 1n << 34n), '0x400000000, which was not offered'],
  ['a protocol feature that was not offered', (f) => f.send('SET_PROTOCOL_FEATURES', 1n << 8n), 'SET_PROTOCOL_FEATURES accepts 0x100'],
  ['a message of a protocol feature it gave up', (f) => {
    f.send('SET_PROTOCOL_FEATURES', 0n);
    f.send('GET_QUEUE_NUM', undefined);
  }, 'GET_QUEUE_NUM without the protocol feature MQ'],
  ['a ring beyond the last', (f) => f.send('SET_VRING_NUM', { index: 2, num: 8 }), 'there is no ring 2: the device has 2'],
  ['a ring with index 2^32 - 1', (f) => f.send('GET_VRING_BASE', { index: 0xffffffff, num: 0 }), 'there is no ring 4294967295'],
  ['a queue size of 0', (f) => f.send('SET_VRING_NUM', { index: 0, num: 0 }), 'a power of two up to 256'],
  ['a queue size of 100', (f) => f.send('SET_VRING_NUM', { index: 0, num: 100 }), 'a power of two up to 256'],
  ['a queue size above the device’s', (f) => f.send('SET_VRING_NUM', { index: 0, num: 512 }), 'a power of two up to 256'],
  ['a queue size of 2^31', (f) => f.send('SET_VRING_NUM', { index: 0, num: 2 ** 31 }), 'a power of two'],
  ['a base above 16 bits', (f) => f.send('SET_VRING_BASE', { index: 0, num: 0x10000 }), 'an avail index has 16 bits'],
  ['an enable of 2', (f) => f.send('SET_VRING_ENABLE', { index: 0, num: 2 }), 'SET_VRING_ENABLE of ring 0 to 2'],
  ['a kick without a descriptor', (f) => f.send('SET_VRING_KICK', 0n), 'with 0 descriptors and the flag that there is one'],
  ['a kick that says it has none', (f) => f.send('SET_VRING_KICK', 0x100n), 'does not poll rings'],
  ['a kick that says it has none, and has', (f) => f.send('SET_VRING_KICK', 0x100n, { fds: [f.eventfd()] }), 'with 1 descriptors and the flag that there is none'],
  ['unknown bits beside a ring’s index', (f) => f.send('SET_VRING_CALL', 0x200n, { fds: [f.eventfd()] }), 'SET_VRING_CALL with unknown bits: 0x200'],
  ['a high bit beside a ring’s index', (f) => f.send('SET_VRING_CALL', 1n << 63n, { fds: [f.eventfd()] }), 'with unknown bits'],
  ['a kick that is a memory file', (f) => f.send('SET_VRING_KICK', 0n, { fds: [f.memory.fd] }), 'no eventfd'],
  ['a call that is a memory file', (f) => f.send('SET_VRING_CALL', 0n, { fds: [f.memory.fd] }), 'no eventfd'],
  ['two kicks in one message', (f) => f.send('SET_VRING_KICK', 0n, { fds: [f.eventfd(), f.eventfd()] }), 'SET_VRING_KICK with 2 descriptors: it carries at most 1'],
  ['descriptors where none belong', (f) => f.send('GET_FEATURES', undefined, { fds: [f.memory.fd] }), 'GET_FEATURES with 1 descriptors: it carries none'],
  ['forty descriptors', (f) => f.send('GET_FEATURES', undefined, { fds: Array.from({ length: 40 }, () => f.memory.fd) }), 'descriptors were lost'],
  ['a region without a descriptor', (f) => f.send('SET_MEM_TABLE', [region()]), 'of 1 regions with 0 descriptors'],
  ['a descriptor without a region', (f) => f.send('SET_MEM_TABLE', [], { fds: [f.memory.fd] }), 'of 0 regions with 1 descriptors'],
  ['a region that is no memory', (f) => f.send('SET_MEM_TABLE', [region({ guestAddress: 0n })], { fds: [f.eventfd()] }), 'ENODEV'],
  ['a region longer than its file', (f) => f.send('SET_MEM_TABLE', [region({ size: BigInt(MEMORY_BYTES) + 1n })], { fds: [f.memory.fd] }), 'ENXIO'],
  ['an empty region', (f) => f.send('SET_MEM_TABLE', [region({ size: 0n })], { fds: [f.memory.fd] }), 'region 0 of SET_MEM_TABLE is empty'],
  ['a region that wraps around 2^64', (f) => f.send('SET_MEM_TABLE', [region({ guestAddress: 2n ** 64n - 8n })], { fds: [f.memory.fd] }), 'ends beyond 2^53'],
  ['a region of 2^64 - 1 bytes', (f) => f.send('SET_MEM_TABLE', [region({ size: 2n ** 64n - 1n })], { fds: [f.memory.fd] }), 'ends beyond 2^53'],
  ['an unaligned region', (f) => f.send('SET_MEM_TABLE', [region({ mmapOffset: 4n, size: 4096n })], { fds: [f.memory.fd] }), 'does not start at a multiple of 8'],
  ['regions that overlap in the guest', (f) => f.send('SET_MEM_TABLE',
    [region({ size: 8192n }), region({ guestAddress: BigInt(GUEST_BASE + 4096), size: 4096n, userAddress: 0n })],
    { fds: [f.memory.fd, f.memory.fd] }), 'overlap at guestAddress'],
  ['regions that overlap in the front end', (f) => f.send('SET_MEM_TABLE',
    [region({ size: 8192n }), region({ guestAddress: 0n, size: 4096n, userAddress: BigInt(USER_BASE + 4096) })],
    { fds: [f.memory.fd, f.memory.fd] }), 'overlap at userAddress'],
  ['a ring outside of its memory', (f) => {
    const ring = f.prepareRing(0);
    f.send('SET_VRING_ADDR', { ...f.addresses(ring), used: 0x1000n });
    f.send('SET_VRING_KICK', 0n, { fds: [ring.kickFd] });
  }, 'the used ring of ring 0, 0x1000, is not in a region'],
  ['a new size for a running ring', async (f) => {
    const ring = f.prepareRing(0);
    await f.startRing(ring);
    f.send('SET_VRING_NUM', { index: 0, num: 16 });
  }, 'SET_VRING_NUM of ring 0 while it runs'],
  ['a new base for a running ring', async (f) => {
    await f.startRing(f.prepareRing(0));
    f.send('SET_VRING_BASE', { index: 0, num: 3 });
  }, 'SET_VRING_BASE of ring 0 while it runs'],
  ['other addresses for a running ring', async (f) => {
    const ring = f.prepareRing(0);
    await f.startRing(ring);
    f.send('SET_VRING_ADDR', { ...f.addresses(ring), used: BigInt(USER_BASE) });
  }, 'SET_VRING_ADDR of ring 0 while it runs'],
  ['a back-end channel without a socket', (f) => f.send('SET_BACKEND_REQ_FD', undefined), 'SET_BACKEND_REQ_FD without a descriptor'],
  ['a back-end channel that is a memory file', (f) => f.send('SET_BACKEND_REQ_FD', undefined, { fds: [f.memory.fd] }), 'SET_BACKEND_REQ_FD came with a descriptor that is no socket'],
  ['a region to add without a descriptor', (f) => f.send('ADD_MEM_REG', region({ guestAddress: 0n, userAddress: 0n })), 'ADD_MEM_REG without a descriptor'],
  ['a region to add that overlaps', (f) => f.send('ADD_MEM_REG', region({ size: 4096n }), { fds: [f.memory.fd] }), 'regions of ADD_MEM_REG overlap at guestAddress'],
  ['a region to add that is too long', (f) => f.send('ADD_MEM_REG', region({ guestAddress: 0n, size: 2n ** 40n }), { fds: [f.memory.fd] }), 'ADD_MEM_REG cannot be mapped'],
  ['a region to remove that is not there', (f) => f.send('REM_MEM_REG', region({ size: 4096n })), 'REM_MEM_REG of a region that is not there'],
  ['an in-flight file for more queues than there are', (f) => f.send('GET_INFLIGHT_FD', { mmapSize: 0n, mmapOffset: 0n, queueCount: 3, queueSize: 8 }), 'GET_INFLIGHT_FD for 3 queues'],
  ['an in-flight area without a file', (f) => f.send('SET_INFLIGHT_FD', { mmapSize: 4096n, mmapOffset: 0n, queueCount: 1, queueSize: 8 }), 'SET_INFLIGHT_FD without a descriptor'],
  ['an in-flight area that is too small', (f) => f.send('SET_INFLIGHT_FD', { mmapSize: 100n, mmapOffset: 0n, queueCount: 1, queueSize: 8 }, { fds: [f.memory.fd] }), 'which take 192'],
  ['an in-flight area longer than its file', (f) => f.send('SET_INFLIGHT_FD', { mmapSize: BigInt(MEMORY_BYTES), mmapOffset: 4096n, queueCount: 1, queueSize: 8 }, { fds: [f.memory.fd] }), 'SET_INFLIGHT_FD cannot be mapped'],
  ['a log without a file', (f) => f.send('SET_LOG_BASE', { size: 4096n, offset: 0n }), 'SET_LOG_BASE without a descriptor'],
  ['a log longer than its file', (f) => f.send('SET_LOG_BASE', { size: BigInt(MEMORY_BYTES), offset: 4096n }, { fds: [f.memory.fd] }), 'SET_LOG_BASE cannot be mapped'],
  ['an empty log', (f) => f.send('SET_LOG_BASE', { size: 0n, offset: 0n }, { fds: [f.memory.fd] }), 'SET_LOG_BASE of 0 bytes'],
  ['a log of 2^64 - 1 bytes', (f) => f.send('SET_LOG_BASE', { size: 2n ** 64n - 1n, offset: 0n }, { fds: [f.memory.fd] }), 'SET_LOG_BASE of 18446744073709551615 bytes'],
  ['a log event that is a memory file', (f) => f.send('SET_LOG_FD', undefined, { fds: [f.memory.fd] }), 'SET_LOG_FD came with a descriptor that is no eventfd'],
  ['a log event without a descriptor', (f) => f.send('SET_LOG_FD', undefined), 'SET_LOG_FD without a descriptor'],
  ['an unknown message', (f) => f.raw(header.encode({ request: 77, flags: 1, size: 0 })), 'message 77'],
  ['rubbish', (f) => f.raw(new Uint8Array(64).fill(0xff), [f.memory.fd]), 'is of version 3'],
];

describe('an offence', () => {
  test.each(offences)('%s ends the session with a ProtocolError that names it', async (_name, offend, said) => {
    const frontEnd = new FrontEnd(backend.path);
    await frontEnd.negotiate();
    await frontEnd.shareMemory();
    await offend(frontEnd);
    await frontEnd.closed();
    frontEnd.close();
    await sessionEnd();
    expect(errors).toHaveLength(1);
    expect(errors[0]).toBeInstanceOf(ProtocolError);
    expect(errors[0]?.message).toContain(said);
    expect(device.resets).toBeGreaterThan(0);
    expect(await serves()).toBe(true);
  });

  test('with NEED_REPLY it is refused by a non-zero answer before the end', async () => {
    const frontEnd = new FrontEnd(backend.path);
    await frontEnd.negotiate();
    const { value } = await frontEnd.ask('SET_MEM_TABLE', [region({ size: 2n ** 40n })], { fds: [frontEnd.memory.fd], needReply: true });
    expect(value).toBe(1n);
    await frontEnd.closed();
    frontEnd.close();
    await sessionEnd();
  });

  test('a front end that hangs up within a message is a ProtocolError, and its descriptors are closed', async () => {
    const frontEnd = new FrontEnd(backend.path);
    await frontEnd.ask('GET_FEATURES', undefined);
    frontEnd.raw(encodeMessage(REQUESTS.SET_MEM_TABLE.id, 0, 'memoryTable', [region()]).subarray(0, 20), [frontEnd.memory.fd]);
    frontEnd.close();
    await sessionEnd();
    expect(errors.map(String).join()).toContain('hung up within a message, after 20 bytes');
  });
});

describe('pieces', () => {
  test('a message that comes byte by byte is one message, with the descriptor of its first byte', async () => {
    const frontEnd = new FrontEnd(backend.path);
    await frontEnd.negotiate();
    const bytes = encodeMessage(REQUESTS.SET_MEM_TABLE.id, HEADER_FLAGS.NEED_REPLY, 'memoryTable', [region()]);
    bytes.forEach((_, i) => frontEnd.raw(bytes.subarray(i, i + 1), i === 0 ? [frontEnd.memory.fd] : []));
    expect((await frontEnd.reply()).value).toBe(0n);
    expect(errors).toEqual([]);
    frontEnd.close();
    await sessionEnd();
  });

  test('two messages in one write are two messages', async () => {
    const frontEnd = new FrontEnd(backend.path);
    const ask = encodeMessage(REQUESTS.GET_FEATURES.id, 0, 'empty', undefined);
    frontEnd.raw(Buffer.concat([ask, ask, ask]));
    for (let i = 0; i < 3; i++) expect((await frontEnd.reply()).request).toBe(1);
    frontEnd.close();
    await sessionEnd();
  });
});

describe('at random', () => {
  const small = fc.nat(3);
  const anyU64 = fc.oneof(fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }), fc.constantFrom(0n, 1n, 0x100n, 2n ** 63n, BigInt(GUEST_BASE), BigInt(USER_BASE)));
  const payloads = {
    empty: fc.constant(undefined),
    u64: anyU64,
    vringState: fc.record({ index: small, num: fc.oneof(small, fc.constantFrom(8, 256, 0x10000)) }),
    vringAddress: fc.record({ index: small, flags: small, descriptor: anyU64, used: anyU64, available: anyU64, log: anyU64 }),
    memoryTable: fc.array(fc.record({ guestAddress: anyU64, size: fc.oneof(anyU64, fc.constant(4096n)), userAddress: anyU64, mmapOffset: fc.constantFrom(0n, 4096n, 8n) }), { maxLength: 8 }),
    memoryRegion: fc.record({ guestAddress: anyU64, size: fc.oneof(anyU64, fc.constant(4096n)), userAddress: anyU64, mmapOffset: fc.constantFrom(0n, 4096n, 8n) }),
    log: fc.record({ size: fc.oneof(anyU64, fc.constantFrom(64n, 4096n)), offset: fc.constantFrom(0n, 8n, 4096n, 2n ** 63n) }),
    inflight: fc.record({
      mmapSize: fc.oneof(anyU64, fc.constantFrom(4096n, 8192n)), mmapOffset: fc.constantFrom(0n, 8n, 2n ** 63n),
      queueCount: fc.constantFrom(0, 1, 2, 3, 0xffff), queueSize: fc.constantFrom(0, 1, 8, 256, 0xffff),
    }),
    opaque: fc.uint8Array({ maxLength: 64 }),
    config: fc.record({ offset: fc.nat(200), flags: small, bytes: fc.uint8Array({ maxLength: 56 }) }),
  };
  const message = fc.constantFrom(...(Object.keys(REQUESTS) as RequestName[])).chain((name) => fc.record({
    name: fc.constant(name),
    payload: payloads[REQUESTS[name].payload] as fc.Arbitrary<never>,
    fds: fc.array(fc.constantFrom('memory', 'event', 'socket', 'small'), { maxLength: 3 }),
    needReply: fc.boolean(),
    cut: fc.option(fc.nat(40), { freq: 20 }),
  }));

  test('no sequence of messages crashes, hangs or leaks', async () => {
    const idle = openDescriptors();
    await fc.assert(fc.asyncProperty(fc.boolean(), fc.array(message, { minLength: 1, maxLength: 12 }), async (started, messages) => {
      const frontEnd = new FrontEnd(backend.path);
      const [a, b] = socketPair();
      const tiny = createMemfd('tiny', 64);
      const pick = { memory: frontEnd.memory.fd, event: frontEnd.eventfd(), socket: a, small: tiny };
      try {
        if (started) await frontEnd.start();
        else await frontEnd.ask('GET_FEATURES', undefined);
        for (const { name, payload, fds, needReply, cut } of messages) {
          const { id, payload: kind } = REQUESTS[name];
          const bytes = encodeMessage(id, needReply ? HEADER_FLAGS.NEED_REPLY : 0, kind, payload);
          frontEnd.raw(bytes.subarray(0, cut === null ? bytes.length : Math.max(1, cut)), fds.map((kind_) => pick[kind_ as keyof typeof pick]));
        }
        await new Promise((resolve) => setImmediate(resolve));
      } catch (error) {
        // The back end hung up on it: what is left cannot be sent.
        expect(String(error)).toMatch(/EPIPE|ECONNRESET|hung up/);
      } finally {
        for (const fd of [a, b, tiny]) closeFd(fd);
        frontEnd.close();
      }
      await sessionEnd();
      expect(openDescriptors()).toEqual(idle);
    }), { numRuns: 150 });
    for (const error of errors) expect(error).toBeInstanceOf(ProtocolError);
    expect(await serves()).toBe(true);
  });
});
