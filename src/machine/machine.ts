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
import type { Console } from '../qemu/console.ts';
import type { MachinePreset } from '../qemu/preset.ts';
import type { QemuProcess } from '../qemu/process.ts';
import type { QmpClient } from '../qmp/client.ts';
import { injectAerError, type AerError } from './aer-injection.ts';
import { removeBackends } from './device-backends.ts';
import type { InterruptLedger, InterruptMark } from './interrupt-ledger.ts';
import { readStretch, rememberPlug, traceBefore } from './interrupt-stretch.ts';
import type { MachineShape } from './launch.ts';
import type { Parts } from './parts.ts';
import { PciFunction } from './pci-function.ts';
import { dumpMemory, type DumpOptions } from './memory-dump.ts';
import { Plugged } from './plugged.ts';
import { freePort } from './ports.ts';
import type { Trouble } from './trouble.ts';
import { plugDevice, type PlugOptions } from './plug.ts';
import { concludeUnplug, unplugDevice, type UnplugOptions, type UnplugReport } from './unplug.ts';

/** Of a snapshot, for a machine that was restored from it. */
export interface Restored {
  /** When the boot was saved, ISO 8601. */
  readonly madeAt: string;
  /** What the console said until then. */
  readonly bootConsole: string;
}

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
  /** What it was restored from; undefined when it was booted itself. */
  readonly restored: Restored | undefined;
}

export class Machine {
  readonly guest: Guest;
  readonly qmp: QmpClient;
  readonly console: Console;
  readonly #innards: MachineInnards;
  readonly #functions = new Map<Plugged, PciFunction>();
  /** Ports of devices whose back ends are being started. */
  readonly #reserved: { readonly port: string }[] = [];
  readonly #unplugs = new Map<Plugged, Promise<UnplugReport>>();
  /** Devices that went without an unplug that waited, and their ends under way. */
  readonly #departed = new WeakMap<Device, Plugged>();
  readonly #departures = new Set<Promise<void>>();
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
    this.guest.recorder = innards.trouble.recorder;
    innards.trouble.suspicion = () => this.#suspicion();
    innards.qmp.on('DEVICE_DELETED', ({ data }) => {
      const plugged = innards.plugged.find(({ id }) => id === data?.['device']);
      if (plugged !== undefined) this.#onDeleted(plugged);
    });
  }

  /** What was chosen and why, one line. */
  get description(): string {
    const { parts, preset, restored } = this.#innards;
    return `${preset.name}, ${parts.qemu.name}, Linux ${parts.kernel.name}, ${parts.accelerator.why}${restored === undefined ? '' : `; restored from a snapshot of ${restored.madeAt}`}`;
  }

  get parts(): Parts { return this.#innards.parts; }
  get kernelLog(): KernelLog { return this.#innards.trouble.kernelLog; }
  /** Aborted with the reason when QEMU exits, the guest's kernel faults, or a back end fails. */
  get signal(): AbortSignal { return this.#innards.trouble.signal; }
  /** The line that starts the same QEMU by hand. */
  get repro(): string { return this.#innards.process.commandLine; }
  /** What the console said since the guest's boot began, up to the snapshot of a restored machine, whose own console begins with the restore. */
  get bootConsole(): string { return this.#innards.restored?.bootConsole ?? this.console.text; }
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
      const { parts, directory, trouble, plugged: all } = this.#innards;
      const id = options.id ?? `dev${this.#nextId++}`;
      if (all.some((one) => one.id === id)) throw new UsageError(`there is a device with the id ${id} already`);
      const free = freePort(this.#innards, [...all, ...this.#reserved], options.port);
      this.#reserved.push(free);
      const plugged = await Plugged.attach(device, {
        id, port: free.port, directory, trouble, qemu: { version: parts.qemu.version, accel: parts.accelerator.name },
      }).finally(() => this.#reserved.splice(this.#reserved.indexOf(free), 1));
      all.push(plugged);
      this.#departed.delete(device);
      try {
        rememberPlug(plugged, await traceBefore(this));
        const fn = await plugDevice(this, plugged, free.place, options);
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
   * tells what every side still shows of it: give it to `toLeaveNothingBehind`. Of a device that is being
   * unplugged already, that unplug's report.
   * @throws DeadlineError when the guest does not let go (a refusal is silence). The device stays plugged then;
   * should the guest let go of it later, its port is free, and to ask again gives the report.
   */
  async unplug(device: Device | PciFunction, options: UnplugOptions = {}): Promise<UnplugReport> {
    return this.#scene(async () => {
      const late = this.#departed.get(device instanceof PciFunction ? device.plugged.device : device);
      if (late?.begun !== undefined) {
        this.#departed.delete(late.device);
        return concludeUnplug(this, late, late.begun, { timeoutMs: options.timeoutMs ?? this.guest.defaultTimeoutMs });
      }
      const plugged = this.#find(device);
      const underWay = this.#unplugs.get(plugged);
      if (underWay !== undefined) {
        if (Object.keys(options).length > 0) throw new UsageError('that device is being unplugged already');
        return underWay;
      }
      const unplug = (async () => unplugDevice(this, plugged, await this.#functionOf(plugged), options))();
      this.#unplugs.set(plugged, unplug);
      try {
        return await unplug;
      } finally {
        this.#unplugs.delete(plugged);
        if (plugged.deletedAtMs !== undefined) await this.#forget(plugged);
      }
    });
  }

  /**
   * Let a device (or a port, by name) have a PCI Express error: `'UnxCmplt'`, `'RxOF'`, `'BadTLP'`, ... (PCIe Base 6.0,
   * 7.8.4). Its AER Status bit is set, and unless it is masked the root port is told; whether it is fatal says the
   * Severity register. QEMU before 10.0 sends uncorrectable errors only of functions whose SERR# Enable (COMMAND, bit
   * 8) is set, and never correctable ones (hw/pci/pcie_aer.c, pcie_aer_msg_alldev): the status bit is there then, and
   * the guest hears nothing.
   * @throws UsageError for an unknown name, or a function without AER
   */
  async injectAer(device: Device | PciFunction | string, error: AerError): Promise<void> {
    return this.#scene(() => injectAerError(this.qmp, typeof device === 'string' ? device : this.#find(device).id, error));
  }

  /** The function of a device that was cold-plugged, or plugged earlier. */
  async functionOf(device: Device): Promise<PciFunction> {
    return this.#scene(() => this.#functionOf(this.#find(device)));
  }

  /**
   * Bind the test module rootport_probe to a function, taking it from its driver; the module is built
   * and loaded the first time. The function is then reached through what is returned. One that is no plugged
   * device's (of extraArgs, of the board) is named by its address: `{ bdf: '0000:03:01.0' }`.
   */
  async probe(fn: Pick<PciFunction, 'bdf'>): Promise<ProbedFunction> {
    return this.#scene(async () => {
      this.#probe ??= Probe.load(this);
      return (await this.#probe).bind(fn.bdf);
    });
  }

  /** Build and load the test module, for `warm`: the machines that are restored from the snapshot have it then. */
  async loadProbe(): Promise<void> {
    await this.#scene(() => (this.#probe ??= Probe.load(this)));
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

  /**
   * The guest's memory and its CPUs' registers as a file for crash, drgn or gdb; the guest stands still meanwhile. Also of
   * one whose kernel has panicked. Resolves to the file's size in bytes.
   * @throws UsageError for a format that QEMU does not write, EnvironmentError when there is no room
   */
  dumpMemory(path: string, options?: DumpOptions): Promise<number> {
    return this.#scene(() => dumpMemory(this.#innards, path, options));
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
      await Promise.all([...this.#departures, ...plugged.map((one) => one.detach())]);
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
      const isGone = !(device instanceof PciFunction) && this.#departed.has(device);
      throw new UsageError('that device is not plugged into this machine', isGone ? { hint: 'the guest let go of it without an unplug that waited' } : {});
    }
    return found;
  }

  /** An unplug that waits sees to what is left. Else the guest let go late, or of itself: the device's end is here. */
  #onDeleted(plugged: Plugged): void {
    plugged.deletedAtMs = performance.now();
    if (this.#unplugs.has(plugged)) return;
    const { trouble, plugged: all } = this.#innards;
    const { id, device } = plugged;
    all.splice(all.indexOf(plugged), 1);
    this.#departed.set(device, plugged);
    trouble.log(id, `QEMU let go of ${device.kind} in ${plugged.port}, and no unplug was waiting`);
    const end = plugged.release(() => removeBackends(this, plugged, this.guest.defaultTimeoutMs))
      .catch((error: unknown) => trouble.log(id, error instanceof RootportError ? error.summary : String(error)))
      .then(() => this.#forget(plugged))
      .finally(() => this.#departures.delete(end));
    this.#departures.add(end);
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
