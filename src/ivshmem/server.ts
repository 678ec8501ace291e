// The host's side of QEMU's ivshmem-doorbell device: the server that hands QEMU its shared memory and
// eventfds, and a peer of its own that fires the guest's vectors and hears the guest's doorbells.
// QEMU docs/specs/ivshmem-spec.rst, "The ivshmem Client-Server Protocol", version 0.
//
// One client at a time: there are no other guests to ring. Migration and reconnecting are not handled;
// FACTS of QEMU: a plug needs a chardev, hence a server, of its own; quiesce before device_del.
import { readFileSync } from 'node:fs';
import { EnvironmentError, ProtocolError, UsageError } from '../errors.ts';
import {
  closeFd, createEventfd, createMemfd, mapFile, pollEventfd, pollSocket, raiseOpenFileLimit, readEventfd,
  receiveMessage, sendMessage, signalEventfd, unmapFile, unreadBytes,
} from '../native/index.ts';
import type { Poll, SocketPoll } from '../native/index.ts';
import { UnixListener } from '../native/unix-listener.ts';
import { within } from '../wait.ts';

/** Most vectors of one device: the MSI-X limit (PCI 3.0, 6.8.2: an 11-bit table size). */
export const IVSHMEM_VECTORS_MAX = 2048;
/** The host's peer id: what a guest writes in the high half of the doorbell register. */
export const IVSHMEM_HOST_PEER = 0;
/** QEMU's peer id, which the guest reads in IVPosition. */
export const IVSHMEM_GUEST_PEER = 1;

const PROTOCOL_VERSION = 0;
const SHARED_MEMORY = -1;
/** How often to look whether QEMU has read what was sent: the kernel has no event for it. */
const READ_CHECK_MS = 2;

export interface IvshmemServerOptions {
  /** Where to listen, at most 107 bytes; removed on close. */
  readonly path: string;
  /** MSI-X vectors to hand to QEMU, 1 to 2048: the same number as the device's `vectors=`. */
  readonly vectors: number;
  /** Size of the shared memory (BAR 2): a power of two, at least a page. */
  readonly sharedBytes: number;
  /** Doorbells of the host's peer that the guest can ring. Default: as many as vectors, at most 16. */
  readonly doorbells?: number;
  /** The guest rang: count is over one when rings came closer together than they were seen. */
  readonly onDoorbell?: (doorbell: number, count: number) => void;
  /** The server broke in the background (out of descriptors): nothing will work any more. */
  readonly onError?: (error: Error) => void;
  readonly log?: (line: string) => void;
}

/** A promise that is settled from outside; its rejection is nobody's but a waiter's. */
class Milestone {
  resolve!: () => void;
  reject!: (error: Error) => void;
  readonly promise = new Promise<void>((resolve, reject) => {
    this.resolve = resolve;
    this.reject = reject;
  });
  constructor() {
    this.promise.catch(() => undefined);
  }
}

interface Client {
  readonly fd: number;
  poll: SocketPoll | undefined;
  /** Messages of the handover sent so far. */
  sent: number;
}

export class IvshmemServer {
  /** The shared memory as this process sees it; detached by close(). */
  readonly memory: ArrayBuffer;
  /** Told of each vector that is fired, just before. */
  onFired: ((vector: number) => void) | undefined;
  readonly #options: IvshmemServerOptions;
  readonly #memoryFd: number;
  readonly #vectorFds: number[] = [];
  readonly #doorbellFds: number[] = [];
  readonly #doorbellPolls: Poll[] = [];
  readonly #listener: UnixListener;
  readonly #fired: Uint32Array;
  readonly #rung: Uint32Array;
  #client: Client | undefined;
  #handedOver = new Milestone();
  #quiescent = false;
  #closed = false;

  /** Listen at once. UsageError for bad options; EnvironmentError for descriptors or memory lacking. */
  static listen(options: IvshmemServerOptions): IvshmemServer {
    const { vectors, sharedBytes, doorbells = Math.min(vectors, 16) } = options;
    if (!Number.isInteger(vectors) || vectors < 1 || vectors > IVSHMEM_VECTORS_MAX) {
      throw new UsageError(`ivshmem: ${vectors} vectors asked for`, { hint: `it has 1 to ${IVSHMEM_VECTORS_MAX}` });
    }
    if (!Number.isInteger(doorbells) || doorbells < 0 || doorbells > vectors) {
      throw new UsageError(`ivshmem: ${doorbells} doorbells asked for`, { hint: `QEMU keeps at most as many as vectors, ${vectors}` });
    }
    if (!Number.isInteger(Math.log2(sharedBytes)) || sharedBytes < 4096 || sharedBytes > 2 ** 32) {
      throw new UsageError(`ivshmem: ${sharedBytes} bytes of shared memory asked for`, { hint: 'a BAR is a power of two; 4 KiB to 4 GiB' });
    }
    const needed = vectors + doorbells + 256;
    const limit = raiseOpenFileLimit(needed);
    if (limit < needed) {
      throw new EnvironmentError(`ivshmem with ${vectors} vectors needs about ${needed} open files, and the limit is ${limit}`, {
        hint: `raise it before starting: ulimit -n ${needed} (as root: ulimit -Hn)`,
      });
    }
    return new IvshmemServer({ ...options, doorbells });
  }

  private constructor(options: IvshmemServerOptions & { doorbells: number }) {
    this.#options = options;
    this.#fired = new Uint32Array(options.vectors);
    this.#rung = new Uint32Array(options.doorbells);
    this.#listener = new UnixListener({
      path: options.path,
      onConnection: (fd) => this.#connect(fd),
      onError: (error) => options.onError?.(error),
    });
    const opened: number[] = [];
    try {
      opened.push((this.#memoryFd = createMemfd('ivshmem', options.sharedBytes)));
      for (let i = 0; i < options.vectors; i++) opened.push((this.#vectorFds[i] = createEventfd()));
      for (let i = 0; i < options.doorbells; i++) opened.push((this.#doorbellFds[i] = createEventfd()));
      this.memory = mapFile(this.#memoryFd, 0, options.sharedBytes);
    } catch (error) {
      for (const fd of opened) closeFd(fd);
      this.#listener.close();
      throw error;
    }
    this.#doorbellFds.forEach((fd, doorbell) => this.#doorbellPolls.push(pollEventfd(fd, (count) => this.#ring(doorbell, count))));
  }

  get path(): string {
    return this.#options.path;
  }

  /** QEMU is connected and was handed everything. */
  get connected(): boolean {
    return this.#client !== undefined && this.#client.sent === this.#messageCount;
  }

  /**
   * QEMU connected and has read every vector's eventfd. DeadlineError after `timeoutMs` (default 5 s);
   * ProtocolError when it left before.
   */
  async ready({ timeoutMs = 5000, signal }: { timeoutMs?: number; signal?: AbortSignal } = {}): Promise<void> {
    const over = new AbortController();
    const read = async (): Promise<void> => {
      await this.#handedOver.promise;
      while (this.#client !== undefined && unreadBytes(this.#client.fd) > 0 && !over.signal.aborted) {
        await new Promise((resolve) => setTimeout(resolve, READ_CHECK_MS));
      }
      // What QEMU did not read is gone with it too: let the socket say that it left. Two turns have a poll between them.
      for (let turn = 0; turn < 2; turn += 1) await new Promise((resolve) => { setImmediate(resolve); });
      if (this.#client === undefined) throw new ProtocolError('QEMU left the ivshmem server before it had read its vectors');
    };
    const what = `QEMU to connect to the ivshmem server at ${this.path} and read its ${this.#options.vectors} vectors`;
    try {
      await within(read(), { timeoutMs, what, signal });
    } finally {
      over.abort();
    }
  }

  /** Fire one of the guest's vectors. UsageError when there is no such, nobody is connected, or after quiesce. */
  fire(vector: number): void {
    const fd = this.#vectorFds[vector];
    if (fd === undefined) {
      throw new UsageError(`ivshmem: there is no vector ${vector}`, { hint: `vectors are 0 to ${this.#options.vectors - 1}` });
    }
    if (!this.connected) throw new UsageError(`ivshmem: vector ${vector} fired, and no QEMU is connected`, { hint: 'await ready() first' });
    if (this.#quiescent) throw new UsageError(`ivshmem: vector ${vector} fired after quiesce(): the device is being unplugged`);
    this.onFired?.(vector);
    signalEventfd(fd);
    this.#fired[vector] = (this.#fired[vector] ?? 0) + 1;
  }

  /** Times each vector was fired since listen(); those never fired are not in it. */
  fired(): ReadonlyMap<number, number> {
    return counted(this.#fired);
  }

  /** Times the guest was seen to ring each of the host's doorbells. */
  rung(): ReadonlyMap<number, number> {
    return counted(this.#rung);
  }

  /**
   * Fire nothing any more: `device_del` under fire crashes QEMU. Resolves when QEMU has taken what was
   * fired; a signal that it leaves (a vector masked under KVM) is taken back after `timeoutMs`.
   */
  async quiesce({ timeoutMs = 200 }: { timeoutMs?: number } = {}): Promise<void> {
    this.#quiescent = true;
    if (this.#closed) return;
    const deadline = performance.now() + timeoutMs;
    const pending = (fd: number): boolean => !this.#closed && pendingSignals(fd) > 0;
    let left = this.#vectorFds.filter((_fd, vector) => this.#fired[vector] !== 0);
    while ((left = left.filter(pending)).length > 0 && this.connected && performance.now() < deadline) {
      await new Promise((resolve) => setTimeout(resolve, READ_CHECK_MS));
    }
    if (!this.#closed) left.forEach(readEventfd);
  }

  /** Hang up, stop listening, unmap. Idempotent. */
  close(): Promise<void> {
    if (!this.#closed) {
      this.#closed = true;
      this.#quiescent = true;
      this.#disconnect('the server closed');
      this.#listener.close();
      for (const poll of this.#doorbellPolls) poll.stop();
      for (const fd of [...this.#vectorFds, ...this.#doorbellFds, this.#memoryFd]) closeFd(fd);
      unmapFile(this.memory);
    }
    return Promise.resolve();
  }

  #ring(doorbell: number, count: number): void {
    if (count < 0) return;
    this.#rung[doorbell] = (this.#rung[doorbell] ?? 0) + count;
    this.#options.onDoorbell?.(doorbell, count);
  }

  #connect(fd: number): void {
    if (this.#client !== undefined) {
      this.#options.log?.('ivshmem: a second client was turned away');
      closeFd(fd);
      return;
    }
    for (const vector of this.#vectorFds) readEventfd(vector); // a former client's, never to be delivered
    const client: Client = { fd, poll: undefined, sent: 0 };
    this.#client = client;
    client.poll = pollSocket(fd, ({ readable }) => {
      if (readable) this.#listen(client);
      if (this.#client === client) this.#handOver(client);
    });
    this.#handOver(client);
  }

  /** The connection is one-way: all that can come is the end, or a peer that does not know the protocol. */
  #listen(client: Client): void {
    try {
      const received = receiveMessage(client.fd, new Uint8Array(64));
      for (const fd of received?.fds ?? []) closeFd(fd);
      if (received === undefined) return;
      if (received.byteCount === 0) this.#disconnect('QEMU hung up');
      else this.#disconnect(`the client sent ${received.byteCount} bytes, and the protocol has none to send`);
    } catch (error) {
      this.#disconnect(String(error));
    }
  }

  get #messageCount(): number {
    return 3 + this.#doorbellFds.length + this.#vectorFds.length;
  }

  /** Message `index` of the handover, in the order that the specification numbers them. */
  #message(index: number): { value: number; fds: number[] } {
    if (index === 0) return { value: PROTOCOL_VERSION, fds: [] };
    if (index === 1) return { value: IVSHMEM_GUEST_PEER, fds: [] };
    if (index === 2) return { value: SHARED_MEMORY, fds: [this.#memoryFd] };
    const doorbell = this.#doorbellFds[index - 3];
    if (doorbell !== undefined) return { value: IVSHMEM_HOST_PEER, fds: [doorbell] };
    return { value: IVSHMEM_GUEST_PEER, fds: [this.#vectorFds[index - 3 - this.#doorbellFds.length] as number] };
  }

  /** Send what is left of the handover, as far as the socket takes it: 2048 descriptors do not fit at once. */
  #handOver(client: Client): void {
    if (client.sent === this.#messageCount) return;
    const bytes = new Uint8Array(8);
    const view = new DataView(bytes.buffer);
    try {
      for (; client.sent < this.#messageCount; client.sent++) {
        const { value, fds } = this.#message(client.sent);
        view.setBigInt64(0, BigInt(value), true);
        if (sendMessage(client.fd, bytes, fds) === undefined) {
          client.poll?.wantWritable(true);
          return;
        }
      }
      client.poll?.wantWritable(false);
      this.#options.log?.(`ivshmem: handed QEMU ${this.#vectorFds.length} vectors and ${this.#doorbellFds.length} doorbells`);
      this.#handedOver.resolve();
    } catch (error) {
      this.#disconnect(String(error));
    }
  }

  #disconnect(reason: string): void {
    const client = this.#client;
    if (client === undefined) return;
    this.#client = undefined;
    client.poll?.stop();
    closeFd(client.fd);
    this.#options.log?.(`ivshmem: ${reason}`);
    this.#handedOver.reject(new ProtocolError(`ivshmem: the client left before it was handed its vectors: ${reason}`));
    this.#handedOver = new Milestone();
  }
}

/** An eventfd's count, without taking it: proc(5), fdinfo. */
function pendingSignals(fd: number): number {
  const count = /^eventfd-count:\s*([0-9a-f]+)$/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8'))?.[1];
  return count === undefined ? 0 : Number.parseInt(count, 16);
}

function counted(counts: Uint32Array): Map<number, number> {
  const result = new Map<number, number>();
  counts.forEach((count, index) => {
    if (count > 0) result.set(index, count);
  });
  return result;
}
