// Start QEMU with its console and monitor, watched: what a boot and a restore have in common.
import { BootError } from '../errors.ts';
import { closeFd, createMemfd } from '../native/index.ts';
import { commandLine, type CommandLineSpec } from '../qemu/command-line.ts';
import { Console } from '../qemu/console.ts';
import type { Qemu } from '../qemu/find.ts';
import { forwardedPort, parseUsernet } from '../qemu/memory-map.ts';
import { CONSOLE_FD, MEMORY_FD, QemuProcess, QMP_FD } from '../qemu/process.ts';
import { QmpClient } from '../qmp/client.ts';
import type { Trouble } from './trouble.ts';

/** What of the command line a machine is made of, for its whole life and its restored copies'. */
export type MachineShape = Omit<CommandLineSpec, 'name' | 'start' | 'memoryFd' | 'qmpFd' | 'consoleFd'>;

export interface LaunchOptions {
  readonly qemu: Pick<Qemu, 'command' | 'env'>;
  readonly shape: MachineShape;
  readonly start: CommandLineSpec['start'];
  /** The machine's own; its base name is the machine's name. */
  readonly directory: string;
  readonly name: string;
  readonly trouble: Trouble;
  /** Called with the guest's memory, a file of memoryMiB; QEMU starts meanwhile. */
  readonly fill?: (memoryFd: number) => Promise<void>;
  /** Called as soon as there is a process to end. */
  readonly onProcess: (process: QemuProcess) => void;
}

/** Resolves when the monitor has answered and the memory is filled. */
export async function launch({ qemu, shape, start, directory, name, trouble, fill, onProcess }: LaunchOptions): Promise<{
  readonly process: QemuProcess; readonly console: Console; readonly qmp: QmpClient;
}> {
  const args = commandLine({ ...shape, name, start, memoryFd: MEMORY_FD, qmpFd: QMP_FD, consoleFd: CONSOLE_FD });
  const memoryFd = createMemfd('rootport-guest', shape.memoryMiB * 2 ** 20);
  // Beside QEMU's start: it looks into the memory of a guest that is to come only when the guest comes.
  const filled = (fill?.(memoryFd) ?? Promise.resolve()).finally(() => closeFd(memoryFd));
  filled.catch(() => undefined);
  const process = await QemuProcess.start({ command: [...qemu.command, ...args], env: qemu.env, directory, memoryFd })
    .catch(async (error: unknown) => {
      await filled.catch(() => undefined);
      throw error;
    });
  onProcess(process);
  const console = new Console(process.console, { endReason: () => trouble.reason() });
  trouble.watch(process, console);
  const qmp = await QmpClient.connect(process.qmp, { timeoutMs: 20_000, signal: trouble.signal, keepOpen: true, endReason: () => trouble.reason(), recorder: trouble.recorder });
  await filled;
  return { process, console, qmp };
}

/** The port of 127.0.0.1 that QEMU chose for the guest's SSH server. */
export async function sshPort(qmp: QmpClient): Promise<number> {
  const port = forwardedPort(parseUsernet(await qmp.hmp('info usernet')), 22);
  if (port === undefined) throw new BootError('QEMU forwards no port to the guest\'s SSH server');
  return port;
}
