// The rings of a session, and what is done to several of them at once: stop, drain, map anew.
// Each ring's own state is ring.ts's.
import { ProtocolError } from '../errors.ts';
import { within } from '../wait.ts';
import type { MemoryChange } from './memory.ts';
import { Ring } from './ring.ts';
import type { RingOwner } from './ring.ts';

export class RingSet {
  readonly #rings: readonly Ring[];
  readonly #owner: RingOwner;
  readonly #drainTimeoutMs: number;

  constructor(owner: RingOwner, { drainTimeoutMs }: { drainTimeoutMs: number }) {
    this.#owner = owner;
    this.#drainTimeoutMs = drainTimeoutMs;
    this.#rings = Array.from({ length: owner.device.queueCount }, (_, index) => new Ring(index, owner));
  }

  get count(): number {
    return this.#rings.length;
  }

  get running(): Ring[] {
    return this.#rings.filter((ring) => ring.queue !== undefined);
  }

  /** Throws ProtocolError for a ring that the device has not. */
  at(index: number): Ring {
    const ring = this.#rings[index];
    if (ring === undefined) throw new ProtocolError(`vhost-user: there is no ring ${index}: the device has ${this.#rings.length}`);
    return ring;
  }

  find(index: number): Ring | undefined {
    return this.#rings[index];
  }

  /** Each ring's error eventfd, where it has one. */
  signalError(): void {
    for (const ring of this.#rings) ring.signalError();
  }

  disable(): void {
    for (const ring of this.#rings) ring.enable(false);
  }

  /** Resolves when the device has no request of these rings in use; not waited for longer than is useful: see drain. */
  async drained(rings: readonly Ring[]): Promise<void> {
    await Promise.all(rings.map(async (ring) => this.#owner.device.drain?.(ring.index)));
  }

  /** The same with a deadline. Throws DeadlineError. */
  async drain(rings: readonly Ring[], what: string): Promise<void> {
    await within(this.drained(rings), { timeoutMs: this.#drainTimeoutMs, what });
  }

  /** Stop one ring when its requests are finished; the avail index it came to. */
  async stop(ring: Ring, why: string): Promise<number> {
    ring.pause();
    if (ring.queue !== undefined) await this.drain([ring], `queue ${ring.index} to finish its requests for ${why}`);
    return ring.stop();
  }

  /** Stop and disable all rings when their requests are finished. */
  async stopAll(why: string): Promise<void> {
    const { running } = this;
    running.forEach((ring) => ring.pause());
    await this.drain(running, `the device to finish its requests for ${why}`);
    for (const ring of this.#rings) {
      ring.stop();
      ring.enable(false);
    }
  }

  /**
   * Put another memory table in force. What stays mapped may be in use all along; what goes waits for the
   * device to finish its requests. `ended` is asked after that wait.
   */
  change(change: MemoryChange, why: string, ended: () => boolean): void | Promise<void> {
    if (!change.removes || this.running.length === 0) return change.commit();
    return this.#changeWhenIdle(change, why, ended);
  }

  async #changeWhenIdle(change: MemoryChange, why: string, ended: () => boolean): Promise<void> {
    const { running } = this;
    running.forEach((ring) => ring.pause());
    try {
      await this.drain(running, `the device to finish its requests for ${why}`);
    } catch (error) {
      change.abandon();
      throw error;
    }
    if (ended()) return change.abandon();
    change.commit();
    running.forEach((ring) => ring.remap());
    running.forEach((ring) => ring.resume());
  }

  close(): void {
    this.#rings.forEach((ring) => ring.close());
  }
}
