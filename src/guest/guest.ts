// The guest as a test sees it: commands, files, modules, kernel log.
import { readFile } from 'node:fs/promises';
import { basename } from 'node:path';
import type { ClientChannel } from 'ssh2';
import { BootError, GuestCommandError, UsageError } from '../errors.ts';
import { firstLine, type Recorder } from '../recorder.ts';
import { shellWord } from '../shell-word.ts';
import type { BuiltModule } from '../image/index.ts';
import { KeptShell, type GuestShell } from './kept-shell.ts';
import type { KernelFrame } from './kernel-frames.ts';
import { symbolise, type SymbolisedFrame } from './symbolise.ts';
import type { ExecResult, SshConnection } from './ssh.ts';

export interface RunOptions {
  readonly timeoutMs?: number;
  /** Given to the command on its standard input. */
  readonly input?: Buffer | string;
}

export interface CommandResult {
  readonly stdout: string;
  readonly stderr: string;
}

export interface AttemptResult extends CommandResult {
  readonly exitCode: number | undefined;
  readonly signal: string | undefined;
}

/** A command that was started and not waited for. */
export interface GuestProcess {
  readonly command: string;
  readonly channel: ClientChannel;
  /** The end of the command: rejects with a GuestCommandError on a non-zero exit. */
  wait(options?: { timeoutMs?: number }): Promise<CommandResult>;
  /** Resolves with its exit whatever it was. */
  settled(options?: { timeoutMs?: number }): Promise<AttemptResult>;
}

/** Of a condition in the kept shell, before its wait is moved elsewhere: under TCG one takes some 10 ms. */
const QUICK_LOOKS = 10;

export class Guest {
  /** A shell kept open for the harness's own short questions. */
  readonly shell: GuestShell;
  readonly #modules: BuiltModule[];
  readonly #kept: KeptShell;
  /** Adds the machine's context to an error; set by the machine. */
  scene: (error: unknown) => unknown = (error) => error;
  /** Told of every command; set by the machine. */
  recorder: Recorder | undefined;

  /** @param modules what it has loaded already, as `loadedModules` of the guest that it goes on from */
  constructor(readonly ssh: SshConnection, readonly release: string, readonly defaultTimeoutMs: number, modules: readonly BuiltModule[] = []) {
    this.#modules = [...modules];
    const kept = new KeptShell(ssh, defaultTimeoutMs);
    this.#kept = kept;
    this.shell = { run: (command, options) => this.#recorded(`shell: ${command}`, () => kept.run(command, options)) };
  }

  /** Run a command with `sh -c`; rejects with a GuestCommandError on a non-zero exit, a DeadlineError when it hangs. */
  async run(command: string, options: RunOptions = {}): Promise<CommandResult> {
    try {
      return checked(command, await this.#exec(command, options));
    } catch (error) {
      throw this.scene(error);
    }
  }

  /** Run a command and return however it ended. */
  async attempt(command: string, options: RunOptions = {}): Promise<AttemptResult> {
    return texts(await this.#exec(command, options));
  }

  /** Start a command; its end is awaited with wait(). */
  async start(command: string, { input }: { input?: Buffer | string } = {}): Promise<GuestProcess> {
    const running = await this.ssh.start(command, { timeoutMs: this.defaultTimeoutMs, input });
    const over = this.recorder?.begin('guest', `start: ${command}`);
    void running.end.then((result) => over?.(exitText(result)));
    const end = ({ timeoutMs = this.defaultTimeoutMs } = {}): Promise<ExecResult> => this.ssh.finish(running, timeoutMs);
    return {
      command,
      channel: running.channel,
      wait: async (options) => checked(command, await end(options)),
      settled: async (options) => texts(await end(options)),
    };
  }

  #exec(command: string, { timeoutMs = this.defaultTimeoutMs, input }: RunOptions): Promise<ExecResult> {
    return this.#recorded(command, () => this.ssh.exec(command, { timeoutMs, input }), exitText);
  }

  async #recorded<T>(command: string, work: () => Promise<T>, told: (result: T) => string | undefined = () => undefined): Promise<T> {
    const over = this.recorder?.begin('guest', command);
    try {
      const result = await work();
      over?.(told(result));
      return result;
    } catch (error) {
      over?.(firstLine(error));
      throw error;
    }
  }

  /** Put bytes (or a local file, by path) into the guest. Its directory is made. */
  async upload(source: Buffer | string, path: string, mode = 0o644): Promise<void> {
    const bytes = typeof source === 'string' ? await readFile(source) : source;
    const quoted = shellWord(path);
    await this.run(`mkdir -p "$(dirname ${quoted})" && cat >${quoted} && chmod ${mode.toString(8)} ${quoted}`, { input: bytes });
  }

  /** The bytes of a file of the guest. */
  async readFile(path: string): Promise<Buffer> {
    const result = await this.#exec(`cat ${shellWord(path)}`, {});
    checked(`cat ${path}`, result);
    return result.stdout;
  }

  /**
   * Load modules: what `buildModule` made, or by name with modprobe out of the image.
   * @throws BootError quoting the kernel's last lines when the module does not load
   */
  async loadModule(module: BuiltModule | string, parameters = ''): Promise<void> {
    if (typeof module === 'string') return this.#load(`modprobe ${shellWord(module)} ${parameters}`, module);
    if (module.release !== this.release) {
      throw new UsageError(`the module was built for ${module.release}, and the guest runs ${this.release}`, {
        hint: 'build it with machine.buildModule(directory)',
      });
    }
    this.#modules.push(module); // before: its init may be what faults
    for (const file of module.files) {
      const path = `/tmp/modules/${basename(file)}`;
      await this.upload(file, path);
      await this.#load(`insmod ${path} ${parameters}`, basename(file));
    }
  }

  async #load(command: string, name: string): Promise<void> {
    try {
      await this.run(command);
    } catch (error) {
      if (!(error instanceof GuestCommandError)) throw error;
      const log = await this.shell.run('dmesg | tail -n 8');
      throw new BootError(`the module ${name} does not load: ${error.stderr.trim()}\nkernel log:\n${log.stdout.trimEnd()}`, { cause: error });
    }
  }

  async unloadModule(name: string): Promise<void> {
    await this.run(`rmmod ${shellWord(name.replace(/\.ko$/, ''))}`);
  }

  /** Those of buildModule that loadModule got, oldest first. */
  get loadedModules(): readonly BuiltModule[] {
    return [...this.#modules];
  }

  /** Frames of a kernel report with file and line, for those in modules that loadModule got from buildModule. */
  symbolise(frames: readonly KernelFrame[]): Promise<SymbolisedFrame[]> {
    return symbolise(frames, this.#modules);
  }

  /** The kernel's ring buffer, whole. */
  async dmesg(): Promise<string> {
    return (await this.run('dmesg')).stdout;
  }

  /**
   * Wait in the guest until a shell condition holds, looking every few milliseconds there.
   * @param what completes "waited 5 s for ..."
   */
  async until(condition: string, what: string, timeoutMs: number): Promise<void> {
    await this.#recorded(`until ${condition}`, async () => {
      const began = performance.now();
      if (await this.#holdsSoon(condition, what, timeoutMs)) return;
      const leftMs = Math.max(1, timeoutMs - (performance.now() - began));
      const channel = this.ssh.exec(`until ${condition}; do usleep 3000; done`, { timeoutMs: leftMs + 1000 });
      checked(condition, await this.ssh.guard(channel, leftMs, what));
    });
  }

  /** What comes within some 100 ms needs no channel and no shell of its own; the kept one is not kept longer. */
  async #holdsSoon(condition: string, what: string, timeoutMs: number): Promise<boolean> {
    if (!this.#kept.idle) return false;
    const looks = `looks=0; until ${condition}; do looks=$((looks+1)); [ $looks -lt ${QUICK_LOOKS} ] || break; usleep 3000; done; echo $looks`;
    const { stdout } = await this.ssh.guard(this.#kept.run(looks, { timeoutMs }), timeoutMs, what);
    return Number(stdout.trim().split('\n').pop()) < QUICK_LOOKS;
  }

  close(): void {
    this.ssh.close();
  }
}

function texts(result: ExecResult): AttemptResult {
  return { stdout: result.stdout.toString('utf8'), stderr: result.stderr.toString('utf8'), exitCode: result.exitCode, signal: result.signal };
}

/** For the record: an exit that is not 0, and what it said. */
function exitText({ exitCode, signal, stderr }: ExecResult): string | undefined {
  if (exitCode === 0) return undefined;
  return [signal === undefined ? `exit ${exitCode ?? '?'}` : `killed by ${signal}`, stderr.toString('utf8').trim()].filter(Boolean).join(': ');
}

function checked(command: string, result: ExecResult): CommandResult {
  const { stdout, stderr, exitCode, signal } = texts(result);
  if (exitCode !== 0) throw new GuestCommandError(command, exitCode, signal, stdout, stderr);
  return { stdout, stderr };
}
