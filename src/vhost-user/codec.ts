// Bytes to vhost-user messages and back, with exact size checks. Syntax only: whether a message makes
// sense now is the session's to say.
import { ProtocolError } from '../errors.ts';
import type { Decoded } from '../bytes/layout.ts';
import {
  CONFIG_SIZE_MAX, configHeader, header, HEADER_FLAGS, inflightDescription, logDescription, memoryRegion, memoryTable,
  OPAQUE_BYTES_MAX, SINGLE_REGION_PADDING, u64Payload, vringAddress, vringState,
} from './protocol.ts';
import { MEMORY_REGIONS_MAX, REQUESTS, UNKNOWN_REQUEST } from './requests.ts';
import type { PayloadKind, RequestName, RequestSpec } from './requests.ts';

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
  memoryRegion: RegionDescription;
  config: ConfigAccess;
  log: Decoded<typeof logDescription.fields>;
  inflight: Decoded<typeof inflightDescription.fields>;
  opaque: Uint8Array;
}

/** A request of the specification, or one that is not in it. */
export type ReceivedName = RequestName | 'UNKNOWN';
type Kinds = { readonly [N in RequestName]: (typeof REQUESTS)[N]['payload'] } & { readonly UNKNOWN: 'opaque' };
export type PayloadOf<N extends ReceivedName> = Payloads[Kinds[N]];

export interface RequestHeader {
  readonly name: ReceivedName;
  /** As it was sent, known or not. */
  readonly id: number;
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
  memoryRegion: [SINGLE_REGION_PADDING + memoryRegion.sizeBytes, SINGLE_REGION_PADDING + memoryRegion.sizeBytes],
  config: [configHeader.sizeBytes, configHeader.sizeBytes + CONFIG_SIZE_MAX],
  log: [logDescription.sizeBytes, logDescription.sizeBytes],
  inflight: [inflightDescription.sizeBytes, inflightDescription.sizeBytes],
  opaque: [0, OPAQUE_BYTES_MAX],
};

export const PAYLOAD_BYTES_MAX = Math.max(...Object.values(SIZES).map(([, most]) => most));

function malformed(message: string, received: unknown): ProtocolError {
  return new ProtocolError(`vhost-user: ${message}`, { received });
}

/** The header of a request, known or not. Throws ProtocolError: another version, a reply, an impossible size. */
export function decodeRequestHeader(bytes: Uint8Array): RequestHeader {
  const { request, flags, size } = header.decode(bytes);
  const name = NAMES.get(request) ?? 'UNKNOWN';
  const spec = name === 'UNKNOWN' ? UNKNOWN_REQUEST : REQUESTS[name];
  const said = name === 'UNKNOWN' ? `message ${request}` : name;
  const received = { request, flags, size };
  if ((flags & HEADER_FLAGS.VERSION_MASK) !== HEADER_FLAGS.VERSION) {
    throw malformed(`message ${request} is of version ${flags & HEADER_FLAGS.VERSION_MASK}, not ${HEADER_FLAGS.VERSION}`, received);
  }
  if ((flags & HEADER_FLAGS.REPLY) !== 0) throw malformed(`the front end sent ${said} as a reply`, received);
  const [least, most] = SIZES[spec.payload];
  if (size < least || size > most) {
    throw malformed(`${said} with ${size} bytes of payload, not ${least === most ? least : `${least} to ${most}`}`, received);
  }
  return { name, id: request, spec, needReply: (flags & HEADER_FLAGS.NEED_REPLY) !== 0, sizeBytes: size };
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
  memoryRegion: (bytes) => memoryRegion.decode(bytes, SINGLE_REGION_PADDING),
  log: (bytes) => logDescription.decode(bytes),
  inflight: (bytes) => inflightDescription.decode(bytes),
  opaque: (bytes) => bytes.slice(),
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
export function decodePayload<N extends ReceivedName>(name: N, bytes: Uint8Array): PayloadOf<N> {
  const kind: PayloadKind = name === 'UNKNOWN' ? 'opaque' : REQUESTS[name as RequestName].payload;
  return decoders[kind](bytes, name) as PayloadOf<N>;
}

const encoders: { readonly [K in PayloadKind]: (payload: Payloads[K]) => Uint8Array } = {
  empty: () => new Uint8Array(0),
  u64: (value) => u64Payload.encode({ value }),
  vringState: (state) => vringState.encode(state),
  vringAddress: (address) => vringAddress.encode(address),
  memoryTable: (regions) => concat([memoryTable.encode({ count: regions.length }), ...regions.map((region) => memoryRegion.encode(region))]),
  memoryRegion: (region) => concat([new Uint8Array(SINGLE_REGION_PADDING), memoryRegion.encode(region)]),
  log: (log) => logDescription.encode(log),
  inflight: (inflight) => inflightDescription.encode(inflight),
  opaque: (bytes) => bytes,
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
