// Bytes to vhost-user messages and back, with exact size checks. Syntax only: whether a message makes
// sense now is the session's to say.
import { ProtocolError } from '../errors.ts';
import type { Decoded } from '../bytes/layout.ts';
import {
  CONFIG_SIZE_MAX, configHeader, header, HEADER_FLAGS, MEMORY_REGIONS_MAX, memoryRegion, memoryTable, REQUESTS, u64Payload,
  vringAddress, vringState,
} from './protocol.ts';
import type { PayloadKind, RequestName, RequestSpec } from './protocol.ts';

export const HEADER_BYTES = header.sizeBytes;

export interface ConfigAccess {
  readonly offset: number;
  readonly flags: number;
  readonly bytes: Uint8Array;
}

export type RegionDescription = Decoded<typeof memoryRegion.fields>;

/** Each payload kind's decoded form. */
export interface Payloads {
  empty: undefined;
  u64: bigint;
  vringState: { index: number; num: number };
  vringAddress: Decoded<typeof vringAddress.fields>;
  memoryTable: readonly RegionDescription[];
  config: ConfigAccess;
}

export type PayloadOf<N extends RequestName> = Payloads[(typeof REQUESTS)[N]['payload']];

export interface RequestHeader {
  readonly name: RequestName;
  readonly spec: RequestSpec;
  readonly needReply: boolean;
  /** Bytes of payload that follow; possible for this request. */
  readonly sizeBytes: number;
}

const NAMES: ReadonlyMap<number, RequestName> = new Map(
  (Object.entries(REQUESTS) as [RequestName, RequestSpec][]).map(([name, { id }]) => [id, name]),
);

/** Smallest and largest payload of each kind. */
const SIZES: Readonly<Record<PayloadKind, readonly [number, number]>> = {
  empty: [0, 0],
  u64: [u64Payload.sizeBytes, u64Payload.sizeBytes],
  vringState: [vringState.sizeBytes, vringState.sizeBytes],
  vringAddress: [vringAddress.sizeBytes, vringAddress.sizeBytes],
  memoryTable: [memoryTable.sizeBytes, memoryTable.sizeBytes + MEMORY_REGIONS_MAX * memoryRegion.sizeBytes],
  config: [configHeader.sizeBytes, configHeader.sizeBytes + CONFIG_SIZE_MAX],
};

export const PAYLOAD_BYTES_MAX = Math.max(...Object.values(SIZES).map(([, most]) => most));

function malformed(message: string, received: unknown): ProtocolError {
  return new ProtocolError(`vhost-user: ${message}`, { received });
}

/** The header of a request. Throws ProtocolError: unknown request, version, a reply, an impossible size. */
export function decodeRequestHeader(bytes: Uint8Array): RequestHeader {
  const { request, flags, size } = header.decode(bytes);
  const name = NAMES.get(request);
  const received = { request, flags, size };
  if ((flags & HEADER_FLAGS.VERSION_MASK) !== HEADER_FLAGS.VERSION) {
    throw malformed(`message ${request} is of version ${flags & HEADER_FLAGS.VERSION_MASK}, not ${HEADER_FLAGS.VERSION}`, received);
  }
  if (name === undefined) throw malformed(`the front end sent message ${request}, which this back end does not know`, received);
  if ((flags & HEADER_FLAGS.REPLY) !== 0) throw malformed(`the front end sent ${name} as a reply`, received);
  const [least, most] = SIZES[REQUESTS[name].payload];
  if (size < least || size > most) {
    throw malformed(`${name} with ${size} bytes of payload, not ${least === most ? least : `${least} to ${most}`}`, received);
  }
  return { name, spec: REQUESTS[name], needReply: (flags & HEADER_FLAGS.NEED_REPLY) !== 0, sizeBytes: size };
}

const decoders: { readonly [K in PayloadKind]: (bytes: Uint8Array, name: string) => Payloads[K] } = {
  empty: () => undefined,
  u64: (bytes) => u64Payload.decode(bytes).value,
  vringState: (bytes) => vringState.decode(bytes),
  vringAddress: (bytes) => vringAddress.decode(bytes),
  memoryTable: (bytes, name) => {
    const { count } = memoryTable.decode(bytes);
    const expected = memoryTable.sizeBytes + count * memoryRegion.sizeBytes;
    if (expected !== bytes.length) throw malformed(`${name} of ${count} regions in ${bytes.length} bytes, not ${expected}`, bytes.slice());
    return Array.from({ length: count }, (_, i) => memoryRegion.decode(bytes, memoryTable.sizeBytes + i * memoryRegion.sizeBytes));
  },
  config: (bytes, name) => {
    const { offset, size, flags } = configHeader.decode(bytes);
    if (configHeader.sizeBytes + size !== bytes.length) {
      throw malformed(`${name} of ${size} bytes with ${bytes.length - configHeader.sizeBytes}`, bytes.slice());
    }
    if (offset + size > CONFIG_SIZE_MAX) throw malformed(`${name} of ${size} bytes at ${offset}: config space has at most ${CONFIG_SIZE_MAX}`, { offset, size });
    return { offset, flags, bytes: bytes.slice(configHeader.sizeBytes) };
  },
};

/** The payload, of the size that the header gave. Throws ProtocolError when its own counts contradict it. */
export function decodePayload<N extends RequestName>(name: N, bytes: Uint8Array): PayloadOf<N> {
  return decoders[REQUESTS[name].payload](bytes, name) as PayloadOf<N>;
}

const encoders: { readonly [K in PayloadKind]: (payload: Payloads[K]) => Uint8Array } = {
  empty: () => new Uint8Array(0),
  u64: (value) => u64Payload.encode({ value }),
  vringState: (state) => vringState.encode(state),
  vringAddress: (address) => vringAddress.encode(address),
  memoryTable: (regions) => concat([memoryTable.encode({ count: regions.length }), ...regions.map((region) => memoryRegion.encode(region))]),
  config: ({ offset, flags, bytes }) => concat([configHeader.encode({ offset, size: bytes.length, flags }), bytes]),
};

/** A whole message of the given payload kind. */
export function encodeMessage<K extends PayloadKind>(id: number, flags: number, kind: K, payload: Payloads[K]): Uint8Array {
  const body = (encoders[kind] as (payload: Payloads[K]) => Uint8Array)(payload);
  return concat([header.encode({ request: id, flags: flags | HEADER_FLAGS.VERSION, size: body.length }), body]);
}

function concat(parts: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}
