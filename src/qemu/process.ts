// One QEMU process: started on a leash, its console and QMP on inherited socket pairs (no path, no port,
// no race), its end observed once and told to everyone who waits.
import type { Duplex } from 'node:stream';
import { execa } from 'execa';
import { EnvironmentError, MachineExitError } from '../errors.ts';
import { shellWord } from '../shell-word.ts';
import { leash, PARENT_DEATH_PREFIX, type Leash } from './leash.ts';

export const QMP_FD = 3;
export const CONSOLE_FD = 4;
/** The guest's memory, when this process made it; or, of a machine without a guest, qtest's socket. */
export const MEMORY_FD = 5;
export const QTEST_FD = 5;

export interface QemuProcessOptions {
  /** Program and all arguments. */
  readonly command: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  /** The machine's own directory; its base name must stand in `command` (-name). */
  readonly directory: string;
  /** A memory file to inherit as MEMORY_FD; the caller's to close once QEMU has started. Not with `qtest`. */
  readonly memoryFd?: number;
  /** It is to inherit a socket for qtest, QTEST_FD. */
  readonly qtest?: boolean;
}

export interface QemuExit {
  readonly exitCode: number | undefined;
  readonly signal: string | undefined;
}

const STDERR_MAX = 256 * 1024;

export class QemuProcess {
  readonly pid: number;
  readonly qmp: Duplex;
  readonly console: Duplex;
  /** Undefined without the option `qtest`. */
  readonly qtest: Duplex | undefined;
  /** Resolves when the process is gone; never rejects. */
  readonly exited: Promise<QemuExit>;
  readonly #leash: Leash;
  readonly #kill: (signal: NodeJS.Signals) => void;
  readonly #lineListeners = new Set<(line: string) => boolean>();
  #stderr = '';
  #partial = '';
  #ended = false;

  static start(options: QemuProcessOptions): Promise<QemuProcess> {
    return new Promise((resolve, reject) => {
      const process = new QemuProcess(options, resolve, reject);
      void process;
    });
  }

  private constructor(
    readonly options: QemuProcessOptions, started: (self: QemuProcess) => void, failed: (error: Error) => void,
  ) {
    this.#leash = leash(options.directory);
    const [file, ...args] = [...PARENT_DEATH_PREFIX, ...options.command];
    // execa takes the number of any descriptor and types only 'inherit' and the like.
    const memory = (options.memoryFd === undefined ? [] : [options.memoryFd]) as unknown as 'inherit'[];
    const child = execa(file, args, {
      stdio: ['ignore', 'pipe', 'pipe', 'pipe', 'pipe', ...memory, ...(options.qtest === true ? ['pipe' as const] : [])],
      env: options.env, buffer: false, reject: false, cleanup: false, forceKillAfterDelay: false,
    });
    this.pid = child.pid ?? 0;
    this.qmp = child.stdio[QMP_FD] as unknown as Duplex;
    this.console = child.stdio[CONSOLE_FD] as unknown as Duplex;
    this.qtest = (child.stdio as readonly unknown[])[QTEST_FD] as Duplex | undefined;
    for (const stream of [this.qmp, this.console, this.qtest]) stream?.on('error', () => {}); // its end is seen as an exit
    this.#kill = (signal) => { child.kill(signal); };
    for (const stream of [child.stdout, child.stderr]) {
      stream.on('data', (chunk: Buffer) => this.#takeStderr(chunk.toString('utf8')));
    }
    this.exited = child.then(async (result) => {
      this.#ended = true;
      return { exitCode: result.exitCode, signal: result.signal };
    });
    if (child.pid === undefined) {
      void child.then(async (result) => {
        await this.#leash.release();
        failed(new EnvironmentError(`setpriv cannot be started: ${result.shortMessage}`, {
          cause: result, hint: 'install util-linux (Debian: apt-get install util-linux)',
        }));
      });
      return;
    }
    this.#leash.hold(child.pid);
    started(this);
  }

  /** The command line, quoted for a shell. */
  get commandLine(): string {
    const env = Object.entries(this.options.env).map(([key, value]) => `${key}=${shellWord(value)}`);
    return [...env, ...this.options.command.map(shellWord)].join(' ');
  }

  /** QEMU's own output (stderr, and stdout that nothing else uses), the last 256 KiB. */
  get stderr(): string {
    return this.#stderr + this.#partial;
  }

  get running(): boolean {
    return !this.#ended;
  }

  /**
   * Every whole line of QEMU's own output from now on; a trace event is one. A listener that says true
   * takes the line: it is left out of `stderr`. Returns how to stop.
   */
  onLine(listener: (line: string) => boolean): () => void {
    this.#lineListeners.add(listener);
    return () => void this.#lineListeners.delete(listener);
  }

  /** An error that says how it ended, for those who wait. */
  exitError({ exitCode, signal }: QemuExit, while_: string): MachineExitError {
    const how = signal === undefined ? `exited with code ${exitCode ?? '?'}` : `was killed by ${signal}`;
    return new MachineExitError(`QEMU ${how} ${while_}`, exitCode, signal);
  }

  /** Kill QEMU, wait until it is gone, and let the leash remove the directory. Idempotent. */
  async end(): Promise<void> {
    if (!this.#ended) this.#kill('SIGKILL');
    await this.exited;
    await this.#leash.release();
  }

  #takeStderr(text: string): void {
    const lines = (this.#partial + text).split('\n');
    this.#partial = (lines.pop() ?? '').slice(-STDERR_MAX);
    const kept = lines.filter((line) => ![...this.#lineListeners].some((listener) => listener(line)));
    if (kept.length > 0) this.#stderr = `${this.#stderr}${kept.join('\n')}\n`.slice(-STDERR_MAX);
  }
}
