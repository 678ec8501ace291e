// The loop at a desk: a snapshot of a booted guest, and for every round a module built and loaded into a copy of it that
// nothing has touched, with its devices plugged. The next copy is made ready while the author writes.
import { BootError, GuestCommandError, ProtocolError, RootportError } from '../errors.ts';
import { boot } from '../machine/boot.ts';
import type { Machine } from '../machine/machine.ts';
import type { BootOptions } from '../machine/options.ts';
import { Snapshot } from '../machine/snapshot.ts';
import type { Device } from '../qemu/attachment.ts';

export interface DevOptions {
  /** Of the module: it holds a Kbuild or a Makefile. */
  readonly directory: string;
  /** New ones for every guest. */
  readonly devices: () => readonly Device[];
  /** A command of the guest's, once the module is loaded. */
  readonly run?: string | undefined;
  readonly boot: BootOptions;
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

export class DevLoop implements Rounds {
  readonly #options: DevOptions;
  readonly #snapshot: Snapshot;
  /** A guest that waits for the module. */
  #next: Promise<Machine>;

  private constructor(options: DevOptions, snapshot: Snapshot) {
    this.#options = options;
    this.#snapshot = snapshot;
    this.#next = this.#prepare();
  }

  /** Boot once, and keep it. */
  static async open(options: DevOptions): Promise<DevLoop> {
    return new DevLoop(options, await Snapshot.take(await boot(options.boot)));
  }

  /** Build, load, run. */
  async round(cancelled: AbortSignal): Promise<Round | undefined> {
    const machine = await this.#next;
    const cancel = (): void => void machine.close();
    cancelled.addEventListener('abort', cancel, { once: true });
    try {
      const module = await machine.buildModule(this.#options.directory);
      if (cancelled.aborted) return undefined;
      return await this.#loaded(machine, () => machine.guest.loadModule(module), module.warnings);
    } catch (error) {
      if (cancelled.aborted) return undefined;
      if (!(error instanceof RootportError) || error.name === 'EnvironmentError') throw error;
      return { passed: false, text: `${error.message}\n` };
    } finally {
      cancelled.removeEventListener('abort', cancel);
      await machine.close();
      this.#next = this.#prepare();
    }
  }

  /** The devices are there, and the guest has enumerated them; in-tree drivers are not waited for. */
  async #prepare(): Promise<Machine> {
    const machine = await this.#snapshot.restore();
    try {
      for (const device of this.#options.devices()) {
        const fn = await machine.plug(device, { waitForGuest: false });
        await machine.guest.until(`[ -e ${fn.sysfs}/driver_override ]`, `the guest to find ${device.kind}`, machine.guest.defaultTimeoutMs);
      }
      await machine.guest.run(`echo '${MARK}' >/dev/kmsg`);
      return machine;
    } catch (error) {
      await machine.close();
      throw error;
    }
  }

  async #loaded(machine: Machine, load: () => Promise<void>, warnings: string): Promise<Round> {
    const { run } = this.#options;
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
    await this.#next.then((machine) => machine.close(), () => undefined);
    await this.#snapshot.close();
  }
}
