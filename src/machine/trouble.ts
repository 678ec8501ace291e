// What can end every wait on a machine at once: QEMU's exit, a fault of the guest's kernel, a back end
// that failed. One abort signal, whose reason is the first of them with the machine's context.
import { setMaxListeners } from 'node:events';
import { MachineExitError, RootportError, type MachineContext } from '../errors.ts';
import { faultOf } from '../guest/kernel-fault.ts';
import { KernelLog, type KernelReport } from '../guest/kernel-log.ts';
import type { Console } from '../qemu/console.ts';
import { Recorder, type Lane } from '../recorder.ts';
import type { QemuProcess } from '../qemu/process.ts';
import { within } from '../wait.ts';

/** How long a report that has begun is given to end, so that it can be quoted whole. */
const REPORT_QUIET_MS = 400;

/** What a back end's session says of messages (src/vhost-user/backend.ts). */
const MESSAGE = 'vhost-user: ';

export class Trouble {
  readonly #controller = new AbortController();
  readonly kernelLog = new KernelLog();
  /** What happened on the machine. */
  readonly recorder = new Recorder();
  readonly #deviceLog: string[] = [];
  #process: QemuProcess | undefined;
  #console: Console | undefined;
  #leaving = false;
  /** Asked when QEMU ended unexpectedly: a hint at what may have done it. */
  suspicion: (() => string | undefined) | undefined;

  /** Aborted with the reason as soon as something is wrong. */
  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  readonly #faultsEnd: boolean;

  /** `faultsEnd`: a fault of the guest's kernel is one. Default true. */
  constructor({ faultsEnd = true }: { readonly faultsEnd?: boolean } = {}) {
    this.#faultsEnd = faultsEnd;
    setMaxListeners(0, this.#controller.signal); // every wait on the machine listens
  }

  watch(process: QemuProcess, console: Console): void {
    this.#process = process;
    this.#console = console;
    void process.exited.then((exit) => {
      // A panic's last lines may still be in the pipe: let a begun report be the reason.
      setImmediate(() => {
        this.kernelLog.flush();
        this.raise(this.#suspected(process.exitError(exit, this.#leaving ? 'as it was told to' : 'unexpectedly')));
      });
    });
    console.onLine(({ text }) => {
      this.recorder.note('console', text);
      this.kernelLog.line(text);
    });
    // The end of a report is when it can be quoted whole; but a dying kernel may not get that far.
    this.kernelLog.onStart((report) => { if (report.fatal) setTimeout(() => this.#fault(report), REPORT_QUIET_MS).unref(); });
    this.kernelLog.onReport((report) => { if (report.fatal) this.#fault(report); });
  }

  #suspected(error: MachineExitError): MachineExitError {
    const hint = this.#leaving ? undefined : this.suspicion?.();
    if (hint === undefined) return error;
    return new MachineExitError(error.summary, error.exitCode, error.signal, { hint, cause: error });
  }

  #fault(report: KernelReport): void {
    if (this.#faultsEnd && !this.signal.aborted) this.raise(faultOf(report));
  }

  /** The first trouble counts. */
  raise(error: Error): void {
    if (this.#controller.signal.aborted) return;
    const context = this.context();
    this.#controller.abort(error instanceof RootportError && context !== undefined ? error.on(context) : error);
  }

  /** From now on an exit of QEMU is expected; it still ends every wait. */
  leave(): void {
    this.#leaving = true;
  }

  /** The trouble that there is, waiting a moment for one that a broken stream announces. */
  async reason(): Promise<Error> {
    if (!this.signal.aborted && this.#process !== undefined) {
      const { exited } = this.#process;
      await within(exited, { timeoutMs: 1000, what: 'QEMU to exit' }).catch(() => undefined);
      await new Promise((resolve) => { setImmediate(() => setImmediate(resolve)); });
    }
    return this.signal.reason as Error ?? new Error('the machine is gone');
  }

  /** A line of a device's back end, by the device's id. */
  log(id: string, text: string): void {
    const [lane, said]: [Lane, string] = text.startsWith(MESSAGE) ? ['vhost-user', text.slice(MESSAGE.length)] : ['device', text];
    this.recorder.note(lane, `${id}: ${said}`);
    this.#deviceLog.push(`${id}: ${text}`);
    if (this.#deviceLog.length > 10_000) this.#deviceLog.shift();
  }

  get deviceLog(): readonly string[] {
    return this.#deviceLog;
  }

  context(): MachineContext | undefined {
    if (this.#process === undefined) return undefined;
    return {
      commandLine: this.#process.commandLine,
      consoleTail: this.#console?.tail(40) ?? '',
      stderr: this.#process.stderr.split('\n').slice(-40).join('\n'),
    };
  }
}
