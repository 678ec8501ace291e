// One front end's session: its beginning and end, and from each message to what does it (requests.ts says
// which those are; memory-, ring- and device-requests.ts do them). QEMU docs/interop/vhost-user.rst. A
// ProtocolError ends the session: rings stopped, memory unmapped, the device reset; never the process.
import { ProtocolError } from '../errors.ts';
import { closeFd } from '../native/index.ts';
import type { VirtioDevice } from '../virtio/device.ts';
import { hasFeature } from '../virtio/features.ts';
import type { Virtqueue } from '../virtio/virtqueue.ts';
import { within } from '../wait.ts';
import type { BackendChannel, ChannelOutcome } from './backend-channel.ts';
import type { Payloads } from './codec.ts';
import { Connection } from './connection.ts';
import type { Request } from './connection.ts';
import { deviceRequests, virtioFeatures } from './device-requests.ts';
import { DirtyLog } from './dirty-log.ts';
import type { InflightArea, InflightRegion } from './inflight.ts';
import { MemoryMap } from './memory.ts';
import { memoryRequests } from './memory-requests.ts';
import { PROTOCOL_FEATURES } from './requests.ts';
import type { ImplementedName, PayloadKind, Refusal } from './requests.ts';
import type { RingOwner } from './ring.ts';
import { ringRequests } from './ring-requests.ts';
import { RingSet } from './ring-set.ts';
import { ReplyWithFd } from './session-state.ts';
import type { Handlers, SessionState } from './session-state.ts';

export interface SessionEvents {
  called(index: number): void;
  kicked(index: number, count: number): void;
  /** The device has had its turn at a ring. */
  looked(index: number, queue: Virtqueue): void;
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

export class Session implements RingOwner, SessionState {
  readonly device: VirtioDevice;
  readonly memory = new MemoryMap();
  readonly dirtyLog = new DirtyLog();
  readonly rings: RingSet;
  features = 0n;
  protocolFeatures = 0n;
  status = 0;
  needsReset = false;
  inflightArea: InflightArea | undefined;
  channel: BackendChannel | undefined;
  readonly #options: SessionOptions;
  readonly #connection: Connection;
  readonly #handlers: Handlers;
  #end: Promise<void> | undefined;

  constructor(options: SessionOptions) {
    this.#options = options;
    this.device = options.device;
    this.rings = new RingSet(this, options);
    this.#handlers = { ...deviceRequests(this), ...memoryRequests(this), ...ringRequests(this) };
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
  get virtioFeatures(): bigint {
    return virtioFeatures(this.features);
  }

  /** The front end has gone or was hung up on; the device may still be finishing its requests. */
  get ending(): boolean {
    return this.#end !== undefined;
  }

  /** The queue while its ring runs. */
  queue(index: number): Virtqueue | undefined {
    return this.rings.find(index)?.queue;
  }

  /** Write the ring's call eventfd; false when it has none. */
  signal(index: number): boolean {
    return this.rings.find(index)?.signal() ?? false;
  }

  /** Tell the front end that config space changed; undefined when it does not listen. */
  configChanged(timeoutMs: number): Promise<ChannelOutcome> | undefined {
    return this.channel?.configChanged(timeoutMs);
  }

  /**
   * End the session, from either side: drain, stop, unmap, reset the device. Idempotent. `abrupt`: stop before
   * draining, so that requests in flight are neither used nor given back, as if the process had died.
   */
  end({ abrupt = false }: { abrupt?: boolean } = {}): Promise<void> {
    return (this.#end ??= this.#finish(abrupt));
  }

  /**
   * The device needs a reset: said by GET_STATUS, by the rings' error eventfds and, since the driver is to be
   * notified (virtio 1.2, 2.1.2), by a config change. It is said until the front end resets the device.
   */
  askForReset(): void {
    this.needsReset = true;
    this.rings.signalError();
    void this.configChanged(5000);
  }

  // What the rings ask and report.
  inflight(index: number, size: number, packed: boolean): InflightRegion | undefined {
    return this.inflightArea?.region(index, size, packed);
  }
  called(index: number): void {
    this.#options.events.called(index);
  }
  kicked(index: number, count: number): void {
    this.#options.events.kicked(index, count);
  }
  looked(index: number, queue: Virtqueue): void {
    this.#options.events.looked(index, queue);
  }
  started(index: number): void {
    this.#options.events.started(index);
  }
  broken(index: number, error: ProtocolError): void {
    this.needsReset = true;
    this.log(`queue ${index} is broken: ${error.summary}`);
    this.#options.events.error(error);
  }
  deviceFailed(error: unknown): void {
    this.#options.events.error(error instanceof Error ? error : new ProtocolError(`the device failed: ${String(error)}`, { cause: error }));
  }

  // What the requests ask.
  log(line: string): void {
    this.#options.events.log(line);
  }
  fail(error: Error): void {
    this.#options.events.error(error);
    void this.end();
  }

  #dispatch(request: Request): void | Promise<void> {
    const { name, spec } = request;
    this.log(describe(request));
    if (spec.refused !== undefined) return this.#decline(request, spec.refused);
    try {
      if (spec.needs !== undefined && !hasFeature(this.protocolFeatures, PROTOCOL_FEATURES[spec.needs])) {
        throw new ProtocolError(`vhost-user: ${name} without the protocol feature ${spec.needs}`);
      }
      const handler = this.#handlers[name as ImplementedName] as (request: Request) => unknown;
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

  #answer({ spec: { id, reply }, needReply }: Request, result: unknown): void {
    if (reply === undefined) {
      if (needReply && this.#acknowledges) this.#connection.reply(id, 'u64', result === 1 ? 1n : 0n);
    } else if (result instanceof ReplyWithFd) {
      const { payload, fd } = result as ReplyWithFd<PayloadKind>;
      try {
        this.#connection.reply(id, reply, payload, [fd]);
      } finally {
        closeFd(fd);
      }
    } else {
      this.#connection.reply(id, reply, result as Payloads[typeof reply]);
    }
  }

  /** A request that this back end does not do: say so if the protocol has words for it, else end the session. */
  #decline(request: Request, { why, reply }: Refusal): void {
    const { name, id, needReply, spec } = request;
    const error = new ProtocolError(`vhost-user: ${name === 'UNKNOWN' ? `message ${id}` : name} is refused: ${why}`, { received: request.payload });
    if (reply !== undefined) this.#connection.reply(id, 'u64', reply);
    else if (spec.reply === undefined && needReply && this.#acknowledges) this.#connection.reply(id, 'u64', 1n);
    else throw error;
    this.log(error.summary);
  }

  /** Say no, as far as the protocol has words for it, and end the session. */
  #refuse({ spec: { id, reply }, needReply }: Request, error: unknown): never {
    try {
      if (reply === undefined && needReply && this.#acknowledges) this.#connection.reply(id, 'u64', 1n);
    } catch {
      // the first error says more than that the front end does not hear it
    }
    throw error;
  }

  get #acknowledges(): boolean {
    return hasFeature(this.protocolFeatures, PROTOCOL_FEATURES.REPLY_ACK);
  }

  async #finish(abrupt: boolean): Promise<void> {
    const { events, drainTimeoutMs } = this.#options;
    this.#connection.close();
    const { running } = this.rings;
    running.forEach((ring) => (abrupt ? ring.stop() : ring.pause()));
    const drained = this.rings.drained(running);
    let idle = true;
    try {
      await within(drained, { timeoutMs: drainTimeoutMs, what: 'the device to finish its requests at the end of its session' });
    } catch (error) {
      idle = false;
      events.error(error as Error);
    }
    this.rings.close();
    this.channel?.close();
    this.dirtyLog.close();
    this.inflightArea?.close();
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

/** One line of the log: the request and its numbers. */
function describe({ name, id, payload, needReply, fds }: Request): string {
  const text = JSON.stringify(payload, (key, value: unknown) => {
    if (value instanceof Uint8Array) return `${value.length} bytes`;
    return typeof value === 'bigint' ? `0x${value.toString(16)}` : value;
  }) as string | undefined;
  return [name === 'UNKNOWN' ? `message ${id}` : name, text?.replaceAll('"', ''), fds.count > 0 ? `+${fds.count} fd` : '', needReply ? '(ack)' : ''].filter(Boolean).join(' ');
}
