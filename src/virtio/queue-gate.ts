// Steering a device from a test: a gate stands between a device and each of its queues, and holds,
// delays or falsifies what passes. The device behind it knows nothing of it, so any VirtioDevice can
// be steered. Interrupt faults are only decided here: the session asks before it fires.
import { UsageError } from '../errors.ts';
import { within } from '../wait.ts';
import type { VirtioDevice } from './device.ts';
import { GatedQueue } from './gated-queue.ts';
import type { GateRules, KeptRequest } from './gated-queue.ts';
import type { QueueCounts, Virtqueue } from './virtqueue.ts';

/** A request that stands at a gate, or passed it. */
export type HeldRequest = Omit<KeptRequest, 'chain'>;

/** What the session is to do about an interrupt of a queue. */
export type CallVerdict = 'deliver' | 'drop' | { readonly queue: number };

/** What a test does to a queue. Settings outlive a reset and an unplug; requests do not. */
export interface QueueGate {
  readonly index: number;
  readonly held: boolean;
  /** Requests that stand at the gate now. */
  readonly waiting: number;
  /** What the queue saw, over all of its lives. */
  readonly counts: QueueCounts;
  /** Complete each request this much later. */
  latencyMs: number;
  /** From now on requests are taken from the ring and kept: the device does not see them. */
  hold(): void;
  /** Let the requests kept go on to the device, in order, and those to come. */
  release(): void;
  /**
   * The next request that came to this queue and that this method has not given yet. While the queue
   * is held, one that waits already counts. DeadlineError after `timeoutMs` (10,000).
   */
  nextRequest(options?: { timeoutMs?: number; signal?: AbortSignal }): Promise<HeldRequest>;
  /** The next `count` (1) requests are completed under this id instead of their own. */
  answerWrongId(id: number, count?: number): void;
  /**
   * The next `count` (1) interrupts of this queue are not fired, though the used ring moves on. With
   * EVENT_IDX a driver that misses one is not told of later completions either, until interrupt().
   */
  dropInterrupts(count?: number): void;
  /** Fire this queue's interrupt now, whether anything was used or not. UsageError while it is not plugged. */
  interrupt(): void;
  /** From now on this queue's interrupts are fired as `queue`'s; undefined mends it. */
  misdirectInterrupts(queue: number | undefined): void;
}

class Gate implements QueueGate, GateRules {
  held = false;
  life: GatedQueue | undefined;
  readonly #process: (queue: Virtqueue) => void;
  #unseen: KeptRequest[] = [];
  #askers: ((request: HeldRequest) => void)[] = [];
  readonly #wrongIds: number[] = [];
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

  takeWrongId(): number | undefined {
    return this.#wrongIds.shift();
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

export interface SteeredDevice {
  /** The device to give to the session: the one steered, behind its gates. */
  readonly device: VirtioDevice;
  /** The gate of a queue. UsageError for an index that the device has not. */
  queue(index: number): QueueGate;
  /** Ask before firing queue `index`'s interrupt. */
  beforeCall(index: number): CallVerdict;
  /** Say how an interrupt is fired, while there is a transport that can: for QueueGate.interrupt(). */
  connect(fire: ((index: number) => void) | undefined): void;
}

/** Put a gate before each queue of the device. */
export function steer(device: VirtioDevice, { latencyMs = 0 }: { latencyMs?: number } = {}): SteeredDevice {
  const gates = Array.from({ length: device.queueCount }, (_, index) =>
    new Gate(index, latencyMs, (queue) => device.process(index, queue)));
  const steered: VirtioDevice = {
    deviceId: device.deviceId,
    features: device.features,
    ringFeatures: device.ringFeatures,
    usedBatches: device.usedBatches,
    queueCount: device.queueCount,
    queueSizeMax: device.queueSizeMax,
    config: () => device.config(),
    ...(device.writeConfig === undefined ? {} : { writeConfig: (offset: number, bytes: Uint8Array) => device.writeConfig?.(offset, bytes) }),
    negotiated: (features) => device.negotiated?.(features),
    process: (index, queue) => device.process(index, gates[index].lifeOf(queue)),
    async drain(index) {
      const { life } = gates[index];
      life?.stopTaking();
      await device.drain?.(index);
      life?.flush();
      if (gates[index].life === life) gates[index].end();
    },
    reset() {
      for (const gate of gates) gate.end();
      device.reset?.();
    },
    async close() {
      for (const gate of gates) gate.end();
      await device.close?.();
    },
  };
  return {
    device: steered,
    queue(index) {
      const gate = gates[index];
      if (gate === undefined) throw new UsageError(`there is no queue ${index}`, { hint: `The device has ${gates.length}: 0 to ${gates.length - 1}.` });
      return gate;
    },
    beforeCall: (index) => gates[index]?.beforeCall() ?? 'deliver',
    connect(fire) {
      for (const gate of gates) gate.fire = fire === undefined ? undefined : () => fire(gate.index);
    },
  };
}
