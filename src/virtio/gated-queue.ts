// One life of a queue behind its gate: from the queue's start to its stop. Passes requests on to the
// device, or keeps them, as the gate's rules say. What the rules are is queue-gate.ts's.
import { UsageError } from '../errors.ts';
import type { ProtocolError } from '../errors.ts';
import type { DescriptorChain, QueueCounts, Virtqueue } from './virtqueue.ts';

/** What the gate says of each request. */
export interface GateRules {
  readonly held: boolean;
  /** Someone waits to be shown the next request. */
  readonly watched: boolean;
  readonly latencyMs: number;
  show(request: KeptRequest): void;
  /** The id to answer the next completed request under, when it is to be a wrong one. */
  takeWrongId(): number | undefined;
}

const COPY_BYTES = 512;

/** A request as the gate saw it pass. */
export class KeptRequest {
  readonly head: number;
  readonly readableBytes: number;
  readonly writableBytes: number;
  /** The first bytes (at most 512) of what the driver sent. */
  readonly readable: Uint8Array;
  readonly #queue: GatedQueue;

  constructor(readonly chain: DescriptorChain, queue: GatedQueue) {
    this.head = chain.head;
    this.readableBytes = chain.readableBytes;
    this.writableBytes = chain.writableBytes;
    this.readable = new Uint8Array(Math.min(COPY_BYTES, chain.readableBytes));
    chain.copyOut(0, this.readable);
    this.#queue = queue;
  }

  /** Let this one on to the device. UsageError when it is held no more. */
  release(): void {
    this.#queue.letOn(this);
  }

  /** Answer it without the device seeing it, truthfully or not: any id, any length. UsageError when it is held no more. */
  completeAs({ id = this.head, writtenBytes }: { id?: number; writtenBytes: number }): void {
    this.#queue.completeAs(this.#queue.take(this), id, writtenBytes);
  }
}

export class GatedQueue implements Virtqueue {
  readonly #waiting: KeptRequest[] = [];
  readonly #ready: DescriptorChain[] = [];
  /** Answers kept back by the latency. */
  readonly #late = new Map<NodeJS.Timeout, () => void>();
  #closing = false;

  constructor(readonly inner: Virtqueue, readonly rules: GateRules, readonly process: (queue: Virtqueue) => void) {}

  get size(): number {
    return this.inner.size;
  }

  get counts(): QueueCounts {
    return this.inner.counts;
  }

  get broken(): ProtocolError | undefined {
    return this.inner.broken;
  }

  get waiting(): number {
    return this.#waiting.length;
  }

  next(): DescriptorChain | undefined {
    if (this.#closing) return undefined;
    if (this.#ready.length > 0) return this.#ready.shift();
    for (let chain = this.inner.next(); chain !== undefined; chain = this.inner.next()) {
      if (!this.rules.held && !this.rules.watched) return chain;
      const request = new KeptRequest(chain, this);
      const held = this.rules.held;
      if (held) this.#waiting.push(request);
      this.rules.show(request);
      if (!held) return chain;
    }
    return undefined;
  }

  complete(chain: DescriptorChain, writtenBytes: number): void {
    if (this.rules.latencyMs === 0) this.#answer(chain, writtenBytes);
    else this.#later(() => this.#answer(chain, writtenBytes));
  }

  /** A wrong id goes to the first of them, and breaks them apart: the driver is lied to anyway. */
  completeTogether(chains: readonly DescriptorChain[], writtenBytes: readonly number[], count = chains.length): void {
    if (this.rules.latencyMs === 0) return this.#answerTogether(chains, writtenBytes, count);
    const [mine, lengths] = [chains.slice(0, count), writtenBytes.slice(0, count)];
    this.#later(() => this.#answerTogether(mine, lengths, count));
  }

  completeAs(chain: DescriptorChain, id: number, writtenBytes: number): void {
    this.inner.completeAs(chain, id, writtenBytes);
  }

  break(reason: ProtocolError): void {
    this.inner.break(reason);
  }

  putBack(chain: DescriptorChain): boolean {
    return this.inner.putBack(chain);
  }

  /** Everything kept goes on to the device, in order. */
  letAllOn(): void {
    for (const { chain } of this.#waiting.splice(0)) this.#ready.push(chain);
    this.process(this);
  }

  letOn(request: KeptRequest): void {
    this.#ready.push(this.take(request));
    this.process(this);
  }

  take(request: KeptRequest): DescriptorChain {
    const at = this.#waiting.indexOf(request);
    if (at < 0) throw new UsageError(`request ${request.head} is held no more`);
    this.#waiting.splice(at, 1);
    return request.chain;
  }

  /**
   * The queue is being stopped: requests that the device never saw go back into the ring, and none are
   * taken any more.
   */
  stopTaking(): void {
    this.#closing = true;
    const kept = [...this.#ready.splice(0), ...this.#waiting.splice(0).map(({ chain }) => chain)];
    for (const chain of kept.reverse()) this.inner.putBack(chain);
  }

  /** Give the late answers now. */
  flush(): void {
    for (const finish of [...this.#late.values()]) finish();
  }

  /** The queue is gone: nothing of it is of use. */
  drop(): void {
    this.#closing = true;
    for (const timer of this.#late.keys()) clearTimeout(timer);
    this.#late.clear();
    this.#waiting.length = 0;
    this.#ready.length = 0;
  }

  #later(answer: () => void): void {
    const finish = (): void => {
      clearTimeout(timer);
      this.#late.delete(timer);
      answer();
    };
    const timer = setTimeout(finish, this.rules.latencyMs);
    this.#late.set(timer, finish);
  }

  #answerTogether(chains: readonly DescriptorChain[], writtenBytes: readonly number[], count: number): void {
    const wrongId = count > 0 ? this.rules.takeWrongId() : undefined;
    if (wrongId === undefined) return this.inner.completeTogether(chains, writtenBytes, count);
    for (let i = 0; i < count; i += 1) this.inner.completeAs(chains[i], i === 0 ? wrongId : chains[i].head, writtenBytes[i]);
  }

  #answer(chain: DescriptorChain, writtenBytes: number): void {
    const wrongId = this.rules.takeWrongId();
    if (wrongId === undefined) this.inner.complete(chain, writtenBytes);
    else this.inner.completeAs(chain, wrongId, writtenBytes);
  }
}
