// One `sh` kept open on a channel: a command costs a round trip, not a process and a channel (1 ms
// against 12 ms under TCG). For the harness's own short questions, one after the other.
import { randomBytes } from 'node:crypto';
import type { ClientChannel } from 'ssh2';
import { DeadlineError, GuestCommandError, ProtocolError } from '../errors.ts';
import type { SshConnection } from './ssh.ts';

export interface ShellResult {
  readonly stdout: string;
  readonly stderr: string;
}

/** What src/guest's own clients need of a guest. */
export interface GuestShell {
  run(command: string, options?: { timeoutMs?: number }): Promise<ShellResult>;
}

export class KeptShell implements GuestShell {
  readonly #ssh: SshConnection;
  readonly #timeoutMs: number;
  readonly #mark = randomBytes(8).toString('hex');
  #channel: Promise<ClientChannel> | undefined;
  #turn: Promise<unknown> = Promise.resolve();
  #waiting = 0;

  constructor(ssh: SshConnection, timeoutMs: number) {
    this.#ssh = ssh;
    this.#timeoutMs = timeoutMs;
  }

  /**
   * Run one command in the kept shell, after those asked for before it. `cd` and variables stay; `exit`
   * would end the shell. Rejects with a GuestCommandError on a non-zero exit, a DeadlineError when it
   * hangs (a new shell is opened for the next).
   */
  run(command: string, { timeoutMs = this.#timeoutMs }: { timeoutMs?: number } = {}): Promise<ShellResult> {
    this.#waiting += 1;
    const mine = this.#turn.then(() => this.#run(command, timeoutMs)).finally(() => { this.#waiting -= 1; });
    this.#turn = mine.catch(() => undefined);
    return mine;
  }

  /** No command is under way or waiting for its turn. */
  get idle(): boolean {
    return this.#waiting === 0;
  }

  async #run(command: string, timeoutMs: number): Promise<ShellResult> {
    this.#channel ??= this.#ssh.open('exec sh', timeoutMs, (opened) => opened).then(({ channel: opened }) => opened);
    const channel = await this.#channel;
    let stdout = '', stderr = '';
    const outEnd = new RegExp(`${this.#mark} (\\d+)\\n$`), errEnd = `${this.#mark}\n`;
    const outEndChars = this.#mark.length + 5;
    let exitCode: number | undefined, closed = false;
    const answered = new Promise<void>((resolve) => {
      const settle = (): void => {
        const match = outEnd.exec(stdout.slice(-outEndChars));
        if (match === null || !stderr.endsWith(errEnd)) return;
        exitCode = Number(match[1]);
        stdout = stdout.slice(0, -match[0].length);
        stderr = stderr.slice(0, -errEnd.length);
        resolve();
      };
      channel.on('data', (chunk: Buffer) => { stdout += chunk.toString('latin1'); settle(); });
      channel.stderr.on('data', (chunk: Buffer) => { stderr += chunk.toString('latin1'); settle(); });
      channel.once('close', () => { closed = true; resolve(); });
    });
    channel.write(`{ ${command}\n} </dev/null; printf '%s %d\\n' ${this.#mark} $?; printf '%s\\n' ${this.#mark} >&2\n`);
    try {
      await this.#ssh.guard(answered, timeoutMs, `${JSON.stringify(command)} to end in the guest`);
    } catch (error) {
      this.#channel = undefined;
      if (error instanceof DeadlineError) channel.close();
      throw error;
    } finally {
      channel.removeAllListeners('data');
      channel.stderr.removeAllListeners('data');
      channel.removeAllListeners('close');
    }
    if (closed) {
      this.#channel = undefined;
      throw await this.#ssh.reason(new ProtocolError(`the guest's kept shell ended in ${JSON.stringify(command)}`, { sent: command }));
    }
    const result = { stdout: utf8(stdout), stderr: utf8(stderr) };
    if (exitCode !== 0) throw new GuestCommandError(command, exitCode, undefined, result.stdout, result.stderr);
    return result;
  }
}

/** Chunks may cut a character in two: they are gathered as bytes, and read as UTF-8 when whole. */
function utf8(bytes: string): string {
  return Buffer.from(bytes, 'latin1').toString('utf8');
}
