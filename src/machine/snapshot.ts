// A booted machine, kept: its device state by a migration (migration.ts), its memory as it lies. Each copy that is made of
// it goes on from there, in a fraction of a boot. Who keeps one beyond a process: kept-snapshots.ts.
import { basename } from 'node:path';
import { dir } from 'tmp-promise';
import { UsageError } from '../errors.ts';
import { Guest } from '../guest/guest.ts';
import { SshConnection } from '../guest/ssh.ts';
import type { BuiltModule } from '../image/index.ts';
import { leash } from '../qemu/leash.ts';
import { MEMORY_FD, type QemuProcess } from '../qemu/process.ts';
import { failedStart } from './failed-start.ts';
import { launch, sshPort } from './launch.ts';
import { Machine } from './machine.ts';
import { loadDeviceState, saveDeviceState } from './migration.ts';
import type { MachinePlan } from './plan.ts';
import { openSnapshot, writeSnapshot, type OpenSnapshot, type SnapshotRecord } from './snapshot-directory.ts';
import { Trouble } from './trouble.ts';

/** Nothing of the guest is translated yet: under TCG its first answer takes longest. */
const SSH_TIMEOUT_MS = 30_000;

/** What a machine is that goes on elsewhere: everything that its guest does not carry itself. */
export interface SnapshotSubject extends Pick<MachinePlan, 'parts' | 'preset' | 'ports' | 'shape' | 'commandTimeoutMs'> {
  /** For reports of its copies. */
  readonly loadedModules?: readonly BuiltModule[];
}

export class Snapshot {
  readonly #subject: SnapshotSubject;
  readonly #open: OpenSnapshot;
  readonly #onClose: () => Promise<void>;
  #closed: Promise<void> | undefined;

  private constructor(subject: SnapshotSubject, open: OpenSnapshot, onClose: () => Promise<void>) {
    this.#subject = subject;
    this.#open = open;
    this.#onClose = onClose;
  }

  /**
   * Save a machine, which ends with it: what it has loaded and written so far, all copies have.
   * @throws UsageError while a device is plugged (its back end cannot be copied: plug it into the copies)
   */
  static async take(machine: Machine): Promise<Snapshot> {
    const { path: directory } = await dir({ prefix: 'rootport-snapshot-', mode: 0o700, unsafeCleanup: true });
    const onLeash = leash(directory);
    try {
      await saveMachine(machine, directory, {});
      return await Snapshot.open(directory, subjectOf(machine), () => onLeash.release());
    } catch (error) {
      await onLeash.release();
      throw error;
    }
  }

  /**
   * What saveMachine left in a directory, of a machine of this subject.
   * @throws ProtocolError when anything of it is odd, an error of the file system's when a file cannot be read
   */
  static async open(directory: string, subject: SnapshotSubject, onClose: () => Promise<void> = async () => {}): Promise<Snapshot> {
    return new Snapshot(subject, await openSnapshot(directory), onClose);
  }

  /** What a copy's memory is at first, bytes. */
  get usedBytes(): number {
    return this.#open.memory.usedBytes;
  }

  get record(): SnapshotRecord {
    return this.#open.record;
  }

  /**
   * A machine that goes on where the saved one stood: its own QEMU, memory, SSH port, random numbers and the time
   * of now. Any number of them at once.
   * @throws BootError when it does not come back, MachineExitError when QEMU ends; nothing is left running then
   */
  async restore(): Promise<Machine> {
    if (this.#closed !== undefined) throw new UsageError('the snapshot is closed');
    const { parts, preset, ports, shape, commandTimeoutMs, loadedModules } = this.#subject;
    const { record, memory, state, bootConsole } = this.#open;
    const { path: directory } = await dir({ prefix: 'rootport-', mode: 0o700, unsafeCleanup: true });
    const trouble = new Trouble();
    let process: QemuProcess | undefined;
    try {
      const started = await launch({
        qemu: parts.qemu, shape, start: 'incoming', directory, name: basename(directory), trouble,
        fill: (fd) => memory.load(fd), onProcess: (one) => { process = one; },
      });
      const { qmp } = started;
      await loadDeviceState({ qmp, directory, signal: trouble.signal }, state);
      const target = { ...record.guest, port: await sshPort(qmp), timeoutMs: SSH_TIMEOUT_MS, signal: trouble.signal };
      const guest = new Guest(await SshConnection.connect(target), parts.kernel.release, commandTimeoutMs, loadedModules);
      await guest.shell.run(`date -s @${Math.floor(Date.now() / 1000)} >/dev/null`);
      return new Machine({
        parts, preset, ports, shape, directory, ...started, guest, trouble, plugged: [], sshTarget: target,
        restored: { madeAt: record.madeAt, bootConsole },
      });
    } catch (error) {
      return failedStart(error, { trouble, process, plugged: [], directory });
    }
  }

  /** Remove it, unless it is the cache's; machines that were restored go on. Idempotent. */
  close(): Promise<void> {
    return (this.#closed ??= (async () => {
      await this.#open.memory.close();
      await this.#onClose();
    })());
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

/**
 * Save a machine into an empty directory, and end it.
 * @throws UsageError while a device is plugged; the machine goes on then
 */
export async function saveMachine(machine: Machine, directory: string, of: SnapshotRecord['of']): Promise<void> {
  const { plugged, shape, process, qmp, guest, trouble, sshTarget: { privateKey, hostKeyBase64, nonce } } = machine.innards;
  const devices = [...plugged.map(({ device }) => device.kind), ...(plugged.length > 0 ? [] : shape.devices.map(({ driver }) => driver))];
  if (devices.length > 0) {
    throw new UsageError(`a snapshot of a machine with a device plugged (${devices.join(', ')})`, {
      hint: 'unplug it first, and plug it into the machines that are restored',
    });
  }
  try {
    // The copies must not find half of a conversation in their memory.
    guest.close();
    const state = await saveDeviceState({ qmp, directory: machine.innards.directory, signal: trouble.signal });
    await writeSnapshot(directory, {
      of, guest: { privateKey, hostKeyBase64, nonce }, state, memoryPath: `/proc/${process.pid}/fd/${MEMORY_FD}`, bootConsole: machine.bootConsole,
    });
  } finally {
    await machine.close();
  }
}

function subjectOf({ innards: { parts, preset, ports, shape, guest } }: Machine): SnapshotSubject {
  return { parts, preset, ports, shape, commandTimeoutMs: guest.defaultTimeoutMs, loadedModules: guest.loadedModules };
}
