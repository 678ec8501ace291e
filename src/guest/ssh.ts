// SSH into the guest: a pinned host key, a key of this run, and a nonce that only this boot's guest
// knows, shown in the server's banner. Commands run on channels of one connection.
import { setMaxListeners } from 'node:events';
import { connect as connectTcp } from 'node:net';
import ssh2, { type ClientChannel } from 'ssh2';
import { BootError, DeadlineError, ProtocolError } from '../errors.ts';
import { within } from '../wait.ts';

export interface SshTarget {
  /** On 127.0.0.1: the port that QEMU forwards. */
  readonly port: number;
  /** OpenSSH private key text. */
  readonly privateKey: string;
  /** The guest's host key, base64 wire form. */
  readonly hostKeyBase64: string;
  /** Must stand in the server's banner. */
  readonly nonce: string;
  readonly timeoutMs: number;
  /** Aborted when the machine is lost: every wait rejects with its reason. */
  readonly signal: AbortSignal;
}

/**
 * libslirp gives a guest a second to answer the ARP request before its first packet, drops that then and comes again 6 s
 * later. A guest that just woke up on a busy host may need longer: who waits knocks again beside it (slirp.c,
 * if_encap4 and tcp_timer.c, TCPTV_SRTTDFLT).
 */
const KNOCK_AGAIN_MS = 2000;
const KNOCKS_MAX = 5;

export interface ExecResult {
  readonly stdout: Buffer;
  readonly stderr: Buffer;
  /** Undefined when a signal ended the command. */
  readonly exitCode: number | undefined;
  readonly signal: string | undefined;
}

/** A command under way on its channel. */
export interface Running {
  readonly command: string;
  readonly channel: ClientChannel;
  /** Resolves when the channel has closed. */
  readonly end: Promise<ExecResult>;
}

interface Knock {
  readonly stop: AbortController;
  readonly connected: Promise<SshConnection>;
}

export class SshConnection {
  readonly #client: ssh2.Client;
  readonly #signal: AbortSignal;
  /** Rejects when the connection is lost, with the best reason there is. */
  readonly #lost: Promise<never>;

  private constructor(client: ssh2.Client, signal: AbortSignal) {
    this.#client = client;
    this.#signal = signal;
    this.#lost = new Promise<never>((_, reject) => {
      client.on('close', () => reject(new ProtocolError('the SSH connection to the guest closed')));
      client.on('error', (error) => reject(new ProtocolError(`the SSH connection to the guest failed: ${error.message}`, { cause: error })));
    }).catch(async (error: Error) => { throw await this.reason(error); });
    this.#lost.catch(() => undefined);
  }

  /** Resolves when the guest has let us in; of several knocks the first that it answers counts. */
  static async connect(target: SshTarget): Promise<SshConnection> {
    const knocks: Knock[] = [];
    let again: NodeJS.Timeout | undefined;
    try {
      const first = await new Promise<Knock>((resolve, reject) => {
        let failures = 0;
        const knock = (): void => {
          const stop = new AbortController();
          const signal = AbortSignal.any([target.signal, stop.signal]);
          setMaxListeners(0, signal); // every wait on the connection listens
          const one: Knock = { stop, connected: SshConnection.#knock({ ...target, signal }) };
          knocks.push(one);
          one.connected.then(() => resolve(one), (error: unknown) => {
            failures += 1;
            if (failures === knocks.length) reject(error as Error);
          });
          if (knocks.length === KNOCKS_MAX) clearInterval(again);
        };
        knock();
        again = setInterval(knock, KNOCK_AGAIN_MS);
      });
      knocks.splice(knocks.indexOf(first), 1);
      return await first.connected;
    } finally {
      clearInterval(again);
      for (const { stop, connected } of knocks) {
        connected.then((late) => late.close(), () => undefined);
        stop.abort(new BootError('another connection was quicker'));
      }
    }
  }

  static async #knock(target: SshTarget): Promise<SshConnection> {
    const sock = connectTcp({ host: '127.0.0.1', port: target.port, noDelay: true });
    const client = new ssh2.Client();
    let banner = '';
    let pinned = true;
    const ready = new Promise<void>((resolve, reject) => {
      client.on('banner', (text) => { banner += text; });
      client.on('ready', resolve);
      client.on('error', (error) => reject(pinned
        ? new BootError(`the guest's SSH server did not let us in: ${error.message}`, { cause: error })
        : new BootError('what answers on the forwarded SSH port has another host key than our image', {
          hint: 'something else took the port; this machine is not ours to test on',
        })));
      sock.on('error', (error) => reject(new BootError(`the forwarded SSH port ${target.port} does not answer: ${error.message}`, { cause: error })));
    });
    ready.catch(() => undefined);
    client.connect({
      sock,
      username: 'root',
      privateKey: target.privateKey,
      // By default ssh2 asks without a key first.
      authHandler: ['publickey'],
      readyTimeout: 0,
      hostVerifier: (key: Buffer) => (pinned = key.toString('base64') === target.hostKeyBase64),
      algorithms: {
        kex: ['curve25519-sha256', 'curve25519-sha256@libssh.org'],
        serverHostKey: ['ssh-ed25519'],
        cipher: ['aes128-ctr', 'aes256-ctr'],
        hmac: ['hmac-sha2-256'],
        compress: ['none'],
      },
    });
    try {
      await within(ready, { timeoutMs: target.timeoutMs, what: 'the guest\'s SSH server to let us in', signal: target.signal });
      if (!banner.includes(`rootport-nonce ${target.nonce}`)) {
        throw new BootError('the SSH server that answered is not of this boot: its nonce is another', {
          hint: 'a guest of an earlier run answers on this port; this machine is not ours to test on',
        });
      }
    } catch (error) {
      client.end();
      sock.destroy();
      throw error;
    }
    return new SshConnection(client, target.signal);
  }

  /**
   * A channel that runs `command`. `listen` is called with it before anything that came after its
   * opening is looked at: an exit status can stand in the same packet, and nobody repeats it.
   */
  async open<T>(command: string, timeoutMs: number, listen: (channel: ClientChannel) => T): Promise<{ channel: ClientChannel; heard: T }> {
    const opened = new Promise<{ channel: ClientChannel; heard: T }>((resolve, reject) => {
      this.#client.exec(command, (error, channel) => {
        if (error === undefined) resolve({ channel, heard: listen(channel) });
        else reject(error);
      });
    }).catch(async (cause: Error) => {
      throw await this.reason(new ProtocolError(`the guest's SSH server opened no channel for ${JSON.stringify(command)}: ${cause.message}`, {
        cause, sent: command,
        // Not asked for again: whether it ran is not known (check_close in dropbear's common-channel.c).
        hint: 'a dropbear older than 2024.86 does this when another command ends at that moment; is the guest\'s your own?',
      }));
    });
    return this.guard(opened, timeoutMs, `the guest to open a channel for ${JSON.stringify(command)}`);
  }

  /** Run to the end. On the deadline the command is killed and its channel closed. */
  async exec(command: string, options: { timeoutMs: number; input?: Buffer | string | undefined }): Promise<ExecResult> {
    const running = await this.start(command, options);
    try {
      return await this.finish(running, options.timeoutMs);
    } catch (error) {
      if (error instanceof DeadlineError) {
        running.channel.signal('KILL');
        running.channel.close();
      }
      throw error;
    }
  }

  async start(command: string, options: { timeoutMs: number; input?: Buffer | string | undefined }): Promise<Running> {
    const { channel, heard } = await this.open(command, options.timeoutMs, collect);
    channel.end(options.input);
    return { command, channel, end: heard };
  }

  /** The end of a command, with an exit status: a channel that closes without one lost its guest. */
  async finish({ command, end }: Running, timeoutMs: number): Promise<ExecResult> {
    const what = `${JSON.stringify(command)} to end in the guest`;
    return this.guard(end.then(async (result) => {
      if (result.exitCode !== undefined || result.signal !== undefined) return result;
      throw await this.reason(new ProtocolError(`the channel of ${JSON.stringify(command)} closed without an exit status`, { sent: command }));
    }), timeoutMs, what);
  }

  /** An interactive shell on a terminal. */
  shell(size: { rows: number; cols: number }): Promise<ClientChannel> {
    return new Promise((resolve, reject) => {
      this.#client.shell({ ...size, term: process.env['TERM'] ?? 'vt100' }, (error, channel) => (error === undefined ? resolve(channel) : reject(error)));
    });
  }

  /** The work's outcome, unless the connection or the machine is lost first, or the time is over. */
  async guard<T>(work: Promise<T>, timeoutMs: number, what: string): Promise<T> {
    work.catch(() => undefined);
    return within(Promise.race([work, this.#lost]), { timeoutMs, what, signal: this.#signal });
  }

  /** The reason of a lost connection: it is often the first sign of a lost machine, whose better reason gets a moment. */
  async reason(error: Error): Promise<Error> {
    if (!this.#signal.aborted) {
      await new Promise<void>((resolve) => {
        const over = (): void => {
          clearTimeout(timer);
          this.#signal.removeEventListener('abort', over);
          resolve();
        };
        const timer = setTimeout(over, 300);
        this.#signal.addEventListener('abort', over);
      });
    }
    return this.#signal.aborted ? this.#signal.reason as Error : error;
  }

  close(): void {
    this.#client.end();
    this.#client.destroy();
  }
}

/** Everything that a channel says, until it closes. */
function collect(channel: ClientChannel): Promise<ExecResult> {
  const stdout: Buffer[] = [], stderr: Buffer[] = [];
  let exitCode: number | undefined, signal: string | undefined;
  channel.on('data', (chunk: Buffer) => stdout.push(chunk));
  channel.stderr.on('data', (chunk: Buffer) => stderr.push(chunk));
  channel.on('exit', (code: number | null, name?: string) => {
    exitCode = code ?? undefined;
    signal = name;
  });
  return new Promise((resolve) => channel.on('close', () => resolve({
    stdout: Buffer.concat(stdout), stderr: Buffer.concat(stderr), exitCode, signal,
  })));
}
