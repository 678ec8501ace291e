// This process's terminal (or its pipes) joined to a shell in the guest, until that shell ends.
// On a terminal: a pty there, raw mode here, and the window's size. Else: a shell that reads commands.
import { constants } from 'node:os';
import type { ClientChannel } from 'ssh2';
import type { SshConnection } from '../guest/ssh.ts';
import type { Machine } from '../machine/machine.ts';

const OPEN_TIMEOUT_MS = 30_000;

/** What a shell is of. */
export type ShellMachine = Pick<Machine, 'connect' | 'signal'>;

/** @throws the machine's reason when it is lost under the shell */
export async function remoteShell(machine: ShellMachine): Promise<number> {
  const ssh = await machine.connect();
  try {
    const { stdin, stdout } = process;
    return stdin.isTTY && stdout.isTTY ? await interactive(ssh, machine) : await batch(ssh, machine);
  } finally {
    ssh.close();
  }
}

async function interactive(ssh: SshConnection, machine: ShellMachine): Promise<number> {
  const { stdin, stdout } = process;
  const channel = await ssh.shell({ rows: stdout.rows, cols: stdout.columns });
  const resize = (): void => channel.setWindow(stdout.rows, stdout.columns, 0, 0);
  stdout.on('resize', resize);
  stdin.setRawMode(true);
  try {
    return await joined(channel, exitOf(channel), ssh, machine);
  } finally {
    stdin.setRawMode(false);
    stdout.off('resize', resize);
  }
}

/** A login shell: /etc/profile sets the PATH. */
async function batch(ssh: SshConnection, machine: ShellMachine): Promise<number> {
  const { channel, heard } = await ssh.open('exec sh -l', OPEN_TIMEOUT_MS, exitOf);
  return joined(channel, heard, ssh, machine);
}

/** The exit code once it was told; a shell's own way to say that a signal ended it. */
interface Exit { code?: number }

function exitOf(channel: ClientChannel): Exit {
  const exit: Exit = {};
  channel.on('exit', (code: number | null, signal?: string) => { exit.code = code ?? 128 + signalNumber(signal); });
  return exit;
}

function joined(channel: ClientChannel, exit: Exit, ssh: SshConnection, machine: ShellMachine): Promise<number> {
  const { stdin, stdout, stderr } = process;
  stdin.pipe(channel);
  channel.pipe(stdout, { end: false });
  channel.stderr.pipe(stderr, { end: false });
  return new Promise<number>((resolve, reject) => {
    const lost = (): void => reject(machine.signal.reason as Error);
    machine.signal.addEventListener('abort', lost, { once: true });
    channel.once('close', () => {
      if (exit.code !== undefined) return resolve(exit.code);
      return void ssh.reason(new Error('the shell in the guest closed without an exit code')).then(reject);
    });
    if (machine.signal.aborted) lost();
  }).finally(() => {
    stdin.unpipe(channel);
    stdin.destroy(); // whoever still holds its other end does not hold us
  });
}

/** ssh2 gives it as Node does: SIGKILL. */
function signalNumber(name = ''): number {
  return constants.signals[name as NodeJS.Signals] ?? 0;
}
