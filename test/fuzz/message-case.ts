// A front end by chance, over a real socket, with real descriptors: what it says, in which order, with which
// descriptors, and when it goes away. Whatever it is, the back end reports ProtocolErrors and nothing else, and the
// next front end is served. Descriptors and mappings are counted by whoever runs the cases.
import { connectUnix, createEventfd, createMemfd, closeFd, mapFile, receiveMessage, sendMessage, socketPair, unmapFile } from '../../src/native/index.ts';
import { ProtocolError } from '../../src/errors.ts';
import type { VhostUserBackend } from '../../src/vhost-user/index.ts';
import { outcomeOf, type CaseOutcome } from './case-outcome.ts';
import type { Random } from './random.ts';

const GUEST = 0x40000000n, USER = 0x7f1234000000n, MEMORY_BYTES = 0x10000;
/** The requests of a front end, and some numbers that are none. */
const LAST_REQUEST = 46;
const NEED_REPLY = 8;
/** MQ, LOG_SHMFD, REPLY_ACK, BACKEND_REQ, CONFIG, INFLIGHT_SHMFD, RESET_DEVICE, CONFIGURE_MEM_SLOTS, STATUS. */
const PROTOCOL_BITS = [0n, 1n, 3n, 5n, 9n, 12n, 13n, 15n, 16n];

export interface Target {
  readonly backend: VhostUserBackend;
  /** What the back end reported since it was last emptied. */
  readonly errors: Error[];
  /** Descriptors to send, open for the whole run. */
  readonly fds: Descriptors;
  /** Most drivers accept packed rings. */
  readonly packed: boolean;
}

export interface Descriptors {
  readonly memory: number;
  readonly tiny: number;
  readonly event: number;
  readonly socket: number;
  readonly otherEnd: number;
}

export function openFds(): Descriptors {
  const [socket, otherEnd] = socketPair();
  return { memory: createMemfd('fuzz', MEMORY_BYTES), tiny: createMemfd('fuzz-tiny', 100), event: createEventfd(), socket, otherEnd };
}

export function closeFds(fds: Descriptors): void {
  for (const fd of Object.values(fds) as number[]) closeFd(fd);
}

/** @throws when the back end did what it must not */
export async function messageCase(random: Random, { backend, errors, fds, packed }: Target): Promise<CaseOutcome> {
  errors.length = 0;
  const wild = random.pick([0, 0.002, 0.02, 0.2]);
  if (random.chance(0.5)) scribble(random, fds.memory);
  const fd = connectUnix(backend.path);
  const received = new Uint8Array(4096);
  let steps = 0, open = true;
  const drain = (): void => {
    try {
      for (let got = receiveMessage(fd, received); got !== undefined; got = receiveMessage(fd, received)) {
        for (const one of got.fds) closeFd(one);
        if (got.byteCount === 0) { open = false; return; }
      }
    } catch {
      open = false; // ECONNRESET: it closed with bytes of ours unread
    }
  };
  const planned = random.chance(0.8) ? script(random) : [];
  const count = planned.length + random.below(40);
  for (; steps < count && open; steps += 1) {
    const request = planned[steps] ?? random.below(random.chance(wild) ? 80 : LAST_REQUEST);
    try {
      send(random, fd, request, wild, fds, packed);
    } catch {
      open = false; // EPIPE, or the socket is full: the back end does not read any more
    }
    if (random.chance(0.2)) {
      await new Promise((resolve) => setImmediate(resolve));
      drain();
    }
  }
  for (let turns = random.below(4); turns > 0 && open; turns -= 1) {
    await new Promise((resolve) => setImmediate(resolve));
    drain();
  }
  closeFd(fd);
  for (let turns = 0; backend.connected; turns += 1) {
    if (turns > 20_000) throw new Error('the session did not end with its connection');
    await new Promise((resolve) => setImmediate(resolve));
  }
  const strange = errors.find((error) => !(error instanceof ProtocolError));
  if (strange !== undefined) throw strange;
  return { steps, outcome: errors[0] === undefined ? 'sound' : outcomeOf(errors[0]) };
}

/** Ids of what a front end says first, more or less. */
function script(random: Random): number[] {
  const [getFeatures, getProtocol, setProtocol, setOwner, setFeatures, memory] = [1, 15, 16, 3, 2, 5];
  const ring = [13, 14, 8, 10, 9, 12, 18];
  const more = [7, 6, 21, 24, 25, 31, 32, 36, 37, 38, 39, 40].filter(() => random.chance(0.2));
  const whole = [getFeatures, getProtocol, setProtocol, setOwner, setFeatures, memory, ...more, ...ring, 1, ...ring];
  return whole.filter(() => !random.chance(0.03));
}

function send(random: Random, fd: number, request: number, wild: number, fds: Descriptors, packed: boolean): void {
  const payload = random.chance(wild) ? random.bytes(random.pick([0, 1, 4, 8, 12, 40, 300, 600])) : packed ? packedPayload(random, request, wild) : payloadOf(random, request, wild);
  const message = new Uint8Array(12 + payload.length);
  const view = new DataView(message.buffer);
  view.setUint32(0, request, true);
  view.setUint32(4, random.chance(wild) ? random.u32() : 1 | (random.chance(0.3) ? NEED_REPLY : 0), true);
  view.setUint32(8, random.chance(wild) ? Number(random.edge() & 0xffffffffn) : payload.length, true);
  message.set(payload, 12);
  const end = random.chance(wild) ? random.below(message.length + 1) : message.length;
  const sent = end === 0 ? message.subarray(0, 1) : message.subarray(0, end);
  const with_ = random.chance(wild) ? Array.from({ length: random.chance(0.5) ? 1 : random.below(12) }, () => random.pick(Object.values(fds) as number[])) : fdsOf(request, payload, fds).map((one) => (random.chance(0.05) ? random.pick(Object.values(fds) as number[]) : one));
  if (random.chance(0.1) && sent.length > 1) {
    // In two parts: a stream keeps no bounds of messages.
    const cut = 1 + random.below(sent.length - 1);
    sendMessage(fd, sent.subarray(0, cut), with_);
    sendMessage(fd, sent.subarray(cut), []);
  } else {
    sendMessage(fd, sent, with_);
  }
}

function fdsOf(request: number, payload: Uint8Array, fds: Descriptors): number[] {
  switch (request) {
    case 5: return Array.from({ length: Math.min(payload[0] ?? 0, 8) }, () => fds.memory);
    case 6: case 32: case 37: return [fds.memory];
    case 7: case 12: case 13: case 14: return [fds.event];
    case 21: return [fds.socket];
    default: return [];
  }
}

/** The same of a front end with packed rings: sizes and bases of their kind, too. */
function packedPayload(random: Random, request: number, wild: number): Uint8Array {
  const payload = payloadOf(random, request, wild);
  const view = new DataView(payload.buffer, payload.byteOffset, payload.byteLength);
  if (random.chance(wild)) return payload;
  if (request === 2 && random.chance(0.9)) view.setUint32(4, view.getUint32(4, true) | random.pick([4, 4, 12]), true);
  if (request === 8 && random.chance(0.5)) view.setUint32(4, 1 + random.below(200), true);
  if (request === 10) view.setUint32(4, random.pick([0x80008000, 0x80008000, 0x80018001, 0x00008000, 0x80038000, random.u32()]), true);
  if (request === 31 || request === 32) view.setBigUint64(0, 0x4000n, true);
  return payload;
}

function payloadOf(random: Random, request: number, wild: number): Uint8Array {
  const number = (plain: bigint): bigint => (random.chance(wild) ? random.edge() : plain);
  switch (request) {
    case 2: return u64s(number(random.pick([1n << 32n, (1n << 32n) | (1n << 29n) | (1n << 28n), (1n << 32n) | (1n << 30n)])));
    case 16: return u64s(number(PROTOCOL_BITS.filter(() => random.chance(0.85)).reduce((mask, bit) => mask | (1n << bit), 0n)));
    case 5: {
      const regions = random.chance(wild) ? random.below(12) : 1 + random.below(2);
      return join(u32s(regions, 0), ...Array.from({ length: regions }, (_, i) => region(random, wild, BigInt(i))));
    }
    case 37: case 38: return join(u32s(0, 0), region(random, wild, BigInt(random.below(3))));
    case 8: return u32s(Number(number(BigInt(random.below(2))) & 0xffffffffn), Number(number(BigInt(2 ** random.below(9))) & 0xffffffffn));
    case 10: case 11: return u32s(Number(number(BigInt(random.below(2))) & 0xffffffffn), Number(number(BigInt(random.pick([0, 0, 0, 5, 0xffff]))) & 0xffffffffn));
    case 18: return u32s(Number(number(BigInt(random.below(2))) & 0xffffffffn), random.below(2));
    case 9: {
      const base = USER + number(BigInt(random.below(4)) * 0x2000n);
      return join(u32s(random.below(2), 0), u64s(base, base + number(0x1800n), base + number(0x1000n), 0n));
    }
    case 12: case 13: case 14: return u64s(number(BigInt(random.below(2))));
    case 24: case 25: return join(u32s(random.below(8), Number(number(8n) & 0xffn), 0), new Uint8Array(8));
    case 31: case 32: return join(u64s(number(0x1000n), number(0n)), new Uint8Array([2, 0, 8, 0]));
    case 6: return u64s(number(0x1000n), number(0n));
    case 39: return u64s(number(BigInt(random.pick([0, 1, 3, 11, 15, 64]))));
    default: return random.chance(wild) ? u64s(random.edge()) : new Uint8Array(0);
  }
}

function region(random: Random, wild: number, index: bigint): Uint8Array {
  const number = (plain: bigint): bigint => (random.chance(wild) ? random.edge() : plain);
  const half = BigInt(MEMORY_BYTES / 2);
  return u64s(number(GUEST + index * half), number(half), number(USER + index * half), number(index === 0n ? 0n : half));
}

function scribble(random: Random, memoryFd: number): void {
  const mapping = mapFile(memoryFd, 0, MEMORY_BYTES);
  const u16 = new Uint16Array(mapping);
  for (let i = 0; i < 200; i += 1) u16[random.below(random.chance(0.5) ? 0x1000 : u16.length)] = random.chance(0.5) ? random.below(16) : random.u32();
  unmapFile(mapping);
}

function u32s(...values: number[]): Uint8Array {
  return new Uint8Array(Uint32Array.from(values).buffer);
}

function u64s(...values: bigint[]): Uint8Array {
  return new Uint8Array(BigUint64Array.from(values.map((value) => BigInt.asUintN(64, value))).buffer);
}

function join(...parts: Uint8Array[]): Uint8Array {
  return new Uint8Array(Buffer.concat(parts));
}
