// A running machine of the bare tier: its functions, its RAM, its monitor and qtest, and its end.
import { MachineExitError, ProtocolError, RootportError, UsageError } from '../errors.ts';
import { findByQdevId, type QueryPciBus } from '../pci/query-pci.ts';
import type { Device } from '../qemu/attachment.ts';
import { placement, type Placement } from '../qemu/command-line.ts';
import type { Console } from '../qemu/console.ts';
import type { Qemu } from '../qemu/find.ts';
import type { MachinePreset } from '../qemu/preset.ts';
import type { QemuProcess } from '../qemu/process.ts';
import type { QmpClient } from '../qmp/client.ts';
import type { QtestClient } from '../qtest/client.ts';
import type { PciAddress } from '../qtest/config-mechanism.ts';
import { BareFunction } from './bare-function.ts';
import type { BareBus } from './bare-bus.ts';
import { ejectBare, plugBare, requestRemoval } from './bare-hotplug.ts';
import { markBareInterrupts, readBareStretch } from './interrupt-bare.ts';
import type { InterruptLedger, InterruptMark } from './interrupt-ledger.ts';
import { slotsOf, type BareSlots } from './bare-slots.ts';
import { Plugged } from './plugged.ts';
import { freePort } from './ports.ts';
import type { Trouble } from './trouble.ts';
import type { UnplugReport } from './unplug.ts';

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
  /** Hot-plug as the machine's firmware or driver would see it. */
  readonly slots: BareSlots;
  #nextId: number;
  #closed: Promise<void> | undefined;

  constructor(innards: BareInnards) {
    this.#innards = innards;
    this.qmp = innards.qmp;
    this.qtest = innards.qtest;
    this.console = innards.console;
    this.#nextId = innards.plugged.length;
    this.slots = slotsOf(this);
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
  /** Lines of INTx pins that are raised, ascending; the timer's and others' of the I/O APIC are left out. */
  get intxRaised(): readonly number[] { return this.qtest.irqsRaised.filter((line) => this.#innards.bus.intxLines.includes(line)); }
  get innards(): BareInnards { return this.#innards; }

  /** Every function that was found, bridges too, a bridge before what is behind it. */
  functions(): BareFunction[] {
    return this.#innards.bus.enumeration.functions.map((node) => new BareFunction(this, node));
  }

  /** The function of a device that is plugged, or of one of QEMU's by its `id=`. UsageError when there is none. */
  functionOf(device: Device | string): Promise<BareFunction> {
    return this.scene(async () => {
      const id = typeof device === 'string' ? device : this.#find(device).id;
      const vmm = findByQdevId(await this.qmp.execute<QueryPciBus[]>('query-pci'), id);
      const found = vmm && this.#functionAt(vmm);
      if (found === undefined) throw new UsageError(`there is no PCI function of the device ${JSON.stringify(id)}`);
      return found;
    });
  }

  /**
   * Plug a device into a free port (or the named one) without restarting. Resolves when the slot has told that it
   * came, it has power, and its BARs are placed.
   */
  plug(device: Device, { port: wanted }: { readonly port?: string } = {}): Promise<BareFunction> {
    return this.#step(`plug ${device.kind}`, async () => {
      const { plugged: all, directory, trouble, qemu } = this.#innards;
      const { port } = freePort(this.#innards, all, wanted);
      const plugged = await Plugged.attach(device, { id: `dev${this.#nextId++}`, port, directory, trouble, qemu: { version: qemu.version, accel: 'tcg' } });
      all.push(plugged);
      try {
        return await plugBare(this, plugged);
      } catch (error) {
        await this.#forget(plugged);
        throw error;
      }
    });
  }

  /** Ask for the device, see its slot tell so, and eject it: what is still seen of it. DeadlineError when QEMU does not let it go. */
  async unplug(device: Device, options: { readonly timeoutMs?: number } = {}): Promise<UnplugReport> {
    await this.requestRemoval(device);
    return this.scene(async () => {
      const plugged = this.#find(device);
      const { removalRequested } = await this.slots.events(plugged.port);
      if (!removalRequested) throw new ProtocolError(`${this.slots.kind} hot-plug: ${plugged.port} does not tell that its removal is asked for`);
      return this.eject(device, options);
    });
  }

  /** device_del alone: the slot tells (`slots.events`), and the device stays until `eject`. */
  requestRemoval(device: Device): Promise<void> {
    return this.#step(`request the removal of ${device.kind}`, () => requestRemoval(this, this.#find(device)));
  }

  /** Eject the device's slot, and wait until QEMU has let it go; what is still seen of it, for `toLeaveNothingBehind`. */
  eject(device: Device, { timeoutMs = this.#innards.timeoutMs }: { readonly timeoutMs?: number } = {}): Promise<UnplugReport> {
    return this.#step(`eject ${device.kind}`, async () => {
      const plugged = this.#find(device);
      const report = await ejectBare(this, plugged, timeoutMs);
      await this.#forget(plugged);
      return report;
    });
  }

  /** Where a device in this port is put. */
  placementOf(port: string): Placement {
    return placement(this.#innards.preset, port);
  }

  /** Where the interrupt counts of a function stand, to count from here: `toHaveDelivered({ since })`. */
  mark(fn: BareFunction): Promise<InterruptMark> {
    return this.scene(() => markBareInterrupts(fn));
  }

  /** What the device fired and which messages came into guest RAM, by vector; since a mark, or ever. */
  ledger(fn: BareFunction, since?: InterruptMark): Promise<InterruptLedger> {
    return this.scene(async () => (await readBareStretch(fn, since)).ledger);
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

  /** The same as a step of the test, in what is recorded. */
  #step<T>(what: string, work: () => Promise<T>): Promise<T> {
    return this.#innards.trouble.recorder.span('test', what, () => this.scene(work));
  }

  #find(device: Device): Plugged {
    const found = this.#innards.plugged.find((one) => one.device === device);
    if (found === undefined) throw new UsageError('that device is not plugged into this machine');
    return found;
  }

  async #forget(plugged: Plugged): Promise<void> {
    const { plugged: all } = this.#innards;
    if (all.includes(plugged)) all.splice(all.indexOf(plugged), 1);
    await plugged.detach();
  }

  #functionAt({ bus, slot, function: fn }: PciAddress): BareFunction | undefined {
    return this.functions().find(({ address }) => address.bus === bus && address.slot === slot && address.function === fn);
  }
}
