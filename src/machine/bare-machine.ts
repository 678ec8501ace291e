// A running machine of the bare tier: its functions, its RAM, its monitor and qtest, and its end.
import { MachineExitError, RootportError, UsageError } from '../errors.ts';
import { findByQdevId, type QueryPciBus } from '../pci/query-pci.ts';
import type { Device } from '../qemu/attachment.ts';
import type { Console } from '../qemu/console.ts';
import type { Qemu } from '../qemu/find.ts';
import type { MachinePreset } from '../qemu/preset.ts';
import type { QemuProcess } from '../qemu/process.ts';
import type { QmpClient } from '../qmp/client.ts';
import type { QtestClient } from '../qtest/client.ts';
import type { PciAddress } from '../qtest/config-mechanism.ts';
import { BareFunction } from './bare-function.ts';
import type { BareBus } from './bare-bus.ts';
import type { Plugged } from './plugged.ts';
import type { Trouble } from './trouble.ts';

export interface BareInnards {
  readonly qemu: Qemu;
  readonly preset: MachinePreset;
  readonly ports: readonly string[];
  readonly directory: string;
  readonly process: QemuProcess;
  readonly console: Console;
  readonly qmp: QmpClient;
  readonly qtest: QtestClient;
  readonly trouble: Trouble;
  readonly plugged: Plugged[];
  readonly bus: BareBus;
  readonly timeoutMs: number;
}

export class BareMachine {
  readonly qmp: QmpClient;
  readonly qtest: QtestClient;
  readonly console: Console;
  readonly #innards: BareInnards;
  #closed: Promise<void> | undefined;

  constructor(innards: BareInnards) {
    this.#innards = innards;
    this.qmp = innards.qmp;
    this.qtest = innards.qtest;
    this.console = innards.console;
  }

  /** What was chosen, one line. */
  get description(): string {
    const { preset, qemu } = this.#innards;
    return `${preset.name}, ${qemu.name}, no operating system`;
  }

  /** Aborted with the reason when QEMU exits or a back end fails. */
  get signal(): AbortSignal { return this.#innards.trouble.signal; }
  /** The line that starts the same QEMU by hand. */
  get repro(): string { return this.#innards.process.commandLine; }
  /** Log lines of the devices' back ends. */
  get deviceLog(): readonly string[] { return this.#innards.trouble.deviceLog; }
  /** Hot-pluggable sockets, in order. */
  get ports(): readonly string[] { return this.#innards.ports; }
  get innards(): BareInnards { return this.#innards; }

  /** Every function that was found, bridges too, a bridge before what is behind it. */
  functions(): BareFunction[] {
    return this.#innards.bus.enumeration.functions.map((node) => new BareFunction(this, node));
  }

  /** The function of a device that is plugged, or of one of QEMU's by its `id=`. UsageError when there is none. */
  functionOf(device: Device | string): Promise<BareFunction> {
    return this.scene(async () => {
      const id = typeof device === 'string' ? device : this.#innards.plugged.find((one) => one.device === device)?.id;
      if (id === undefined) throw new UsageError('that device is not plugged into this machine');
      const vmm = findByQdevId(await this.qmp.execute<QueryPciBus[]>('query-pci'), id);
      const found = vmm && this.#functionAt(vmm);
      if (found === undefined) throw new UsageError(`there is no PCI function of the device ${JSON.stringify(id)}`);
      return found;
    });
  }

  /** A piece of guest RAM that nobody else has, zeroed; its guest-physical address. */
  async allocate(sizeBytes: number, alignment = 4096): Promise<bigint> {
    const base = this.#innards.bus.ram.allocate(BigInt(sizeBytes), BigInt(alignment));
    await this.qtest.fill(base, sizeBytes, 0);
    return base;
  }

  /** End QEMU, the back ends and everything on disk. Idempotent. */
  close(): Promise<void> {
    this.#closed ??= (async () => {
      const { trouble, process, qmp, qtest, plugged } = this.#innards;
      trouble.leave();
      for (const one of plugged) await one.attachment.quiesce?.();
      await process.end();
      trouble.raise(new MachineExitError('the machine was closed', undefined, undefined));
      qmp.close();
      qtest.close();
      await Promise.all(plugged.map((one) => one.detach()));
    })();
    return this.#closed;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** Errors of a running machine carry its context. */
  async scene<T>(work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (error) {
      const context = this.#innards.trouble.context();
      if (error instanceof RootportError && !(error instanceof UsageError) && context !== undefined) error.on(context);
      throw error;
    }
  }

  #functionAt({ bus, slot, function: fn }: PciAddress): BareFunction | undefined {
    return this.functions().find(({ address }) => address.bus === bus && address.slot === slot && address.function === fn);
  }
}
