// Where the machines of a file come from: a boot each, or one boot and a snapshot that is restored for each.
import { ProtocolError } from '../errors.ts';
import { boot } from '../machine/boot.ts';
import type { Machine } from '../machine/machine.ts';
import type { BootOptions } from '../machine/options.ts';
import { Snapshot } from '../machine/snapshot.ts';
import type { UseMachineOptions } from './use-machine.ts';

export class MachineSource {
  readonly #options: BootOptions;
  readonly #warm: UseMachineOptions['warm'];
  #restores: boolean;
  #snapshot: Snapshot | undefined;

  constructor(options: BootOptions, { fresh, warm }: Pick<UseMachineOptions, 'fresh' | 'warm'>) {
    this.#options = options;
    this.#warm = warm;
    this.#restores = fresh === 'test';
  }

  /** A machine that no test has touched. */
  async next(): Promise<Machine> {
    if (this.#restores && this.#snapshot === undefined) await this.#take();
    return this.#snapshot === undefined ? this.#boot() : this.#snapshot.restore();
  }

  async close(): Promise<void> {
    await this.#snapshot?.close();
  }

  async #boot(): Promise<Machine> {
    const machine = await boot(this.#options);
    try {
      await this.#warm?.(machine.guest, machine);
    } catch (error) {
      await machine.close();
      throw error;
    }
    return machine;
  }

  async #take(): Promise<void> {
    const devices = this.#options.devices ?? [];
    if (devices.length > 0) return this.#bootEach(`of the devices that it boots with (${devices.map(({ kind }) => kind).join(', ')})`);
    const machine = await this.#boot();
    try {
      this.#snapshot = await Snapshot.take(machine);
    } catch (error) {
      await machine.close();
      if (!(error instanceof ProtocolError)) throw error;
      this.#bootEach(`${error.summary}`);
    }
  }

  #bootEach(why: string): void {
    this.#restores = false;
    this.#options.progress?.note(`every test boots a machine of its own, for there can be no snapshot: ${why}`);
  }
}
