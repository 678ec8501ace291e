// A vhost-user back end: a virtio device of this process behind a listening Unix socket, to which QEMU
// connects, or one that connects to QEMU. One front end at a time. Counts what the device fired
// and lets a test come between the device and its interrupts. Does not close the device: its owner does.
import { DeadlineError, ProtocolError, UsageError } from '../errors.ts';
import { closeFd, connectUnix } from '../native/index.ts';
import { UnixListener } from '../native/unix-listener.ts';
import type { VirtioDevice } from '../virtio/device.ts';
import type { Virtqueue } from '../virtio/virtqueue.ts';
import { within } from '../wait.ts';
import type { Recorder } from '../recorder.ts';
import type { ChannelOutcome } from './backend-channel.ts';
import { RingRecord } from './ring-record.ts';
import { Session } from './session.ts';

/** What becomes of an interrupt that the device fired on a queue: a broken device's means of breaking. */
export type CallDecision = 'deliver' | 'drop' | { readonly queue: number };

/** The index under which config changes are counted: they have a vector, but no queue. */
export const CONFIG_CHANGE = -1;

export interface VhostUserBackendOptions {
  /** Where to listen (removed on close), or where QEMU listens; at most 107 bytes. */
  readonly path: string;
  readonly device: VirtioDevice;
  /**
   * Something broke: a ring or a message (ProtocolError), the device's own code, a drain that did not
   * end (DeadlineError). The back end goes on: a broken ring is stopped, a broken session ended.
   */
  readonly onError?: (error: Error) => void;
  readonly log?: (line: string) => void;
  /** How long the device may take to finish its requests when a ring is stopped. Default 5 s. */
  readonly drainTimeoutMs?: number;
  /** Where interrupts that were fired are counted, one number a queue: memory that another thread looks at. */
  readonly firedCounts?: Uint32Array;
  /** Where its rings and interrupts are recorded, under this name. */
  readonly record?: { readonly recorder: Recorder; readonly name: string };
}

export class VhostUserBackend {
  /** Asked before every interrupt of a queue; absent: all are delivered. */
  beforeCall: ((queueIndex: number) => CallDecision) | undefined;
  /** Told of each interrupt that `fired` counts, just before. */
  onFired: ((queueIndex: number) => void) | undefined;
  readonly #options: VhostUserBackendOptions;
  readonly #side: 'listen' | 'connect';
  #listener: UnixListener | undefined;
  readonly #fired: Uint32Array;
  readonly #signalled: Uint32Array;
  readonly #kicked: Uint32Array;
  readonly #record: RingRecord | undefined;
  #configChanges = 0;
  #session: Session | undefined;
  /** A front end that connected while the last one's session was still ending. */
  #waitingFd: number | undefined;
  /** Asked when a front end has connected and when a ring has started. */
  readonly #watchers = new Set<() => void>();
  /** Down since crash({ down: true }): the rings that ran until then. */
  #ranBefore: readonly number[] | undefined;
  #closed: Promise<void> | undefined;

  /** Listen at once. Throws SystemCallError (an EnvironmentError): EADDRINUSE, ENAMETOOLONG, EACCES. */
  static listen(options: VhostUserBackendOptions): VhostUserBackend {
    return new VhostUserBackend(options, 'listen');
  }

  /**
   * Connect to a front end that listens (QEMU's `-chardev socket,server=on`), before the device is added to it.
   * Serves that one session: when it is over, another back end may connect. Throws SystemCallError: ENOENT,
   * ECONNREFUSED, ENAMETOOLONG.
   */
  static connect(options: VhostUserBackendOptions): VhostUserBackend {
    return new VhostUserBackend(options, 'connect');
  }

  private constructor(options: VhostUserBackendOptions, side: 'listen' | 'connect') {
    const { queueCount } = options.device;
    if (!Number.isInteger(queueCount) || queueCount < 1 || queueCount > 256) {
      throw new UsageError(`a vhost-user device with ${queueCount} queues`, { hint: 'it has 1 to 256' });
    }
    this.#options = options;
    this.#fired = options.firedCounts ?? new Uint32Array(queueCount);
    this.#signalled = new Uint32Array(queueCount);
    this.#kicked = new Uint32Array(queueCount);
    this.#side = side;
    this.#record = options.record && new RingRecord(options.record.recorder, options.record.name);
    this.#begin();
  }

  #begin(): void {
    const { path, onError } = this.#options;
    if (this.#side === 'connect') {
      this.#start(connectUnix(path));
      return;
    }
    this.#listener = new UnixListener({
      path,
      onConnection: (fd) => this.#connect(fd),
      onError: (error) => onError?.(error),
    });
  }

  get path(): string {
    return this.#options.path;
  }

  /** A front end is connected. */
  get connected(): boolean {
    return this.#session !== undefined;
  }

  /** Virtio feature bits that the driver accepted; undefined without a front end, 0 before it did. */
  get features(): bigint | undefined {
    return this.#session?.virtioFeatures;
  }

  /** The queue while its ring runs: its counts, and whether it is broken. */
  queue(index: number): Virtqueue | undefined {
    return this.#session?.queue(index);
  }

  /** A driver started the queue (now, or it runs already). DeadlineError after `timeoutMs`. */
  queueStarted(index: number, { timeoutMs, signal }: { timeoutMs: number; signal?: AbortSignal }): Promise<void> {
    const what = `a driver to start queue ${index} of the device at ${this.path}`;
    return this.#until(() => this.queue(index) !== undefined, { timeoutMs, signal, what });
  }

  async #until(done: () => boolean, wait: { timeoutMs: number; signal?: AbortSignal | undefined; what: string }): Promise<void> {
    let watch = (): void => undefined;
    const happened = new Promise<void>((resolve) => {
      watch = () => {
        if (done()) resolve();
      };
    });
    this.#watchers.add(watch);
    watch();
    try {
      await within(happened, wait);
    } finally {
      this.#watchers.delete(watch);
    }
  }

  /**
   * Interrupts that the device fired, by queue (CONFIG_CHANGE: config changes), since listen(): its own
   * claim. One that `beforeCall` dropped or sent elsewhere counts for the queue it was meant for.
   */
  fired(): ReadonlyMap<number, number> {
    const counts = counted(this.#fired);
    if (this.#configChanges > 0) counts.set(CONFIG_CHANGE, this.#configChanges);
    return counts;
  }

  /** Writes to each queue's call eventfd: what really left the device. */
  signalled(): ReadonlyMap<number, number> {
    return counted(this.#signalled);
  }

  /** Kicks seen on each queue; the driver's writes may be merged. */
  kicked(): ReadonlyMap<number, number> {
    return counted(this.#kicked);
  }

  /** Fire a queue's interrupt although nothing was used. UsageError when the driver has set none up. */
  signal(queueIndex: number): void {
    this.onFired?.(queueIndex);
    if (!this.#signal(queueIndex)) throw new UsageError(`vhost-user: queue ${queueIndex} has no call eventfd to signal`);
    this.#fired[queueIndex] = (this.#fired[queueIndex] ?? 0) + 1;
    this.#record?.fired(queueIndex);
  }

  /**
   * The device's config space changed: have the driver told. UsageError when nobody listens. QEMU reads it
   * again; 7.2's vhost-user-blk interrupts the driver only when the capacity is another than before.
   * Resolves to what the front end said of it (`unanswered` after `timeoutMs`), and never rejects.
   */
  configChanged({ timeoutMs = 5000 }: { timeoutMs?: number } = {}): Promise<ChannelOutcome> {
    const outcome = this.#session?.configChanged(timeoutMs);
    if (outcome === undefined) throw new UsageError('vhost-user: a config change, and no front end that listens for it');
    this.#configChanges += 1;
    this.onFired?.(CONFIG_CHANGE);
    return outcome;
  }

  /**
   * As if the process of this back end died with requests in flight: the front end is hung up on, no request
   * that the device has is used or given back. One that listens goes on: a front end that comes back (QEMU's
   * chardev with `reconnect`) is served, and with INFLIGHT_SHMFD what was in flight comes first. `down`: nobody
   * is served until restart(). UsageError without a front end.
   */
  async crash({ down = false }: { readonly down?: boolean } = {}): Promise<void> {
    if (this.#session === undefined) throw new UsageError('vhost-user: a crash, and no front end to notice it');
    if (down) {
      this.#ranBefore = Array.from({ length: this.#fired.length }, (_, index) => index).filter((index) => this.queue(index) !== undefined);
      this.#listener?.close();
      this.#dropWaiting();
    }
    await this.#session.end({ abrupt: true });
  }

  /** After crash({ down: true }), until restart(). */
  get down(): boolean {
    return this.#ranBefore !== undefined;
  }

  /**
   * Listen (or connect) again after crash({ down: true }). Resolves when a front end is connected and every
   * queue that ran before the crash runs. DeadlineError after `timeoutMs`, which says what of it is missing;
   * UsageError when it is not down. SystemCallErrors as for listen() and connect(): it stays down then.
   */
  async restart({ timeoutMs, signal }: { timeoutMs: number; signal?: AbortSignal }): Promise<void> {
    const rings = this.#ranBefore;
    if (rings === undefined || this.#closed !== undefined) throw new UsageError('vhost-user: a restart of a back end that did not crash, or was closed');
    if (this.#session !== undefined) await this.#session.end();
    this.#begin();
    this.#ranBefore = undefined;
    const missing = (): number[] => rings.filter((index) => this.queue(index) === undefined);
    try {
      await this.#until(() => this.connected && missing().length === 0, { timeoutMs, signal, what: 'what it is' });
    } catch (error) {
      if (!(error instanceof DeadlineError)) throw error;
      if (!this.connected) {
        throw new DeadlineError(`a front end to connect again to ${this.path}`, timeoutMs, { hint: 'QEMU does so if the chardev has `reconnect`.' });
      }
      throw new DeadlineError(`queue ${missing().join(', ')} of the device at ${this.path} to run again`, timeoutMs, {
        hint: 'A front end is connected. Has the driver let go of the device since the crash? See the device\'s log.',
      });
    }
  }

  /** Tell the front end that the device needs a reset. UsageError without a front end. */
  needsReset(): void {
    if (this.#session === undefined) throw new UsageError('vhost-user: a device that needs a reset, and no front end to tell');
    this.#session.askForReset();
  }

  /** End the session, stop listening, remove the socket. Idempotent, and does not reject. */
  close(): Promise<void> {
    return (this.#closed ??= this.#close());
  }

  async #close(): Promise<void> {
    this.#listener?.close();
    this.#dropWaiting();
    await this.#session?.end();
  }

  #connect(fd: number): void {
    if (this.#session === undefined) {
      this.#start(fd);
    } else if (this.#session.ending && this.#waitingFd === undefined) {
      this.#waitingFd = fd;
    } else {
      this.#options.log?.('vhost-user: a second front end was turned away');
      closeFd(fd);
    }
  }

  #start(fd: number): void {
    this.#options.log?.('vhost-user: a front end is connected');
    this.#session = new Session({
      fd,
      device: this.#options.device,
      drainTimeoutMs: this.#options.drainTimeoutMs ?? 5000,
      events: {
        called: (index) => this.#called(index),
        kicked: (index, count) => {
          this.#kicked[index] = (this.#kicked[index] ?? 0) + count;
          this.#record?.kicked(index, count);
        },
        looked: (index, queue) => this.#record?.looked(index, queue),
        started: () => this.#wake(),
        log: (line) => this.#options.log?.(`vhost-user: ${line}`),
        error: (error) => this.#options.onError?.(error),
        ended: () => {
          this.#session = undefined;
          const next = this.#waitingFd;
          this.#waitingFd = undefined;
          if (next !== undefined) this.#start(next);
        },
      },
    });
    this.#wake();
  }

  #dropWaiting(): void {
    if (this.#waitingFd !== undefined) closeFd(this.#waitingFd);
    this.#waitingFd = undefined;
  }

  #wake(): void {
    for (const watch of this.#watchers) watch();
  }

  /** The hot path's end: from a completed request to the driver's interrupt. */
  #called(index: number): void {
    this.#fired[index] = (this.#fired[index] ?? 0) + 1;
    if (this.#record !== undefined) {
      this.#record.fired(index);
      const queue = this.queue(index);
      if (queue !== undefined) this.#record.looked(index, queue);
    }
    this.onFired?.(index);
    if (this.beforeCall === undefined) {
      this.#signal(index);
      return;
    }
    const decision = this.beforeCall(index);
    if (decision === 'drop') return;
    const target = decision === 'deliver' ? index : decision.queue;
    if (!this.#signal(target) && target !== index) {
      this.#options.onError?.(new ProtocolError(`vhost-user: queue ${target} has no call eventfd for an interrupt steered to it`));
    }
  }

  #signal(index: number): boolean {
    if (this.#session?.signal(index) !== true) return false;
    this.#signalled[index] = (this.#signalled[index] ?? 0) + 1;
    this.#record?.called(index);
    return true;
  }
}

export function counted(counts: Uint32Array): Map<number, number> {
  const result = new Map<number, number>();
  counts.forEach((count, index) => {
    if (count > 0) result.set(index, count);
  });
  return result;
}
