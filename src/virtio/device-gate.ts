// The gate before a device's config space and its life: what the driver reads there, config-change
// interrupts, NEEDS_RESET, a crash. What the transport does about them is its own.
import { UsageError } from '../errors.ts';

/** What carries a steered device: a vhost-user back end is one. */
export interface SteeredTransport {
  /** Fire a queue's interrupt although nothing was used. UsageError when the driver has set none up. */
  signal(queueIndex: number): void;
  /** Say that config space changed. UsageError when nobody listens. What comes of it may follow, and does not reject. */
  configChanged(): Promise<unknown> | void;
  /** Say that the device needs a reset, by whatever words the transport has. */
  needsReset(): void;
  /** Hang up on the front end as a process that dies does. UsageError when there is none. */
  crash(): Promise<void>;
  /** Be there again, and wait until the front end is. UsageError when it did not crash, or the front end will not come. */
  restart(options: RestartOptions): Promise<void>;
}

export interface RestartOptions {
  /** Default 10,000. */
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
}

export interface ConfigChange {
  /** Take effect after this many further reads of config space; 0: from now on. */
  readonly afterReads?: number;
}

/** What a test does to a device as a whole. */
export interface DeviceGate {
  /** How often config space was read of this device, by the front end's messages: not each of the driver's reads is one. */
  readonly configReads: number;
  /** needsReset() or crash() was called, and the device was not reset since. */
  readonly awaitsReset: boolean;
  /**
   * From now on (or after `afterReads` further reads) the driver reads these bytes at `offset` of config
   * space, whatever the device says. Nobody is told: config_generation, which is the front end's (QEMU), stays
   * as it is until interruptConfig(). UsageError when config space is shorter than that.
   */
  changeConfig(offset: number, bytes: Uint8Array, change?: ConfigChange): void;
  /** The driver reads what the device says again. */
  restoreConfig(): void;
  /** A config-change notification, whether anything changed or not. UsageError while nobody listens. */
  interruptConfig(): void;
  /**
   * DEVICE_NEEDS_RESET (virtio 1.2, 2.1.2): no request is taken or completed any more until the driver resets
   * the device. vhost-user has three words for it, and all are said: GET_STATUS, the rings' error eventfds, a
   * config change. QEMU (7.2 to 11.1) passes on the last only: the guest does not see the bit.
   */
  needsReset(): void;
  /**
   * The back end dies: its sockets are closed, and what is in flight is neither completed nor put back. Nobody
   * is served until restart(). UsageError without a front end.
   */
  crash(): Promise<void>;
  /**
   * After crash(), for a device made with `reconnect`: the back end is there again. Resolves when QEMU has
   * connected again and every queue that ran before runs; what was in flight comes to the device first (held
   * again by a queue that is held). DeadlineError that says what is missing; UsageError when it did not crash or
   * was made without `reconnect`.
   */
  restart(options?: RestartOptions): Promise<void>;
}

export class ConfigAndLifeGate implements DeviceGate {
  configReads = 0;
  awaitsReset = false;
  transport: SteeredTransport | undefined;
  readonly #config: () => Uint8Array;
  readonly #end: () => void;
  #changes: { readonly offset: number; readonly bytes: Uint8Array; readonly fromRead: number }[] = [];

  /** @param end drops what stands at the queues' gates, without answering it */
  constructor(config: () => Uint8Array, end: () => void) {
    this.#config = config;
    this.#end = end;
  }

  changeConfig(offset: number, bytes: Uint8Array, { afterReads = 0 }: ConfigChange = {}): void {
    const { length } = this.#config();
    if (!(Number.isInteger(offset) && offset >= 0 && offset + bytes.length <= length)) {
      throw new UsageError(`config space has ${length} bytes: ${bytes.length} at ${offset} are not in it`);
    }
    this.#changes.push({ offset, bytes: bytes.slice(), fromRead: this.configReads + afterReads });
  }

  restoreConfig(): void {
    this.#changes = [];
  }

  interruptConfig(): void {
    void this.#plugged('config change').configChanged();
  }

  needsReset(): void {
    const transport = this.#plugged('need of a reset');
    this.#die();
    transport.needsReset();
  }

  async crash(): Promise<void> {
    const transport = this.#plugged('connection');
    const { awaitsReset } = this;
    this.#die();
    try {
      await transport.crash();
    } catch (error) {
      this.awaitsReset = awaitsReset; // it is as alive as before
      throw error;
    }
  }

  async restart(options: RestartOptions = {}): Promise<void> {
    await this.#plugged('back end').restart(options);
  }

  // What the steered device asks.

  read(config: Uint8Array): Uint8Array {
    const read = this.configReads;
    this.configReads += 1;
    const due = this.#changes.filter(({ fromRead }) => read >= fromRead);
    if (due.length === 0) return config;
    const changed = config.slice();
    for (const { offset, bytes } of due) changed.set(bytes, offset);
    return changed;
  }

  reset(): void {
    this.awaitsReset = false;
  }

  #die(): void {
    this.awaitsReset = true;
    this.#end();
  }

  #plugged(what: string): SteeredTransport {
    if (this.transport === undefined) throw new UsageError(`the device has no ${what} to tell of: it is not plugged`);
    return this.transport;
  }
}
