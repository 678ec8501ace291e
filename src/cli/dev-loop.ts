// The loop at a desk: a snapshot of a booted guest, and for every round a module built and loaded into a copy of it that
// nothing has touched, with its devices plugged. The next copy is made ready while the author writes.
import { BootError, GuestCommandError, ProtocolError, RootportError } from '../errors.ts';
import { awaitProbe } from '../guest/probe-end.ts';
import { GdbStub } from '../machine/gdb-stub.ts';
import { provenSnapshot } from '../machine/kept-snapshots.ts';
import type { Machine } from '../machine/machine.ts';
import type { BootOptions } from '../machine/options.ts';
import type { PciFunction } from '../machine/pci-function.ts';
import type { Snapshot } from '../machine/snapshot.ts';
import type { Device } from '../qemu/attachment.ts';

export interface DevOptions {
  /** Of the module: it holds a Kbuild or a Makefile. */
  readonly directory: string;
  /** New ones for every guest. */
  readonly devices: () => readonly Device[];
  /** A command of the guest's, once the module is loaded. */
  readonly run?: string | undefined;
  readonly boot: BootOptions;
  /** Undefined: no debugger. */
  readonly gdb?: DevGdb | undefined;
}

/**
 * A round with gdb has no end of its own: once the module is loaded it waits for gdb, and for its first `continue`. The
 * devices are plugged then, and the command is run, so that what stops in the driver's probe() is seen.
 */
export interface DevGdb {
  /** Told the line that starts gdb. */
  line(command: string): void;
  /** Told what the guest's kernel and the command say, as they say it. */
  said(text: string): void;
}

export interface Round {
  /** Compiled, loaded, the command exited with 0, and the guest lives. */
  readonly passed: boolean;
  /** What there is to read: the compiler's words, the command's output, the kernel's log of this round, an error. */
  readonly text: string;
}

/** What rootport dev goes round in. */
export interface Rounds {
  /**
   * What the author's code does wrong is the round's text; what the host lacks is thrown. Undefined when it was
   * cancelled: there is nothing to tell.
   */
  round(cancelled: AbortSignal): Promise<Round | undefined>;
  close(): Promise<void>;
}

const MARK = 'rootport: the module is loaded from here on';

/** What gdb has stopped answers when its author lets it. */
const DEBUGGED_TIMEOUT_MS = 24 * 3600_000;

export class DevLoop implements Rounds {
  readonly #options: DevOptions;
  readonly #snapshot: Snapshot;
  /** A guest that waits for the module. */
  #next: Promise<Machine>;
  #closed = false;

  private constructor(options: DevOptions, snapshot: Snapshot, first: Machine) {
    this.#options = options;
    this.#snapshot = snapshot;
    this.#next = this.#prepare(Promise.resolve(first));
  }

  /** Of the boot that the cache keeps; the first time it is booted. */
  static async open(options: DevOptions): Promise<DevLoop> {
    const { snapshot, machine } = await provenSnapshot(options.boot);
    return new DevLoop(options, snapshot, machine);
  }

  /** Build, load, run. */
  async round(cancelled: AbortSignal): Promise<Round | undefined> {
    const machine = await this.#next;
    const cancel = (): void => void machine.close();
    cancelled.addEventListener('abort', cancel, { once: true });
    try {
      const module = await machine.buildModule(this.#options.directory);
      if (cancelled.aborted) return undefined;
      const round = await this.#loaded(machine, () => machine.guest.loadModule(module), module.warnings);
      return this.#options.gdb === undefined || !round.passed ? round : await this.#debugged(machine, this.#options.gdb, round.text);
    } catch (error) {
      if (cancelled.aborted || this.#closed) return undefined;
      if (!(error instanceof RootportError) || error.name === 'EnvironmentError') throw error;
      return { passed: false, text: `${error.message}\n` };
    } finally {
      cancelled.removeEventListener('abort', cancel);
      await machine.close();
      if (!this.#closed) this.#next = this.#prepare(this.#snapshot.restore());
    }
  }

  #prepare(restored: Promise<Machine>): Promise<Machine> {
    const ready = this.#prepared(restored);
    ready.catch(() => undefined); // the round that wants it hears
    return ready;
  }

  async #prepared(restored: Promise<Machine>): Promise<Machine> {
    const machine = await restored;
    try {
      if (this.#options.gdb === undefined) await this.#plug(machine);
      await machine.guest.run(`echo '${MARK}' >/dev/kmsg`);
      return machine;
    } catch (error) {
      await machine.close();
      throw error;
    }
  }

  /** The devices are there, and the guest has enumerated them; in-tree drivers are not waited for. */
  async #plug(machine: Machine): Promise<void> {
    for (const device of this.#options.devices()) {
      const fn = await machine.plug(device, { waitForGuest: false });
      await machine.guest.until(`[ -e ${fn.sysfs}/driver_override ]`, `the guest to find ${device.kind}`, machine.guest.defaultTimeoutMs);
    }
  }

  /** To the end of the machine: a save is one. */
  async #debugged(machine: Machine, { line, said }: DevGdb, log: string): Promise<never> {
    const { guest, signal } = machine;
    const stub = await GdbStub.open(machine);
    const command = await stub.command();
    said(log);
    machine.console.onLine(({ text }) => said(`${text}\n`));
    const continued = stub.continued();
    line(command);
    await continued;
    const plugged: PciFunction[] = [];
    for (const device of this.#options.devices()) plugged.push(await machine.plug(device, { waitForGuest: false }));
    if (this.#options.run !== undefined) {
      const bound = plugged.map(({ sysfs, bdf }) => `until [ -e ${sysfs}/driver ]; do usleep 3000; done; ${awaitProbe(bdf)}\n`);
      const { channel } = await guest.ssh.start(`${bound.join('')}${this.#options.run}`, { timeoutMs: DEBUGGED_TIMEOUT_MS });
      for (const stream of [channel, channel.stderr]) stream.on('data', (chunk: Buffer) => said(chunk.toString()));
    }
    return new Promise((_, reject) => {
      const over = (): void => reject(signal.reason as Error);
      signal.addEventListener('abort', over, { once: true });
      if (signal.aborted) over();
    });
  }

  async #loaded(machine: Machine, load: () => Promise<void>, warnings: string): Promise<Round> {
    const run = this.#options.gdb === undefined ? this.#options.run : undefined;
    const said = [warnings];
    let passed = true;
    try {
      await load();
      if (run !== undefined) {
        const { stdout, stderr } = await machine.guest.run(run);
        said.push(stdout, stderr);
      }
    } catch (error) {
      if (!(error instanceof BootError || error instanceof GuestCommandError)) throw error;
      passed = false;
      said.push(error instanceof GuestCommandError ? `${error.stdout}${error.stderr}${run} exited with ${error.exitCode}\n` : `${error.summary.split('\nkernel log:')[0] ?? ''}\n`);
    }
    const log = await machine.guest.dmesg();
    const at = log.lastIndexOf(MARK);
    if (at < 0) throw new ProtocolError('the guest\'s log has lost the mark of this round: the module wrote too much');
    return { passed, text: said.filter((text) => text !== '').join('') + log.slice(log.indexOf('\n', at) + 1) };
  }

  async close(): Promise<void> {
    this.#closed = true;
    await this.#next.then((machine) => machine.close(), () => undefined);
    await this.#snapshot.close();
  }
}
