// One front end's session: what each message means, when it may come, and what it starts and stops.
// QEMU docs/interop/vhost-user.rst. A ProtocolError ends the session: rings stopped, memory unmapped, the
// device reset; never the process. Not migration (dirty log), IOMMU, post-copy, in-flight tracking.
import { ProtocolError } from '../errors.ts';
import { closeFd, sendMessage } from '../native/index.ts';
import type { VirtioDevice } from '../virtio/device.ts';
import { featureMask, hasFeature, RING_FEATURES, VIRTIO_F } from '../virtio/features.ts';
import type { Virtqueue } from '../virtio/virtqueue.ts';
import { within } from '../wait.ts';
import { encodeMessage } from './codec.ts';
import type { Payloads } from './codec.ts';
import { Connection } from './connection.ts';
import type { Request } from './connection.ts';
import { MemoryMap } from './memory.ts';
import { BACKEND_REQUESTS, F_PROTOCOL_FEATURES, PROTOCOL_FEATURES, REQUESTS, VRING_INDEX_MASK, VRING_NOFD } from './protocol.ts';
import type { RequestName, RequestSpec } from './protocol.ts';
import { Ring } from './ring.ts';
import type { RingOwner } from './ring.ts';

/** DEVICE_NEEDS_RESET of the device status (virtio 1.2, 2.1). */
const DEVICE_NEEDS_RESET = 0x40;

export interface SessionEvents {
  called(index: number): void;
  kicked(index: number, count: number): void;
  started(index: number): void;
  log(line: string): void;
  /** A ring, a message or the device went wrong. */
  error(error: Error): void;
  /** The session is over: rings stopped and memory unmapped (or, after a failed drain, left mapped). */
  ended(): void;
}

export interface SessionOptions {
  /** The connected socket; the session's to close. */
  readonly fd: number;
  readonly device: VirtioDevice;
  readonly events: SessionEvents;
  /** How long the device may take to finish its requests when a ring is stopped. */
  readonly drainTimeoutMs: number;
}

type ReplyOf<N extends RequestName> = (typeof REQUESTS)[N] extends { reply: infer K extends keyof Payloads } ? Payloads[K] : Acknowledgement;
/** For REPLY_ACK: non-zero says that the request was refused, and the session goes on. */
type Acknowledgement = void | 1;
type Handlers = { readonly [N in RequestName]: (request: Request<N>) => ReplyOf<N> | Promise<ReplyOf<N>> };

export class Session implements RingOwner {
  readonly device: VirtioDevice;
  readonly memory = new MemoryMap();
  readonly #options: SessionOptions;
  readonly #connection: Connection;
  readonly #rings: readonly Ring[];
  #features = 0n;
  #protocolFeatures = 0n;
  #status = 0;
  #backendFd: number | undefined;
  #end: Promise<void> | undefined;

  constructor(options: SessionOptions) {
    this.#options = options;
    this.device = options.device;
    this.#rings = Array.from({ length: options.device.queueCount }, (_, index) => new Ring(index, this));
    this.#connection = new Connection({
      fd: options.fd,
      onRequest: (request) => this.#dispatch(request),
      onEnd: (error) => {
        if (error === undefined) options.events.log('the front end hung up');
        else options.events.error(error);
        void this.end();
      },
    });
  }

  /** Virtio feature bits the driver accepted; 0 before it did. */
  get features(): bigint {
    return this.#features & ~featureMask(F_PROTOCOL_FEATURES);
  }

  /** The front end has gone or was hung up on; the device may still be finishing its requests. */
  get ending(): boolean {
    return this.#end !== undefined;
  }

  /** The queue while its ring runs. */
  queue(index: number): Virtqueue | undefined {
    return this.#rings[index]?.queue;
  }

  /** Write the ring's call eventfd; false when it has none. */
  signal(index: number): boolean {
    return this.#rings[index]?.signal() ?? false;
  }

  /** Tell the front end that config space changed; false when it does not listen. */
  configChanged(): boolean {
    if (this.#backendFd === undefined) return false;
    const { id } = BACKEND_REQUESTS.CONFIG_CHANGE_MSG;
    const message = encodeMessage(id, 0, 'empty', undefined);
    try {
      return sendMessage(this.#backendFd, message) === message.length;
    } catch (error) {
      this.#options.events.log(`CONFIG_CHANGE_MSG was not sent: ${String(error)}`);
      return false;
    }
  }

  /** End the session, from either side: drain, stop, unmap, reset the device. Idempotent. */
  end(): Promise<void> {
    return (this.#end ??= this.#finish());
  }

  // What the rings report.
  called(index: number): void {
    this.#options.events.called(index);
  }
  kicked(index: number, count: number): void {
    this.#options.events.kicked(index, count);
  }
  started(index: number): void {
    this.#options.events.started(index);
  }
  broken(index: number, error: ProtocolError): void {
    this.#options.events.log(`queue ${index} is broken: ${error.summary}`);
    this.#options.events.error(error);
  }
  deviceFailed(error: unknown): void {
    this.#options.events.error(error instanceof Error ? error : new ProtocolError(`the device failed: ${String(error)}`, { cause: error }));
  }

  #offeredFeatures(): bigint {
    return this.device.features | (this.device.ringFeatures ?? RING_FEATURES) | featureMask(VIRTIO_F.VIRTIO_F_VERSION_1, F_PROTOCOL_FEATURES);
  }

  #offeredProtocolFeatures(): bigint {
    const { MQ, REPLY_ACK, RESET_DEVICE, STATUS, CONFIG, BACKEND_REQ } = PROTOCOL_FEATURES;
    // QEMU warns of config space that its device model does not fetch (rng).
    const config = this.device.config().length > 0 ? [CONFIG, BACKEND_REQ] : [];
    return featureMask(MQ, REPLY_ACK, RESET_DEVICE, STATUS, ...config);
  }

  readonly #handlers: Handlers = {
    GET_FEATURES: () => this.#offeredFeatures(),
    SET_FEATURES: ({ payload }) => {
      refuseUnoffered('SET_FEATURES', payload, this.#offeredFeatures());
      this.#features = payload;
      this.device.negotiated?.(this.features);
    },
    GET_PROTOCOL_FEATURES: () => this.#offeredProtocolFeatures(),
    SET_PROTOCOL_FEATURES: ({ payload }) => {
      refuseUnoffered('SET_PROTOCOL_FEATURES', payload, this.#offeredProtocolFeatures());
      this.#protocolFeatures = payload;
    },
    SET_OWNER: () => undefined,
    RESET_OWNER: () => this.#rings.forEach((ring) => ring.enable(false)),
    GET_QUEUE_NUM: () => BigInt(this.#rings.length),
    SET_MEM_TABLE: ({ payload, fds }) => {
      if (fds.count !== payload.length) {
        throw new ProtocolError(`vhost-user: SET_MEM_TABLE of ${payload.length} regions with ${fds.count} descriptors`, { received: payload });
      }
      const change = this.memory.prepare(payload, payload.map((_, index) => fds.peek(index) as number));
      // What stays mapped may be in use all along: a region added costs no pause.
      if (!change.removes || this.#rings.every((ring) => ring.queue === undefined)) return change.commit();
      return this.#remap(change.commit, change.abandon);
    },
    SET_VRING_NUM: ({ payload: { index, num } }) => this.#ring(index).setSize(num),
    SET_VRING_BASE: ({ payload: { index, num } }) => this.#ring(index).setBase(num),
    SET_VRING_ADDR: ({ payload: { index, descriptor, available, used } }) => this.#ring(index).setAddresses({ descriptor, available, used }),
    SET_VRING_KICK: (request) => {
      const { ring, fd } = this.#vringFd(request);
      if (fd === undefined) throw new ProtocolError('vhost-user: SET_VRING_KICK without a descriptor: this back end does not poll rings');
      if (!hasFeature(this.#features, F_PROTOCOL_FEATURES)) ring.enable(true);
      ring.setKick(fd);
    },
    SET_VRING_CALL: (request) => {
      const { ring, fd } = this.#vringFd(request);
      ring.setCall(fd);
    },
    SET_VRING_ERR: (request) => {
      const { ring, fd } = this.#vringFd(request);
      ring.setError(fd);
    },
    SET_VRING_ENABLE: ({ payload: { index, num } }) => {
      if (num > 1) throw new ProtocolError(`vhost-user: SET_VRING_ENABLE of ring ${index} to ${num}, not 0 or 1`);
      this.#ring(index).enable(num === 1);
    },
    GET_VRING_BASE: async ({ payload: { index } }) => {
      const ring = this.#ring(index);
      ring.pause();
      if (ring.queue !== undefined) await this.#drain([ring], `queue ${index} to finish its requests for GET_VRING_BASE`);
      return { index, num: ring.stop() };
    },
    SET_BACKEND_REQ_FD: ({ fds }) => {
      const fd = fds.take(0);
      if (fd === undefined) throw new ProtocolError('vhost-user: SET_BACKEND_REQ_FD without a descriptor');
      if (this.#backendFd !== undefined) closeFd(this.#backendFd);
      this.#backendFd = fd;
    },
    GET_CONFIG: ({ payload: { offset, flags, bytes } }) => {
      // The front end's structure may be longer than the device's: what is not there reads 0.
      const answer = new Uint8Array(bytes.length);
      answer.set(this.device.config().subarray(offset, offset + bytes.length));
      return { offset, flags, bytes: answer };
    },
    SET_CONFIG: ({ payload: { offset, bytes } }) => {
      if (this.device.writeConfig === undefined || offset + bytes.length > this.device.config().length) {
        this.#options.events.log(`SET_CONFIG of ${bytes.length} bytes at ${offset} was refused`);
        return 1;
      }
      return this.device.writeConfig(offset, bytes);
    },
    RESET_DEVICE: async () => {
      await this.#stopRings('RESET_DEVICE');
      this.device.reset?.();
    },
    SET_STATUS: async ({ payload }) => {
      this.#status = Number(payload & 0xffn);
      if (this.#status !== 0) return;
      // QEMU says so when it stops the machine too, and 7.2 before it asks for the rings' bases: they are kept.
      await this.#stopRings('a status of 0');
      this.device.reset?.();
    },
    GET_STATUS: () => BigInt(this.#status | (this.#rings.some(({ queue }) => queue?.broken !== undefined) ? DEVICE_NEEDS_RESET : 0)),
  };

  #dispatch(request: Request): void | Promise<void> {
    this.#options.events.log(describe(request));
    try {
      const needed = (REQUESTS[request.name] as RequestSpec).needs;
      if (needed !== undefined && !hasFeature(this.#protocolFeatures, PROTOCOL_FEATURES[needed])) {
        throw new ProtocolError(`vhost-user: ${request.name} without the protocol feature ${needed}`);
      }
      const handler = this.#handlers[request.name] as (request: Request) => unknown;
      const result = handler(request);
      if (!(result instanceof Promise)) return this.#answer(request, result);
      return result.then(
        (late: unknown) => this.#answer(request, late),
        (error: unknown) => this.#refuse(request, error),
      );
    } catch (error) {
      return this.#refuse(request, error);
    }
  }

  #answer({ name, needReply }: Request, result: unknown): void {
    const { id, reply } = REQUESTS[name] as RequestSpec;
    if (reply !== undefined) this.#connection.reply(id, reply, result as Payloads[typeof reply]);
    else if (needReply && this.#acknowledges) this.#connection.reply(id, 'u64', result === 1 ? 1n : 0n);
  }

  /** Say no, as far as the protocol has words for it, and end the session. */
  #refuse({ name, needReply }: Request, error: unknown): never {
    const { id, reply } = REQUESTS[name] as RequestSpec;
    try {
      if (reply === undefined && needReply && this.#acknowledges) this.#connection.reply(id, 'u64', 1n);
    } catch {
      // the first error says more than that the front end does not hear it
    }
    throw error;
  }

  get #acknowledges(): boolean {
    return hasFeature(this.#protocolFeatures, PROTOCOL_FEATURES.REPLY_ACK);
  }

  #ring(index: number): Ring {
    const ring = this.#rings[index];
    if (ring === undefined) throw new ProtocolError(`vhost-user: there is no ring ${index}: the device has ${this.#rings.length}`);
    return ring;
  }

  /** The ring and the descriptor of SET_VRING_KICK, _CALL and _ERR; the flag and the descriptor must agree. */
  #vringFd({ name, payload, fds }: Request<'SET_VRING_KICK' | 'SET_VRING_CALL' | 'SET_VRING_ERR'>): { ring: Ring; fd: number | undefined } {
    const value = Number(payload & 0xffffffffn);
    if (payload > BigInt(VRING_NOFD | VRING_INDEX_MASK)) throw new ProtocolError(`vhost-user: ${name} with unknown bits: 0x${payload.toString(16)}`);
    const absent = (value & VRING_NOFD) !== 0;
    if (absent !== (fds.count === 0)) {
      throw new ProtocolError(`vhost-user: ${name} of ring ${value & VRING_INDEX_MASK} with ${fds.count} descriptors and the flag that there is ${absent ? 'none' : 'one'}`);
    }
    return { ring: this.#ring(value & VRING_INDEX_MASK), fd: absent ? undefined : fds.take(0) };
  }

  /** Wait until the device has no request of these rings in use. Throws DeadlineError. */
  async #drain(rings: readonly Ring[], what: string): Promise<void> {
    await within(this.#drained(rings), { timeoutMs: this.#options.drainTimeoutMs, what });
  }

  async #drained(rings: readonly Ring[]): Promise<void> {
    await Promise.all(rings.map(async (ring) => this.device.drain?.(ring.index)));
  }

  async #stopRings(why: string): Promise<void> {
    const running = this.#rings.filter((ring) => ring.queue !== undefined);
    running.forEach((ring) => ring.pause());
    await this.#drain(running, `the device to finish its requests for ${why}`);
    for (const ring of this.#rings) {
      ring.stop();
      ring.enable(false);
    }
  }

  async #remap(commit: () => void, abandon: () => void): Promise<void> {
    const running = this.#rings.filter((ring) => ring.queue !== undefined);
    running.forEach((ring) => ring.pause());
    try {
      await this.#drain(running, 'the device to finish its requests for SET_MEM_TABLE');
    } catch (error) {
      abandon();
      throw error;
    }
    if (this.#end !== undefined) return abandon();
    commit();
    running.forEach((ring) => ring.remap());
    running.forEach((ring) => ring.resume());
  }

  async #finish(): Promise<void> {
    const { events } = this.#options;
    this.#connection.close();
    const running = this.#rings.filter((ring) => ring.queue !== undefined);
    running.forEach((ring) => ring.pause());
    const drained = this.#drained(running);
    let idle = true;
    try {
      await within(drained, { timeoutMs: this.#options.drainTimeoutMs, what: 'the device to finish its requests at the end of its session' });
    } catch (error) {
      idle = false;
      events.error(error as Error);
    }
    this.#rings.forEach((ring) => ring.close());
    if (this.#backendFd !== undefined) closeFd(this.#backendFd);
    this.#backendFd = undefined;
    // Memory in use by a device that hangs stays mapped: an unmap would have its I/O write elsewhere.
    if (idle) this.memory.clear();
    else drained.then(() => this.memory.clear(), () => undefined);
    try {
      this.device.reset?.();
    } catch (error) {
      this.deviceFailed(error);
    }
    events.ended();
  }
}

function refuseUnoffered(name: string, accepted: bigint, offered: bigint): void {
  const extra = accepted & ~offered;
  if (extra !== 0n) {
    throw new ProtocolError(`vhost-user: ${name} accepts 0x${extra.toString(16)}, which was not offered (0x${offered.toString(16)} was)`, { sent: offered, received: accepted });
  }
}

/** One line of the log: the request and its numbers. */
function describe({ name, payload, needReply, fds }: Request): string {
  const text = JSON.stringify(payload, (key, value: unknown) => {
    if (typeof value === 'bigint') return `0x${value.toString(16)}`;
    return key === 'bytes' ? `${(value as Uint8Array).length} bytes` : value;
  }) as string | undefined;
  return [name, text?.replaceAll('"', ''), fds.count > 0 ? `+${fds.count} fd` : '', needReply ? '(ack)' : ''].filter(Boolean).join(' ');
}
