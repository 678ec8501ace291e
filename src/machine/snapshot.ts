// A booted machine, kept: its device state by a migration, its memory as it lies (x-ignore-shared: memory that is
// shared is not in the stream). Each copy that is made of it goes on from there, in a fraction of a boot.
// QEMU: migration/ram.c (ramblock_is_ignored), docs/devel/migration.
import { basename, join } from 'node:path';
import { dir } from 'tmp-promise';
import { BootError, ProtocolError, UsageError } from '../errors.ts';
import { Guest } from '../guest/guest.ts';
import { SshConnection } from '../guest/ssh.ts';
import { leash, type Leash } from '../qemu/leash.ts';
import { forwardedPort, parseUsernet } from '../qemu/memory-map.ts';
import { MEMORY_FD, type QemuProcess } from '../qemu/process.ts';
import type { QmpClient } from '../qmp/client.ts';
import { shellWord } from '../shell-word.ts';
import { failedStart } from './failed-start.ts';
import { launch } from './launch.ts';
import { Machine } from './machine.ts';
import { MemoryImage } from './memory-image.ts';
import { Trouble } from './trouble.ts';

const SAVE_TIMEOUT_MS = 30_000;
const LOAD_TIMEOUT_MS = 30_000;
const CAPABILITIES = ['events', 'x-ignore-shared'] as const;

export class Snapshot {
  readonly #directory: string;
  readonly #machine: Machine;
  readonly #memory: MemoryImage;
  readonly #leash: Leash;
  #closed: Promise<void> | undefined;

  private constructor(machine: Machine, directory: string, memory: MemoryImage, onLeash: Leash) {
    this.#machine = machine;
    this.#directory = directory;
    this.#memory = memory;
    this.#leash = onLeash;
  }

  /**
   * Save a machine, which ends with it: what it has loaded and written so far, all copies have.
   * @throws UsageError while a device is plugged (its back end cannot be copied: plug it into the copies)
   */
  static async take(machine: Machine): Promise<Snapshot> {
    const { plugged, process, qmp, guest, trouble } = machine.innards;
    if (plugged.length > 0) {
      throw new UsageError(`a snapshot of a machine with a device plugged (${plugged.map((one) => one.device.kind).join(', ')})`, {
        hint: 'unplug it first, and plug it into the machines that are restored',
      });
    }
    const { path: directory } = await dir({ prefix: 'rootport-snapshot-', mode: 0o700, unsafeCleanup: true });
    const onLeash = leash(directory);
    try {
      // The copies must not find half of a conversation in their memory.
      guest.close();
      await enable(qmp);
      const done = qmp.expectEvent('MIGRATION', ({ data }) => ['completed', 'failed'].includes(statusOf(data)), {
        timeoutMs: SAVE_TIMEOUT_MS, what: 'QEMU to save the machine\'s state', signal: trouble.signal,
      });
      await qmp.execute('migrate', { uri: `exec:cat >${shellWord(stateFile(directory))}` });
      if (statusOf((await done).data) === 'failed') await explain(qmp, 'QEMU could not save the machine\'s state');
      const memory = await MemoryImage.save(`/proc/${process.pid}/fd/${MEMORY_FD}`, join(directory, 'memory'));
      await machine.close();
      return new Snapshot(machine, directory, memory, onLeash);
    } catch (error) {
      await machine.close();
      await onLeash.release();
      throw error;
    }
  }

  /** What a copy's memory is at first, bytes. */
  get usedBytes(): number {
    return this.#memory.usedBytes;
  }

  /**
   * A machine that goes on where the saved one stood: its own QEMU, memory, SSH port, random numbers and the time
   * of now. Any number of them at once.
   * @throws BootError when it does not come back, MachineExitError when QEMU ends; nothing is left running then
   */
  async restore(): Promise<Machine> {
    if (this.#closed !== undefined) throw new UsageError('the snapshot is closed');
    const { parts, preset, ports, shape, sshTarget } = this.#machine.innards;
    const { path: directory } = await dir({ prefix: 'rootport-', mode: 0o700, unsafeCleanup: true });
    const trouble = new Trouble();
    let process: QemuProcess | undefined;
    try {
      const started = await launch({
        qemu: parts.qemu, shape, start: 'incoming', directory, name: basename(directory), trouble,
        fill: (fd) => this.#memory.load(fd), onProcess: (one) => { process = one; },
      });
      const { qmp } = started;
      await enable(qmp);
      const resumed = qmp.expectEvent('RESUME', () => true, {
        timeoutMs: LOAD_TIMEOUT_MS, what: 'QEMU to load the machine\'s state', signal: trouble.signal,
      });
      await qmp.execute('migrate-incoming', { uri: `exec:cat ${shellWord(stateFile(this.#directory))}` });
      await resumed;
      const port = forwardedPort(parseUsernet(await qmp.hmp('info usernet')), 22);
      if (port === undefined) throw new BootError('QEMU forwards no port to the guest\'s SSH server');
      const target = { ...sshTarget, port, signal: trouble.signal };
      const ssh = await SshConnection.connect(target);
      const guest = new Guest(ssh, parts.kernel.release, this.#machine.guest.defaultTimeoutMs);
      await guest.shell.run(`date -s @${Math.floor(Date.now() / 1000)} >/dev/null`);
      return new Machine({ parts, preset, ports, shape, directory, ...started, guest, trouble, plugged: [], sshTarget: target, restored: true });
    } catch (error) {
      return failedStart(error, { trouble, process, plugged: [], directory });
    }
  }

  /** Remove it from disk; machines that were restored go on. Idempotent. */
  close(): Promise<void> {
    return (this.#closed ??= this.#leash.release());
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

function stateFile(directory: string): string {
  return join(directory, 'state');
}

async function enable(qmp: QmpClient): Promise<void> {
  await qmp.execute('migrate-set-capabilities', { capabilities: CAPABILITIES.map((capability) => ({ capability, state: true })) });
}

function statusOf(data: unknown): string {
  return (data as { status?: string } | undefined)?.status ?? '';
}

async function explain(qmp: QmpClient, what: string): Promise<never> {
  const answer = await qmp.execute<{ 'error-desc'?: string }>('query-migrate');
  throw new ProtocolError(`${what}: ${answer['error-desc'] ?? 'it does not say why'}`, { received: answer });
}
