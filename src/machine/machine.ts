// A running machine: plug and unplug, its guest, its monitor, and its end.
import { resolve } from 'node:path';
import { MachineExitError, RootportError, UsageError } from '../errors.ts';
import type { Guest } from '../guest/guest.ts';
import { KernelLog } from '../guest/kernel-log.ts';
import { Probe } from '../guest/probe.ts';
import type { ProbedFunction } from '../guest/probe-function.ts';
import type { ProbeEvent } from '../guest/probe-protocol.ts';
import { SshConnection, type SshTarget } from '../guest/ssh.ts';
import { buildModule, type BuiltModule } from '../image/index.ts';
import type { Device } from '../qemu/attachment.ts';
import { placement } from '../qemu/command-line.ts';
import type { Console } from '../qemu/console.ts';
import type { MachinePreset } from '../qemu/preset.ts';
import type { QemuProcess } from '../qemu/process.ts';
import type { QmpClient } from '../qmp/client.ts';
import type { InterruptLedger, InterruptMark } from './interrupt-ledger.ts';
import { readStretch, rememberPlug, traceBefore } from './interrupt-stretch.ts';
import type { MachineShape } from './launch.ts';
import type { Parts } from './parts.ts';
import { PciFunction } from './pci-function.ts';
import { Plugged } from './plugged.ts';
import { freePort } from './ports.ts';
import type { Trouble } from './trouble.ts';
import { plugDevice, type PlugOptions } from './plug.ts';
import { unplugDevice, type UnplugOptions, type UnplugReport } from './unplug.ts';

export interface MachineInnards {
  readonly parts: Parts;
  readonly preset: MachinePreset;
  readonly ports: readonly string[];
  /** What its QEMU was given, for copies of it. */
  readonly shape: MachineShape;
  readonly directory: string;
  readonly process: QemuProcess;
  readonly console: Console;
  readonly qmp: QmpClient;
  readonly guest: Guest;
  readonly trouble: Trouble;
  readonly plugged: Plugged[];
  readonly sshTarget: SshTarget;
  /** From a snapshot, not booted. */
  readonly restored: boolean;
}

export class Machine {
  readonly guest: Guest;
  readonly qmp: QmpClient;
  readonly console: Console;
  readonly #innards: MachineInnards;
  readonly #functions = new Map<Plugged, PciFunction>();
  #nextId: number;
  #probe: Promise<Probe> | undefined;
  #closed: Promise<void> | undefined;

  constructor(innards: MachineInnards) {
    this.#innards = innards;
    this.guest = innards.guest;
    this.qmp = innards.qmp;
    this.console = innards.console;
    this.#nextId = innards.plugged.length;
    this.guest.scene = (error) => this.#onScene(error);
    innards.trouble.suspicion = () => this.#suspicion();
  }

  /** What was chosen and why, one line. */
  get description(): string {
    const { parts, preset, restored } = this.#innards;
    return `${preset.name}, ${parts.qemu.name}, Linux ${parts.kernel.name}, ${parts.accelerator.why}${restored ? '; restored from a snapshot' : ''}`;
  }

  get parts(): Parts { return this.#innards.parts; }
  get kernelLog(): KernelLog { return this.#innards.trouble.kernelLog; }
  /** Aborted with the reason when QEMU exits, the guest's kernel faults, or a back end fails. */
  get signal(): AbortSignal { return this.#innards.trouble.signal; }
  /** The line that starts the same QEMU by hand. */
  get repro(): string { return this.#innards.process.commandLine; }
  /** Log lines of the devices' back ends. */
  get deviceLog(): readonly string[] { return this.#innards.trouble.deviceLog; }
  get innards(): MachineInnards { return this.#innards; }
  /** Hot-pluggable sockets, in order. */
  get ports(): readonly string[] { return this.#innards.ports; }

  /**
   * Plug a device into a free port (or the named one) of the running guest. Resolves when the guest has
   * the function, and its driver where the device names one.
   */
  async plug(device: Device, options: PlugOptions = {}): Promise<PciFunction> {
    return this.#scene(async () => {
      const port = freePort(this.#innards.ports, this.#innards.plugged, options.port);
      const { parts, directory, trouble } = this.#innards;
      const plugged = await Plugged.attach(device, {
        id: `dev${this.#nextId++}`, port, directory, trouble, qemu: { version: parts.qemu.version, accel: parts.accelerator.name },
      });
      this.#innards.plugged.push(plugged);
      try {
        rememberPlug(plugged, await traceBefore(this));
        const fn = await plugDevice(this, plugged, placement(this.#innards.preset, port), options);
        this.#functions.set(plugged, fn);
        return fn;
      } catch (error) {
        await this.#forget(plugged);
        throw error;
      }
    });
  }

  /**
   * Unplug it the orderly way: the guest is asked to let go, and QEMU says when it is gone. The report
   * tells what every side still shows of it: give it to `toLeaveNothingBehind`.
   * @throws DeadlineError when the guest does not let go (a refusal is silence)
   */
  async unplug(device: Device | PciFunction, options: UnplugOptions = {}): Promise<UnplugReport> {
    return this.#scene(async () => {
      const plugged = this.#find(device);
      const fn = await this.#functionOf(plugged);
      const report = await unplugDevice(this, plugged, fn, options);
      await this.#forget(plugged);
      return report;
    });
  }

  /** The function of a device that was cold-plugged, or plugged earlier. */
  async functionOf(device: Device): Promise<PciFunction> {
    return this.#scene(() => this.#functionOf(this.#find(device)));
  }

  /**
   * Bind the test module rootport_probe to a function, taking it from its driver; the module is built
   * and loaded the first time. The function is then reached through what is returned.
   */
  async probe(fn: PciFunction): Promise<ProbedFunction> {
    return this.#scene(async () => {
      this.#probe ??= Probe.load(this);
      return (await this.#probe).bind(fn.bdf);
    });
  }

  /** What the PCI core asked of the probe module (probe, remove), oldest first; it survives removals. */
  async probeEvents(fn?: PciFunction): Promise<ProbeEvent[]> {
    if (this.#probe === undefined) return [];
    return (await this.#probe).events(fn === undefined ? {} : { bdf: fn.bdf });
  }

  /**
   * What the device fired, the VMM sent and the guest handled on each of a function's vectors, since a mark or
   * since it was plugged. The VMM is a witness under TCG, where the trace ran by then: in useMachine it does.
   */
  ledger(fn: PciFunction, since?: InterruptMark): Promise<InterruptLedger> {
    return this.#scene(async () => (await readStretch(fn, since)).ledger);
  }

  /** Build the Kbuild directory for this guest's kernel. */
  buildModule(directory: string): Promise<BuiltModule> {
    return buildModule(resolve(directory), this.#innards.parts.kernel);
  }

  /** A further SSH connection, for an interactive session. */
  connect(): Promise<SshConnection> {
    return SshConnection.connect(this.#innards.sshTarget);
  }

  /** End QEMU, the back ends and everything on disk. Idempotent. */
  close(): Promise<void> {
    this.#closed ??= (async () => {
      const { trouble, process, qmp, plugged, guest } = this.#innards;
      trouble.leave();
      for (const one of plugged) await one.attachment.quiesce?.();
      await process.end();
      trouble.raise(new MachineExitError('the machine was closed', undefined, undefined));
      guest.close();
      qmp.close();
      await Promise.all(plugged.map((one) => one.detach()));
    })();
    return this.#closed;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #functionOf(plugged: Plugged): Promise<PciFunction> {
    let fn = this.#functions.get(plugged);
    if (fn === undefined) {
      fn = await PciFunction.find(this, plugged);
      this.#functions.set(plugged, fn);
    }
    return fn;
  }

  #find(device: Device | PciFunction): Plugged {
    const found = device instanceof PciFunction ? device.plugged
      : this.#innards.plugged.find((one) => one.device === device);
    if (found === undefined || !this.#innards.plugged.includes(found)) {
      throw new UsageError('that device is not plugged into this machine');
    }
    return found;
  }

  async #forget(plugged: Plugged): Promise<void> {
    const { plugged: all } = this.#innards;
    if (all.includes(plugged)) all.splice(all.indexOf(plugged), 1);
    this.#functions.delete(plugged);
    await plugged.detach();
  }

  /** Errors of a running machine carry its context. */
  async #scene<T>(work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (error) {
      throw this.#onScene(error);
    }
  }

  #onScene(error: unknown): unknown {
    const context = this.#innards.trouble.context();
    if (error instanceof RootportError && !(error instanceof UsageError) && context !== undefined) error.on(context);
    return error;
  }

  /** What a test did to a back end before QEMU ended is the likeliest reason why it did. */
  #suspicion(): string | undefined {
    for (const { device, port, attachment } of this.#innards.plugged) {
      const ailment = attachment.ailment?.();
      if (ailment === undefined) continue;
      return `${device.kind} in ${port}: ${ailment}. QEMU 7.2 to 11.1 abort on that in some devices (hw/virtio/vhost-user-base.c), `
        + 'at once when no driver runs the queues';
    }
    return undefined;
  }
}
