// Steering a device from a test: a gate stands between a device and each of its queues, and another
// before its config space and its life; they hold, delay, drop or falsify what passes. The device behind
// them knows nothing of it, so any VirtioDevice can be steered. How: gate.ts, device-gate.ts. Interrupt
// faults are only decided here: the session asks before it fires.
import { UsageError } from '../errors.ts';
import { ConfigAndLifeGate } from './device-gate.ts';
import type { DeviceGate, SteeredTransport } from './device-gate.ts';
import type { VirtioDevice } from './device.ts';
import { Gate } from './gate.ts';
import type { KeptRequest } from './gated-queue.ts';
import type { QueueCounts } from './virtqueue.ts';

export type { ConfigChange, DeviceGate, RestartOptions, SteeredTransport } from './device-gate.ts';
export type { RequestAnswer } from './gated-queue.ts';

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
  /** Answers asked for below to go wrong (reordering aside), and not given yet: 0 once the driver met them all. */
  readonly pendingFaults: number;
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
  /** The next `count` (1) requests are completed with this `len` in the used ring instead of what was written. */
  answerWrongLength(writtenBytes: number, count?: number): void;
  /**
   * The next `count` (1) requests are done by the device and never completed: the driver waits for ever. They
   * stay in flight, and are not put back when the queue stops.
   */
  dropAnswers(count?: number): void;
  /** The next `count` (1) requests are completed twice: two elements of the used ring name the same id. */
  duplicateAnswers(count?: number): void;
  /**
   * The next `count` (2 or more) requests are completed in the reverse of the order in which the device did
   * them, once all are done. Fewer are given, reversed, when the queue stops.
   */
  reorderAnswers(count: number): void;
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

export interface SteeredDevice {
  /** The device to give to the session: the one steered, behind its gates. */
  readonly device: VirtioDevice;
  /** The gate before config space and the device's life. */
  readonly gate: DeviceGate;
  /** The gate of a queue. UsageError for an index that the device has not. */
  queue(index: number): QueueGate;
  /** Some queue is held, delayed, falsified or watched. */
  steered(): boolean;
  /** Ask before firing queue `index`'s interrupt. */
  beforeCall(index: number): CallVerdict;
  /** What carries the device while it is plugged: for interrupt(), interruptConfig(), needsReset(), crash(). */
  connect(transport: SteeredTransport | undefined): void;
}

/** Put a gate before each queue of the device, and one before the device. */
export function steer(device: VirtioDevice, { latencyMs = 0 }: { latencyMs?: number } = {}): SteeredDevice {
  const gates = Array.from({ length: device.queueCount }, (_, index) =>
    new Gate(index, latencyMs, (queue) => device.process(index, queue)));
  const own = new ConfigAndLifeGate(() => device.config(), () => {
    for (const gate of gates) gate.end();
  });
  const steered: VirtioDevice = {
    deviceId: device.deviceId,
    features: device.features,
    ringFeatures: device.ringFeatures,
    usedBatches: device.usedBatches,
    queueCount: device.queueCount,
    queueSizeMax: device.queueSizeMax,
    config: () => own.read(device.config()),
    ...(device.writeConfig === undefined ? {} : { writeConfig: (offset: number, bytes: Uint8Array) => device.writeConfig?.(offset, bytes) }),
    negotiated: (features) => device.negotiated?.(features),
    process: (index, queue) => {
      if (!own.awaitsReset) device.process(index, gates[index].lifeOf(queue));
    },
    disabled: (index) => device.disabled?.(index),
    async drain(index) {
      const { life } = gates[index];
      life?.stopTaking();
      await device.drain?.(index);
      life?.flush();
      if (gates[index].life === life) gates[index].end();
    },
    reset() {
      own.reset();
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
    gate: own,
    queue(index) {
      const gate = gates[index];
      if (gate === undefined) throw new UsageError(`there is no queue ${index}`, { hint: `The device has ${gates.length}: 0 to ${gates.length - 1}.` });
      return gate;
    },
    steered: () => own.awaitsReset || gates.some((gate) => gate.engaged),
    beforeCall: (index) => gates[index]?.beforeCall() ?? 'deliver',
    connect(transport) {
      own.transport = transport;
      for (const gate of gates) gate.fire = transport === undefined ? undefined : () => transport.signal(gate.index);
    },
  };
}
