// Where the machines of a file come from: restored from the snapshot that the cache keeps of such a boot, or from one
// that this file took after `warm`; or booted, when that is wanted or nothing else can be.
import { boot } from '../machine/boot.ts';
import { provenSnapshot, whyNotRestored, whyRefused } from '../machine/kept-snapshots.ts';
import type { Machine } from '../machine/machine.ts';
import type { BootOptions } from '../machine/options.ts';
import { Snapshot } from '../machine/snapshot.ts';
import type { UseMachineOptions } from './use-machine.ts';

export type Freshness = 'test' | 'file' | 'never';

/** Devices that a machine boots with keep it from being restored, and a boot for each test is only on request. */
export function defaultFreshness(options: BootOptions): Freshness {
  return whyNotRestored(options) === undefined ? 'test' : 'file';
}

export class MachineSource {
  readonly #options: BootOptions;
  readonly #fresh: Freshness;
  readonly #warm: UseMachineOptions['warm'];
  #restores: boolean;
  #snapshot: Snapshot | undefined;
  #first: Machine | undefined;
  /** What `warm` failed with: it would again. */
  #warmFailure: { readonly error: unknown } | undefined;

  constructor(options: BootOptions, { fresh, warm }: { readonly fresh: Freshness; readonly warm: UseMachineOptions['warm'] }) {
    this.#options = options;
    this.#fresh = fresh;
    this.#warm = warm;
    const why = whyNotRestored(options);
    this.#restores = fresh !== 'never';
    if (this.#restores && why !== undefined) this.#bootInstead(why);
  }

  /** Have the first machine ready before any test's clock runs. */
  async prepare(): Promise<void> {
    this.#first ??= await this.next();
  }

  /** A machine that no test has touched. Once `warm` has failed there is none, and its error is thrown without a boot. */
  async next(): Promise<Machine> {
    const first = this.#first;
    this.#first = undefined;
    if (first !== undefined) return first;
    if (this.#warmFailure !== undefined) throw this.#warmFailure.error;
    if (!this.#restores) return this.#warmed(await boot(this.#options));
    if (this.#snapshot !== undefined) return this.#restore(this.#snapshot);
    try {
      return await this.#begin();
    } catch (error) {
      if (this.#warmFailure !== undefined) throw error;
      this.#bootInstead(whyRefused(error));
      return this.next();
    }
  }

  async close(): Promise<void> {
    await this.#first?.close();
    await this.#snapshot?.close();
  }

  async #begin(): Promise<Machine> {
    const { snapshot, machine } = await provenSnapshot(this.#options);
    if (this.#warm === undefined || this.#fresh !== 'test') {
      this.#snapshot = snapshot;
      return this.#warmed(machine);
    }
    // What `warm` does shall be done once: a snapshot of its own, of a machine that needed no boot.
    await snapshot.close();
    this.#snapshot = await Snapshot.take(await this.#warmed(machine));
    return this.#snapshot.restore();
  }

  async #restore(snapshot: Snapshot): Promise<Machine> {
    const machine = await snapshot.restore();
    return this.#fresh === 'test' ? machine : this.#warmed(machine);
  }

  async #warmed(machine: Machine): Promise<Machine> {
    try {
      await this.#warm?.(machine.guest, machine);
    } catch (error) {
      this.#warmFailure = { error };
      await machine.close();
      throw error;
    }
    return machine;
  }

  #bootInstead(why: string): void {
    this.#restores = false;
    this.#options.progress?.note(this.#fresh === 'test'
      ? `every test boots a machine of its own, for there can be no snapshot: ${why}`
      : `the machine is booted, and is one for the file, for there can be no snapshot: ${why}`);
  }
}
