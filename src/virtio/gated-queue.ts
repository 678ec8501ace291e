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
  /** Something is to go wrong with the next answers, or with their order. */
  readonly faulty: boolean;
  /** What is to go wrong with the next answer. */
  takeFault(): AnswerFault | undefined;
  /** How many answers from the next one on are to be given in reverse; 0: none. Said once. */
  takeReordered(): number;
}

/** What goes wrong with an answer. */
export interface AnswerFault {
  readonly dropped: boolean;
  /** Elements of the used ring that say it. */
  readonly times?: number;
  readonly id?: number | undefined;
  readonly writtenBytes?: number | undefined;
}

/** A test's own answer to a request: all of it may be untrue. */
export interface RequestAnswer {
  /** Written to the start of the writable part. */
  readonly data?: Uint8Array;
  /** Written to the last writable byte: where virtio-blk, -scsi and control queues have their status. */
  readonly status?: number;
  /** `len` of the used element; unless told, how many bytes from the start of the writable part were written. */
  readonly writtenBytes?: number;
  /** `id` of the used element; the request's own unless told. */
  readonly id?: number;
  /** How many elements of the used ring say so; 1 unless told. */
  readonly times?: number;
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

  /**
   * Answer it without the device seeing it, truthfully or not. UsageError when it is held no more;
   * RangeError when its writable part is too short for the data or the status.
   */
  complete({ data, status, id = this.head, times = 1, ...answer }: RequestAnswer = {}): void {
    const { writableBytes, chain } = this;
    this.#queue.mustHold(this);
    if (data !== undefined) chain.copyIn(0, data);
    if (status !== undefined) chain.copyIn(writableBytes - 1, Uint8Array.of(status));
    const dataBytes = data?.length ?? 0;
    const written = status !== undefined && dataBytes >= writableBytes - 1 ? writableBytes : dataBytes;
    this.#queue.answerHeld(this, { id, writtenBytes: answer.writtenBytes ?? written, times });
  }

  /** Never answer it, and never put it back: it is lost. UsageError when it is held no more. */
  drop(): void {
    this.#queue.take(this);
  }
}

export class GatedQueue implements Virtqueue {
  readonly #waiting: KeptRequest[] = [];
  readonly #ready: DescriptorChain[] = [];
  /** Answers kept back by the latency. */
  readonly #late = new Map<NodeJS.Timeout, () => void>();
  /** Answers kept back until they can be given in reverse, and how many that takes. */
  readonly #reversed: (() => void)[] = [];
  #toReverse = 0;
  #closing = false;
  #dropped = false;

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
    if (this.#dropped) return;
    if (this.rules.latencyMs === 0) this.#answer(chain, writtenBytes);
    else this.#later(() => this.#answer(chain, writtenBytes));
  }

  /** A fault or an order that is due breaks them apart: the driver is lied to anyway. */
  completeTogether(chains: readonly DescriptorChain[], writtenBytes: readonly number[], count = chains.length): void {
    if (this.#dropped) return;
    if (this.rules.latencyMs === 0) return this.#answerTogether(chains, writtenBytes, count);
    const [mine, lengths] = [chains.slice(0, count), writtenBytes.slice(0, count)];
    this.#later(() => this.#answerTogether(mine, lengths, count));
  }

  completeAs(chain: DescriptorChain, id: number, writtenBytes: number): void {
    this.inner.completeAs(chain, id, writtenBytes);
  }

  putUsed(id: number, writtenBytes: number): void {
    this.inner.putUsed(id, writtenBytes);
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

  /** The request stands here no more; where it goes is the caller's. */
  take(request: KeptRequest): DescriptorChain {
    this.#waiting.splice(this.mustHold(request), 1);
    return request.chain;
  }

  /** Where it stands; UsageError when it does not. */
  mustHold(request: KeptRequest): number {
    const at = this.#waiting.indexOf(request);
    if (at < 0) throw new UsageError(`request ${request.head} is held no more`);
    return at;
  }

  answerHeld(request: KeptRequest, answer: Required<Pick<RequestAnswer, 'id' | 'writtenBytes' | 'times'>>): void {
    this.#put(this.take(request), answer);
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
    this.#giveReversed();
  }

  /** The queue is gone: nothing of it is of use. */
  drop(): void {
    this.#closing = true;
    this.#dropped = true;
    this.#reversed.length = 0;
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
    if (this.#toReverse === 0 && !this.rules.faulty) return this.inner.completeTogether(chains, writtenBytes, count);
    for (let i = 0; i < count; i += 1) this.#answer(chains[i], writtenBytes[i]);
  }

  #answer(chain: DescriptorChain, writtenBytes: number): void {
    if (!this.rules.faulty && this.#toReverse === 0) return this.inner.complete(chain, writtenBytes);
    if (this.#toReverse === 0) this.#toReverse = this.rules.takeReordered();
    if (this.#toReverse === 0) return this.#falsify(chain, writtenBytes);
    this.#reversed.push(() => this.#falsify(chain, writtenBytes));
    if (this.#reversed.length === this.#toReverse) this.#giveReversed();
  }

  #giveReversed(): void {
    this.#toReverse = 0;
    for (const answer of this.#reversed.splice(0).reverse()) answer();
  }

  #falsify(chain: DescriptorChain, writtenBytes: number): void {
    const fault = this.rules.takeFault();
    if (fault === undefined) return this.inner.complete(chain, writtenBytes);
    if (fault.dropped) return;
    this.#put(chain, { id: fault.id ?? chain.head, writtenBytes: fault.writtenBytes ?? writtenBytes, times: fault.times ?? 1 });
  }

  #put(chain: DescriptorChain, { id, writtenBytes, times }: Required<Pick<RequestAnswer, 'id' | 'writtenBytes' | 'times'>>): void {
    this.inner.completeAs(chain, id, writtenBytes);
    for (let again = 1; again < times; again += 1) this.inner.putUsed(id, writtenBytes);
  }
}
