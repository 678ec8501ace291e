// `rootport shell --from <folder>`: the guest as it was when a test failed, alive again; or a core of it. The folder is
// read only: closing the shell leaves it as it was.
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Command } from 'commander';
import { standIn } from '../devices/stand-in.ts';
import { DeadlineError, ProtocolError, UsageError } from '../errors.ts';
import type { SshConnection } from '../guest/ssh.ts';
import { restoreScene, type RestoredScene } from '../machine/kept-scene.ts';
import { SCENE_FILE } from '../machine/scene-record.ts';
import { terminalProgress } from '../packages/index.ts';
import { EXIT } from './exit-codes.ts';
import { onInterrupt } from './interrupts.ts';
import { monitorShell } from './monitor-shell.ts';
import type { ShellMachine } from './remote-shell.ts';

export interface FromOptions {
  /** A failure's folder of the report, or the `state` in it. */
  readonly from: string;
  /** As it was kept with unless told. */
  readonly qemu?: string;
  /** Write a core there, and end. */
  readonly core?: string;
  /** QEMU's monitor in place of a shell. */
  readonly monitor?: boolean;
}

/** @throws UsageError for what only a machine that boots can be told */
export function fromOptions(devices: readonly string[], options: Partial<FromOptions>, command: Command): FromOptions {
  const { from } = options;
  if (from === undefined) throw new UsageError('--core and --monitor are of a machine that was kept', { hint: 'name its folder by --from' });
  const own = ['qemu', 'from', 'core', 'monitor'];
  const others = [...devices, ...command.options.filter(({ long }) => long).map((one) => one.attributeName()).filter((name) => !own.includes(name) && command.getOptionValueSource(name) === 'cli').map((name) => `--${name}`)];
  if (others.length > 0) throw new UsageError(`${others.join(', ')} with --from: the machine is as it was`);
  return { ...options, from };
}

/** `session`: a shell in a guest that answers. */
export async function shellFrom(
  { from, qemu, core, monitor = false }: FromOptions, session: (machine: ShellMachine, say: (line: string) => void) => Promise<number>,
): Promise<number> {
  const say = (line: string): void => { process.stderr.write(`${line}\n`); };
  const progress = terminalProgress();
  const scene = await restoreScene(stateIn(from), { standIn, ...(qemu === undefined ? {} : { qemu }), progress });
  const forget = onInterrupt(() => scene.close());
  try {
    say(`machine: ${scene.record.description}`);
    say(`as it was at ${scene.keptAt}`);
    for (const line of scene.lacks) say(`  ${line}`);
    if (core !== undefined) {
      await scene.dumpMemory(core, { progress });
      return EXIT.passed;
    }
    if (!monitor) {
      const ssh = await connected(scene, say);
      if (ssh !== undefined) return await session({ signal: scene.signal, connect: async () => ssh }, say);
    }
    say(`${monitor ? 'QEMU\'s monitor; the guest stands still, cont lets it go on' : 'QEMU\'s monitor instead'}: help lists its commands, quit or Ctrl-D ends the machine`);
    return await monitorShell(scene);
  } finally {
    await scene.close();
    forget();
  }
}

/** Into a guest that goes on; undefined when it does not answer, and why is said. */
async function connected(scene: RestoredScene, say: (line: string) => void): Promise<SshConnection | undefined> {
  if (scene.record.panic !== undefined) {
    say(`its kernel has panicked, and answers nobody: ${scene.record.panic}`);
    return undefined;
  }
  try {
    await scene.goOn();
    return await scene.connect();
  } catch (error) {
    if (!(error instanceof DeadlineError || error instanceof ProtocolError)) throw error;
    say(`its guest does not let us in any more: ${error.summary}`);
    return undefined;
  }
}

/** @throws UsageError where no state was kept, with the reason if there is one */
function stateIn(from: string): string {
  const found = [join(from, 'state'), from].find((directory) => existsSync(join(directory, SCENE_FILE)));
  if (found !== undefined) return found;
  const why = join(from, 'state.txt');
  throw new UsageError(existsSync(why) ? `in ${from}: ${readFileSync(why, 'utf8').trim()}` : `there is no state of a machine in ${from}`, {
    hint: 'give the folder of a failed attempt, rootport-report/failures/..., in which there is `state`',
  });
}
