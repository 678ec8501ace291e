// A vhost-user front end for tests: plays QEMU over a real Unix socket, with guest memory in a memfd and
// real eventfds. Sends what it is told, right or wrong; the ring's driver is test/virtio/mock-driver.ts.
import { encodeMessage, HEADER_BYTES } from '../../src/vhost-user/codec.ts';
import type { PayloadOf } from '../../src/vhost-user/codec.ts';
import { configHeader, F_PROTOCOL_FEATURES, header, HEADER_FLAGS, inflightDescription } from '../../src/vhost-user/protocol.ts';
import { PROTOCOL_FEATURES, REQUESTS } from '../../src/vhost-user/requests.ts';
import type { RequestName } from '../../src/vhost-user/requests.ts';
import {
  closeFd, connectUnix, createEventfd, createMemfd, mapFile, pollSocket, readEventfd, receiveMessage, sendMessage, signalEventfd, unmapFile,
} from '../../src/native/index.ts';
import type { SocketPoll } from '../../src/native/index.ts';
import { featureMask, VIRTIO_F } from '../../src/virtio/features.ts';
import type { GuestAddress } from '../../src/virtio/guest-memory.ts';
import { within } from '../../src/wait.ts';
import { MockDriver } from '../virtio/mock-driver.ts';
import type { MockDriverOptions } from '../virtio/mock-driver.ts';
import type { DriverSide } from '../virtio/driver-side.ts';
import { PlainMemory } from '../virtio/plain-memory.ts';

export const GUEST_BASE = 0x40000000;
/** The front end's own address of the same memory: nothing like the guest's. */
export const USER_BASE = 0x7f1234000000;
export const MEMORY_BYTES = 0x100000;

export interface Reply {
  readonly request: number;
  readonly flags: number;
  readonly payload: Uint8Array;
  /** The payload's first eight bytes as a number. */
  readonly value: bigint;
  /** Descriptors that came with it; closed with the front end. */
  readonly fds: readonly number[];
}

/** A memfd as the mock driver's memory. */
export class SharedMemory extends PlainMemory {
  readonly fd: number;
  readonly mapping: ArrayBuffer;
  override readonly regions: PlainMemory['regions'];

  constructor(guestAddress = GUEST_BASE, sizeBytes = MEMORY_BYTES) {
    super();
    this.fd = createMemfd('guest', sizeBytes);
    this.mapping = mapFile(this.fd, 0, sizeBytes);
    const u8 = new Uint8Array(this.mapping);
    this.regions = [{ guestAddress: guestAddress as GuestAddress, sizeBytes, backing: u8, u8, u16: new Uint16Array(this.mapping), u32: new Uint32Array(this.mapping) }];
  }

  close(): void {
    unmapFile(this.mapping);
    closeFd(this.fd);
  }
}

/** The file in which the back end notes what is in flight; the front end keeps it. */
export interface Inflight {
  readonly description: PayloadOf<'SET_INFLIGHT_FD'>;
  readonly fd: number;
}

/** One ring as the front end has it. */
export interface FrontEndRing<D extends DriverSide = MockDriver> {
  readonly index: number;
  readonly driver: D;
  readonly kickFd: number;
  readonly callFd: number;
  readonly errorFd: number;
}

export class FrontEnd {
  readonly memory: SharedMemory;
  readonly #fd: number;
  readonly #owned: number[] = [];
  readonly #poll: SocketPoll;
  readonly #ownsMemory: boolean;
  #received = Buffer.alloc(0);
  #fds: number[] = [];
  #hungUp = false;
  #wake = (): void => undefined;

  /** Connect; `memory`: that of another front end, which closes it. `fd`: a connected socket in place of the path. */
  constructor(path: string, { memory, fd }: { memory?: SharedMemory; fd?: number } = {}) {
    this.#ownsMemory = memory === undefined;
    this.memory = memory ?? new SharedMemory();
    this.#fd = fd ?? connectUnix(path);
    this.#poll = pollSocket(this.#fd, () => this.#read());
  }

  get hungUp(): boolean {
    return this.#hungUp;
  }

  /** An eventfd that is closed with this front end. */
  eventfd(): number {
    const fd = createEventfd();
    this.#owned.push(fd);
    return fd;
  }

  /** Any bytes with any descriptors. */
  raw(bytes: Uint8Array, fds: readonly number[] = []): void {
    sendMessage(this.#fd, bytes, fds);
  }

  send<N extends RequestName>(name: N, payload: PayloadOf<N>, { fds = [], needReply = false }: { fds?: readonly number[]; needReply?: boolean } = {}): void {
    const { id, payload: kind } = REQUESTS[name];
    this.raw(encodeMessage(id, needReply ? HEADER_FLAGS.NEED_REPLY : 0, kind, payload), fds);
  }

  /** Send and wait for the answer: its own, or the acknowledgement. */
  async ask<N extends RequestName>(name: N, payload: PayloadOf<N>, options: { fds?: readonly number[]; needReply?: boolean } = {}): Promise<Reply> {
    this.send(name, payload, options);
    const reply = await this.reply();
    if (reply.request !== REQUESTS[name].id) throw new Error(`asked ${name}, and the answer was to request ${reply.request}`);
    return reply;
  }

  async reply(): Promise<Reply> {
    await this.#until('a reply of the back end', () => this.#replySize() !== undefined || this.#hungUp);
    const size = this.#replySize();
    if (size === undefined) throw new Error('the back end hung up instead of a reply');
    const { request, flags } = header.decode(this.#received);
    const payload = new Uint8Array(this.#received.subarray(HEADER_BYTES, size));
    this.#received = this.#received.subarray(size);
    const fds = this.#fds;
    this.#fds = [];
    return { request, flags, payload, fds, value: payload.length < 8 ? 0n : new DataView(payload.buffer).getBigUint64(0, true) };
  }

  /** The back end closed the connection. */
  async closed(): Promise<void> {
    await this.#until('the back end to hang up', () => this.#hungUp);
  }

  /** What QEMU does when it realizes the device: features and protocol features. */
  async negotiate(virtioFeatures: bigint = featureMask(VIRTIO_F.VIRTIO_F_VERSION_1)): Promise<void> {
    const offered = (await this.ask('GET_FEATURES', undefined)).value;
    const protocol = (await this.ask('GET_PROTOCOL_FEATURES', undefined)).value;
    this.send('SET_PROTOCOL_FEATURES', protocol & featureMask(...Object.values(PROTOCOL_FEATURES)));
    this.send('SET_OWNER', undefined);
    this.send('SET_FEATURES', offered & (virtioFeatures | featureMask(F_PROTOCOL_FEATURES)));
  }

  /** The whole memory as one region. */
  region(): PayloadOf<'SET_MEM_TABLE'>[number] {
    return { guestAddress: BigInt(GUEST_BASE), size: BigInt(MEMORY_BYTES), userAddress: BigInt(USER_BASE), mmapOffset: 0n };
  }

  shareMemory(): Promise<Reply> {
    return this.ask('SET_MEM_TABLE', [this.region()], { fds: [this.memory.fd], needReply: true });
  }

  /** Lay out and set up a ring, up to but not including its kick eventfd; rings lie 64 KiB apart. */
  prepareRing(index: number, options: MockDriverOptions = {}): FrontEndRing {
    return this.prepareDriver(index, new MockDriver({ memory: this.memory, base: GUEST_BASE + index * 0x10000, ...options }), options.startIndex);
  }

  /** The same for a driver that was laid out already, in this front end's memory. */
  prepareDriver<D extends DriverSide>(index: number, driver: D, base = 0): FrontEndRing<D> {
    const ring = { index, driver, kickFd: this.eventfd(), callFd: this.eventfd(), errorFd: this.eventfd() };
    driver.onKick = () => signalEventfd(ring.kickFd);
    this.send('SET_VRING_CALL', BigInt(index), { fds: [ring.callFd] });
    this.send('SET_VRING_ERR', BigInt(index), { fds: [ring.errorFd] });
    this.send('SET_VRING_NUM', { index, num: driver.size });
    this.send('SET_VRING_BASE', { index, num: base });
    this.send('SET_VRING_ADDR', this.addresses(ring));
    return ring;
  }

  addresses({ index, driver }: FrontEndRing<DriverSide>): PayloadOf<'SET_VRING_ADDR'> {
    const user = (address: number): bigint => BigInt(address - GUEST_BASE + USER_BASE);
    return { index, flags: 0, descriptor: user(driver.desc), used: user(driver.deviceArea), available: user(driver.driverArea), log: 0n };
  }

  /** Set up a ring that another front end's back end served: the driver goes on where it is; `base` is the vring base. */
  adoptRing<D extends DriverSide>({ index, driver }: FrontEndRing<D>, base: number): FrontEndRing<D> {
    return this.prepareDriver(index, driver, base);
  }

  /** What QEMU does before it starts rings: get a file for what is in flight, and hand it over. */
  async trackInflight(queueCount: number, queueSize: number): Promise<Inflight> {
    const { payload, fds } = await this.ask('GET_INFLIGHT_FD', { mmapSize: 0n, mmapOffset: 0n, queueCount, queueSize });
    const inflight = { description: inflightDescription.decode(payload), fd: fds[0] as number };
    await this.giveInflight(inflight);
    return inflight;
  }

  async giveInflight({ description, fd }: Inflight): Promise<void> {
    await this.ask('SET_INFLIGHT_FD', description, { fds: [fd], needReply: true });
  }

  /** Give the ring its kick eventfd and enable it. */
  async startRing(ring: FrontEndRing<DriverSide>): Promise<void> {
    this.send('SET_VRING_KICK', BigInt(ring.index), { fds: [ring.kickFd] });
    await this.ask('SET_VRING_ENABLE', { index: ring.index, num: 1 }, { needReply: true });
  }

  /** Everything from the connection to a running ring. */
  async start(options: MockDriverOptions = {}): Promise<FrontEndRing> {
    await this.negotiate(featureMask(
      VIRTIO_F.VIRTIO_F_VERSION_1,
      ...(options.eventIdx === true ? [VIRTIO_F.VIRTIO_F_RING_EVENT_IDX] : []),
      ...(options.indirect === true ? [VIRTIO_F.VIRTIO_F_RING_INDIRECT_DESC] : []),
    ));
    await this.shareMemory();
    const ring = this.prepareRing(0, options);
    await this.startRing(ring);
    return ring;
  }

  /** Wait until an eventfd of this front end was signalled; its count. */
  async signalled(fd: number): Promise<number> {
    let count = 0;
    const seen = (async () => {
      while ((count = readEventfd(fd)) === 0) await new Promise((resolve) => setImmediate(resolve));
    })();
    await within(seen, { timeoutMs: 2000, what: 'the back end to signal an eventfd' });
    return count;
  }

  close(): void {
    this.#poll.stop();
    closeFd(this.#fd);
    for (const fd of this.#owned) closeFd(fd);
    if (this.#ownsMemory) this.memory.close();
  }

  #replySize(): number | undefined {
    if (this.#received.length < HEADER_BYTES) return undefined;
    const size = HEADER_BYTES + header.decode(this.#received).size;
    return this.#received.length < size ? undefined : size;
  }

  #read(): void {
    const bytes = new Uint8Array(1024);
    try {
      const received = receiveMessage(this.#fd, bytes);
      if (received === undefined) return;
      if (received.byteCount === 0) this.#hungUp = true;
      this.#fds.push(...received.fds);
      this.#owned.push(...received.fds);
      this.#received = Buffer.concat([this.#received, bytes.subarray(0, received.byteCount)]);
    } catch {
      this.#hungUp = true; // ECONNRESET: it closed with bytes of ours unread
    }
    if (this.#hungUp) this.#poll.stop();
    this.#wake();
  }

  async #until(what: string, done: () => boolean): Promise<void> {
    if (done()) return;
    await within(new Promise<void>((resolve) => {
      this.#wake = () => {
        if (done()) resolve();
      };
    }), { timeoutMs: 2000, what });
  }
}

/** The bytes that a GET_CONFIG answer carries. */
export function configBytes(reply: Reply): Uint8Array {
  return reply.payload.subarray(configHeader.sizeBytes);
}
