import { readdirSync, readFileSync } from 'node:fs';
import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { ProtocolError } from '../../src/errors.ts';
import { decodePayload, decodeRequestHeader, encodeMessage, HEADER_BYTES } from '../../src/vhost-user/codec.ts';
import {
  configHeader, header, HEADER_FLAGS, inflightDescription, logDescription, memoryRegion, memoryTable, OPAQUE_BYTES_MAX, u64Payload, vringAddress, vringState,
} from '../../src/vhost-user/protocol.ts';
import { REQUESTS } from '../../src/vhost-user/requests.ts';
import type { PayloadKind, RequestName, RequestSpec } from '../../src/vhost-user/requests.ts';

const specs = Object.entries(REQUESTS) as [RequestName, RequestSpec][];

describe('layouts', () => {
  test('sizes and offsets are those of QEMU’s structures', () => {
    const shape = ({ sizeBytes, fields }: { sizeBytes: number; fields: Record<string, { offset: number; widthBytes: number }> }): unknown[] =>
      [sizeBytes, ...Object.entries(fields).map(([name, { offset, widthBytes }]) => `${name}@${offset}:${widthBytes}`)];
    expect(shape(header)).toEqual([12, 'request@0:4', 'flags@4:4', 'size@8:4']);
    expect(shape(u64Payload)).toEqual([8, 'value@0:8']);
    expect(shape(vringState)).toEqual([8, 'index@0:4', 'num@4:4']);
    expect(shape(vringAddress)).toEqual([40, 'index@0:4', 'flags@4:4', 'descriptor@8:8', 'used@16:8', 'available@24:8', 'log@32:8']);
    expect(shape(memoryTable)).toEqual([8, 'count@0:4', 'padding@4:4']);
    expect(shape(memoryRegion)).toEqual([32, 'guestAddress@0:8', 'size@8:8', 'userAddress@16:8', 'mmapOffset@24:8']);
    expect(shape(configHeader)).toEqual([12, 'offset@0:4', 'size@4:4', 'flags@8:4']);
    expect(shape(logDescription)).toEqual([16, 'size@0:8', 'offset@8:8']);
    expect(shape(inflightDescription)).toEqual([24, 'mmapSize@0:8', 'mmapOffset@8:8', 'queueCount@16:2', 'queueSize@18:2']);
  });
});

// What QEMU really sent: test/fixtures/README.md.
const fixtures = new URL('../fixtures/vhost-user/', import.meta.url);
describe.each(readdirSync(fixtures))('a plug and unplug as recorded in %s', (file) => {
  const messages = readFileSync(new URL(file, fixtures), 'utf8').trim().split('\n').map((line) => line.split(' ') as [RequestName, string, string]);

  test('every message decodes to what it is, and encodes to the same bytes', () => {
    expect(messages.length).toBeGreaterThan(20);
    for (const [name, fds, hex] of messages) {
      const bytes = Buffer.from(hex, 'hex');
      const decoded = decodeRequestHeader(bytes.subarray(0, HEADER_BYTES));
      expect(decoded.name).toBe(name);
      expect(bytes.length).toBe(HEADER_BYTES + decoded.sizeBytes);
      expect(Number(fds)).toBeLessThanOrEqual(decoded.spec.fdCountMax ?? 0);
      const payload = decodePayload(name, bytes.subarray(HEADER_BYTES));
      const kind = decoded.spec.payload;
      const again = encodeMessage(decoded.spec.id, decoded.needReply ? HEADER_FLAGS.NEED_REPLY : 0, kind, payload as never);
      expect(Buffer.from(again).toString('hex')).toBe(hex);
    }
  });
});

describe('messages that are none', () => {
  const encodeHeader = (request: number, flags: number, size: number): Uint8Array => header.encode({ request, flags, size });

  test.each([
    ['an unknown request of a version of its own', encodeHeader(99, 2, 0), 'message 99 is of version 2'],
    ['an unknown request as a reply', encodeHeader(99, 5, 0), 'message 99 as a reply'],
    ['an unknown request that is too long', encodeHeader(99, 1, OPAQUE_BYTES_MAX + 1), 'message 99 with 4097 bytes of payload, not 0 to 4096'],
    ['version 0', encodeHeader(1, 0, 0), 'is of version 0, not 1'],
    ['version 2', encodeHeader(1, 2, 0), 'is of version 2'],
    ['a reply', encodeHeader(1, 5, 0), 'GET_FEATURES as a reply'],
    ['a payload where none belongs', encodeHeader(1, 1, 8), 'GET_FEATURES with 8 bytes of payload, not 0'],
    ['a u64 of 4 bytes', encodeHeader(2, 1, 4), 'SET_FEATURES with 4 bytes of payload, not 8'],
    ['a memory table of 9 regions', encodeHeader(5, 1, 8 + 9 * 32), 'not 8 to 264'],
    ['a size of 4 GiB', encodeHeader(24, 1, 0xffffffff), 'GET_CONFIG with 4294967295 bytes'],
  ])('%s is a ProtocolError that says so', (_name, bytes, said) => {
    expect(() => decodeRequestHeader(bytes)).toThrow(ProtocolError);
    expect(() => decodeRequestHeader(bytes)).toThrow(said);
  });

  test.each([
    ['two regions in the room of one', 'SET_MEM_TABLE', Buffer.concat([memoryTable.encode({ count: 2 }), new Uint8Array(32)]), 'SET_MEM_TABLE of 2 regions in 40 bytes, not 72'],
    ['a region count of 2^32 - 1', 'SET_MEM_TABLE', Buffer.concat([memoryTable.encode({ count: 0xffffffff }), new Uint8Array(32)]), 'of 4294967295 regions'],
    ['config bytes that are not there', 'GET_CONFIG', Buffer.concat([configHeader.encode({ size: 9 }), new Uint8Array(8)]), 'GET_CONFIG of 9 bytes with 8'],
    ['config beyond its space', 'SET_CONFIG', Buffer.concat([configHeader.encode({ offset: 250, size: 8 }), new Uint8Array(8)]), '8 bytes at 250'],
    ['config at 2^32 - 1', 'GET_CONFIG', Buffer.concat([configHeader.encode({ offset: 0xffffffff, size: 1 }), new Uint8Array(1)]), 'config space has at most 256'],
  ] as const)('%s', (_name, name, bytes, said) => {
    expect(() => decodePayload(name, bytes)).toThrow(ProtocolError);
    expect(() => decodePayload(name, bytes)).toThrow(said);
  });

  test('whatever the bytes, decoding gives a message or a ProtocolError', () => {
    const ids = specs.map(([, { id }]) => id);
    fc.assert(fc.property(
      fc.oneof(fc.constantFrom(...ids), fc.nat()), fc.nat(31), fc.oneof(fc.nat(300), fc.nat()), fc.uint8Array({ maxLength: 300 }),
      (request, flags, size, body) => {
        try {
          const { name, sizeBytes } = decodeRequestHeader(encodeHeader(request, flags, size));
          if (body.length >= sizeBytes) decodePayload(name, body.subarray(0, sizeBytes));
        } catch (error) {
          expect(error).toBeInstanceOf(ProtocolError);
        }
      },
    ), { numRuns: 500 });
  });

  test('what was encoded decodes to the same', () => {
    const u32 = fc.integer({ min: 0, max: 0xffffffff });
    const u64 = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n });
    const payloads = {
      empty: fc.constant(undefined),
      u64,
      vringState: fc.record({ index: u32, num: u32 }),
      vringAddress: fc.record({ index: u32, flags: u32, descriptor: u64, used: u64, available: u64, log: u64 }),
      memoryTable: fc.array(fc.record({ guestAddress: u64, size: u64, userAddress: u64, mmapOffset: u64 }), { maxLength: 8 }),
      memoryRegion: fc.record({ guestAddress: u64, size: u64, userAddress: u64, mmapOffset: u64 }),
      log: fc.record({ size: u64, offset: u64 }),
      inflight: fc.record({ mmapSize: u64, mmapOffset: u64, queueCount: fc.nat(0xffff), queueSize: fc.nat(0xffff) }),
      opaque: fc.uint8Array({ maxLength: 200 }),
      config: fc.record({ offset: fc.nat(128), flags: u32, bytes: fc.uint8Array({ maxLength: 128 }) }),
    } satisfies Record<PayloadKind, fc.Arbitrary<unknown>>;
    for (const [name, { id, payload: kind }] of specs) {
      fc.assert(fc.property(payloads[kind] as fc.Arbitrary<never>, (payload) => {
        const bytes = encodeMessage(id, 0, kind, payload);
        const decoded = decodeRequestHeader(bytes.subarray(0, HEADER_BYTES));
        expect(decoded).toMatchObject({ name, needReply: false, sizeBytes: bytes.length - HEADER_BYTES });
        expect(decodePayload(name, bytes.subarray(HEADER_BYTES))).toEqual(payload);
      }), { numRuns: 20 });
    }
  });
});
