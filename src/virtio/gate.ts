// One queue's gate: what the test has set, over all lives of the queue, and who waits for a request. What
// the methods mean is QueueGate's (queue-gate.ts).
import { UsageError } from '../errors.ts';
import { within } from '../wait.ts';
import { GatedQueue } from './gated-queue.ts';
import type { AnswerFault, GateRules, KeptRequest } from './gated-queue.ts';
import type { CallVerdict, HeldRequest, QueueGate } from './queue-gate.ts';
import type { QueueCounts, Virtqueue } from './virtqueue.ts';

export class Gate implements QueueGate, GateRules {
  held = false;
  life: GatedQueue | undefined;
  readonly #process: (queue: Virtqueue) => void;
  #unseen: KeptRequest[] = [];
  #askers: ((request: HeldRequest) => void)[] = [];
  readonly #wrongIds: number[] = [];
  readonly #wrongLengths: number[] = [];
  #droppedAnswers = 0;
  #duplicates = 0;
  #reordered = 0;
  #drops = 0;
  #misdirectedTo: number | undefined;
  /** The queue of the last life, and what those before it had counted. */
  #counted: Virtqueue | undefined;
  /** Fires the interrupt past every fault; there while the device is plugged. */
  fire: (() => void) | undefined;
  #past: QueueCounts = { taken: 0, completed: 0, inFlight: 0, notified: 0, suppressed: 0 };

  constructor(readonly index: number, public latencyMs: number, process: (queue: Virtqueue) => void) {
    this.#process = process;
  }

  get waiting(): number {
    return this.life?.waiting ?? 0;
  }

  get counts(): QueueCounts {
    const past = this.#past;
    const now = this.#counted?.counts;
    if (now === undefined) return past;
    return {
      taken: past.taken + now.taken,
      completed: past.completed + now.completed,
      inFlight: this.life === undefined ? 0 : now.inFlight,
      notified: past.notified + now.notified,
      suppressed: past.suppressed + now.suppressed,
    };
  }

  get watched(): boolean {
    return this.#askers.length > 0;
  }

  hold(): void {
    this.held = true;
  }

  release(): void {
    this.held = false;
    this.#unseen = [];
    this.life?.letAllOn();
  }

  async nextRequest({ timeoutMs = 10_000, signal }: { timeoutMs?: number; signal?: AbortSignal } = {}): Promise<HeldRequest> {
    const seen = this.#unseen.shift();
    if (seen !== undefined) return seen;
    let asker: (request: HeldRequest) => void = () => undefined;
    const request = new Promise<HeldRequest>((resolve) => { asker = resolve; });
    this.#askers.push(asker);
    try {
      return await within(request, { timeoutMs, what: `the next request on queue ${this.index}`, signal });
    } finally {
      this.#askers = this.#askers.filter((other) => other !== asker);
    }
  }

  answerWrongId(id: number, count = 1): void {
    for (let i = 0; i < count; i += 1) this.#wrongIds.push(id);
  }

  answerWrongLength(writtenBytes: number, count = 1): void {
    for (let i = 0; i < count; i += 1) this.#wrongLengths.push(writtenBytes);
  }

  dropAnswers(count = 1): void {
    this.#droppedAnswers += count;
  }

  duplicateAnswers(count = 1): void {
    this.#duplicates += count;
  }

  reorderAnswers(count: number): void {
    if (!Number.isInteger(count) || count < 2) throw new UsageError(`reorderAnswers(${count}): an order takes 2 requests or more`);
    this.#reordered = count;
  }

  dropInterrupts(count = 1): void {
    this.#drops += count;
  }

  misdirectInterrupts(queue: number | undefined): void {
    this.#misdirectedTo = queue;
  }

  interrupt(): void {
    if (this.fire === undefined) throw new UsageError(`queue ${this.index} has no interrupt to fire: its device is not plugged`);
    this.fire();
  }

  // What the life asks, and the session.

  show(request: KeptRequest): void {
    const asker = this.#askers.shift();
    if (asker !== undefined) asker(request);
    else if (this.held) this.#unseen.push(request);
  }

  /** A test has set what becomes of requests or interrupts, or waits for one. */
  get engaged(): boolean {
    return this.held || this.faulty || this.watched || this.latencyMs > 0 || this.#drops > 0 || this.#misdirectedTo !== undefined;
  }

  get faulty(): boolean {
    return this.pendingFaults > 0 || this.#reordered > 0;
  }

  get pendingFaults(): number {
    return this.#droppedAnswers + this.#duplicates + this.#wrongIds.length + this.#wrongLengths.length;
  }

  takeFault(): AnswerFault | undefined {
    if (this.pendingFaults === 0) return undefined;
    const dropped = this.#droppedAnswers > 0;
    if (dropped) {
      this.#droppedAnswers -= 1;
      return { dropped };
    }
    const times = this.#duplicates > 0 ? 2 : 1;
    this.#duplicates -= times - 1;
    return { dropped, times, id: this.#wrongIds.shift(), writtenBytes: this.#wrongLengths.shift() };
  }

  takeReordered(): number {
    const count = this.#reordered;
    this.#reordered = 0;
    return count;
  }

  beforeCall(): CallVerdict {
    if (this.#drops > 0) {
      this.#drops -= 1;
      return 'drop';
    }
    return this.#misdirectedTo === undefined ? 'deliver' : { queue: this.#misdirectedTo };
  }

  lifeOf(queue: Virtqueue): GatedQueue {
    if (this.life?.inner !== queue) {
      this.end();
      if (this.#counted !== queue) {
        this.#past = this.counts;
        this.#counted = queue;
      }
      this.life = new GatedQueue(queue, this, this.#process);
    }
    return this.life as GatedQueue;
  }

  end(): void {
    this.life?.drop();
    this.life = undefined;
    this.#unseen = [];
  }
}
