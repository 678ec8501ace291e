// A machine as a failure left it, kept in a directory, and brought back by another process: its guest with all that was
// in its memory and on its CPUs, its devices as far as QEMU saves them, mute stand-ins for their back ends. Other than a
// snapshot (snapshot.ts) it is taken of a machine in any state, which goes on after it; and has one copy at a time.
import { readFile, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { dir } from 'tmp-promise';
import { MachineExitError, RootportError, UsageError } from '../errors.ts';
import { SshConnection } from '../guest/ssh.ts';
import { silentProgress, type Progress } from '../packages/index.ts';
import type { QueryPciBus } from '../pci/query-pci.ts';
import type { Device, FormerAttachment } from '../qemu/attachment.ts';
import { deviceArguments, placement } from '../qemu/command-line.ts';
import type { Console } from '../qemu/console.ts';
import { resolveQemu } from '../qemu/find.ts';
import { MEMORY_FD, type QemuProcess } from '../qemu/process.ts';
import type { QmpClient } from '../qmp/client.ts';
import { failedStart } from './failed-start.ts';
import { launch, sshPort } from './launch.ts';
import type { Machine } from './machine.ts';
import { dumpMemory, type DumpOptions } from './memory-dump.ts';
import { loadDeviceState, saveDeviceState } from './migration.ts';
import { Plugged } from './plugged.ts';
import { checkScene, hostCpu, lacksOf, machineOf, parseScene, programOf, rootportVersion, SCENE_FILE, SCENE_FORMAT, type SceneDevice, type SceneRecord } from './scene-record.ts';
import { openSnapshot, writeSnapshot, type OpenSnapshot } from './snapshot-directory.ts';
import { functionsWithout, sectionNames } from './state-sections.ts';
import { Trouble } from './trouble.ts';

/** QEMU waits for its devices' back ends, when it stops them or still: one that hangs would hold it for ever. */
const ANSWER_TIMEOUT_MS = 5000;
/** Nothing of the guest is translated yet, and it may have stood in the middle of anything. */
const SSH_TIMEOUT_MS = 15_000;

/**
 * Keep a machine in an empty directory (0700: the key to its guest is in it). Its guest stands still meanwhile, and goes
 * on after; also of a machine whose kernel faulted.
 * @throws MachineExitError when QEMU is gone, QmpError when a device cannot be saved, UsageError when no stand-in for its
 * back end can be made, DeadlineError when QEMU does not answer
 */
export async function keepScene(machine: Machine, directory: string): Promise<SceneRecord> {
  const { process, qmp, sshTarget: { privateKey, hostKeyBase64, nonce } } = machine.innards;
  if (!process.running) throw new MachineExitError('QEMU has ended: there is nothing left to keep', undefined, undefined);
  const after = { afterAbort: true, timeoutMs: ANSWER_TIMEOUT_MS } as const;
  const { running } = await qmp.execute<{ running: boolean }>('query-status', undefined, after);
  try {
    await qmp.execute('stop', undefined, after);
    const devices = machine.innards.plugged.map((one) => deviceOf(one));
    // Without the signal: what broke the machine is what it is kept for.
    const state = await saveDeviceState({ qmp, directory: machine.innards.directory });
    const stateless = functionsWithout(sectionNames(state), await qmp.execute<QueryPciBus[]>('query-pci', undefined, after));
    const record = recordOf(machine, devices, stateless);
    await writeSnapshot(directory, {
      of: {}, guest: { privateKey, hostKeyBase64, nonce }, state, memoryPath: `/proc/${process.pid}/fd/${MEMORY_FD}`, bootConsole: machine.bootConsole,
    });
    await writeFile(join(directory, SCENE_FILE), `${JSON.stringify(record, undefined, 2)}\n`, { mode: 0o600, flag: 'wx' });
    return record;
  } finally {
    if (running) await qmp.execute('cont', undefined, after).catch((error: unknown) => { if (!(error instanceof RootportError)) throw error; });
  }
}

function recordOf({ innards, description, signal, console }: Machine, devices: readonly SceneDevice[], stateless: readonly string[]): SceneRecord {
  const { parts: { qemu }, shape: { devices: _cold, ...shape } } = innards;
  const bare = { ...shape, devices: [] };
  const panic = console.lines.find(({ text }) => text.includes('Kernel panic - not syncing'))?.text;
  return {
    format: SCENE_FORMAT, rootport: rootportVersion(), description,
    ...(panic === undefined ? {} : { panic }),
    ...(signal.aborted ? { trouble: troubleOf(signal.reason) } : {}),
    qemu: { choice: qemu.choice, name: qemu.name, program: programOf(qemu) },
    machine: machineOf(bare), cpu: hostCpu(), shape: bare, devices, stateless,
  };
}

function troubleOf(reason: unknown): string {
  const text = reason instanceof RootportError ? reason.summary : String(reason);
  return text.split('\n')[0] ?? '';
}

/** @throws UsageError when nothing can stand in for its back end */
function deviceOf({ id, port, device: { kind }, attachment }: Plugged): SceneDevice {
  const { driver, properties, chardevs, netdevs } = attachment;
  const backEnd = attachment.backEnd?.();
  if (attachment.backEnd !== undefined && backEnd === undefined) throw new UsageError(`nothing can stand in for the back end of ${id} (${kind} in ${port})`);
  return {
    id, port, kind, driver, properties, chardevs: chardevs.map((one) => ({ ...one, path: basename(one.path) })),
    ...(netdevs === undefined ? {} : { netdevs }), ...(backEnd === undefined ? {} : { backEnd }),
  };
}

export interface RestoreSceneOptions {
  /** Who makes a device that stands where this one was: the machine knows none by name. */
  readonly standIn: (former: FormerAttachment) => Device;
  /** As BootOptions.qemu. Default: the one that it was kept with. */
  readonly qemu?: string;
  readonly progress?: Progress;
}

/**
 * Bring a kept machine back; it stands still, as it was, until `goOn`. The directory is read only.
 * @throws UsageError for another QEMU, rootport or host than it was kept with; ProtocolError when the directory is odd;
 * an error of the file system's when it is not there; MachineExitError when QEMU does not take it
 */
export async function restoreScene(from: string, { standIn, qemu: choice, progress = silentProgress }: RestoreSceneOptions): Promise<RestoredScene> {
  const record = parseScene(await readFile(join(from, SCENE_FILE), 'utf8'));
  const qemu = await resolveQemu(choice ?? record.qemu.choice, progress);
  checkScene(record, qemu);
  const kept = await openSnapshot(from);
  const { path: directory } = await dir({ prefix: 'rootport-', mode: 0o700, unsafeCleanup: true });
  // Faults are what one looks at here; and tasks hang that wait for a back end that is not there.
  const trouble = new Trouble({ faultsEnd: false });
  const plugged: Plugged[] = [];
  let process: QemuProcess | undefined;
  try {
    const { shape } = record;
    for (const one of record.devices) {
      plugged.push(await Plugged.attach(standIn(one), { id: one.id, port: one.port, directory, trouble, qemu: { version: qemu.version, accel: shape.accel } }));
    }
    // Behind extraArgs, which may make the buses that they are on.
    const extraArgs = [...shape.extraArgs, ...plugged.flatMap(({ id, port, attachment }) =>
      deviceArguments({ id, ...attachment, place: /^(rp|slot)\d+$/.test(port) ? placement(shape.preset, port) : placeOf(port) }, shape.version))];
    const started = await launch({
      qemu, shape: { ...shape, extraArgs }, start: 'incoming', directory, name: basename(directory), trouble,
      fill: (fd) => kept.memory.load(fd), onProcess: (one) => { process = one; },
    });
    await loadDeviceState({ qmp: started.qmp, directory, signal: trouble.signal }, kept.state);
    return new RestoredScene({ record, kept, trouble, plugged, ...started });
  } catch (error) {
    return failedStart(error, { trouble, process, plugged, directory });
  } finally {
    await kept.memory.close();
  }
}

/** Of a port's name as `freePort` made it of a BusPlace (ports.ts). */
function placeOf(port: string): { readonly bus: string; readonly addr?: string } {
  const [bus = '', addr] = port.split(':');
  return addr === undefined ? { bus } : { bus, addr };
}

interface SceneInnards {
  readonly record: SceneRecord;
  readonly kept: Pick<OpenSnapshot, 'record' | 'bootConsole'>;
  readonly trouble: Trouble;
  readonly plugged: readonly Plugged[];
  readonly process: QemuProcess;
  readonly console: Console;
  readonly qmp: QmpClient;
}

/** A kept machine that is back, without a guest at hand: it may not answer any more. */
export class RestoredScene {
  readonly #innards: SceneInnards;
  #closed: Promise<void> | undefined;

  constructor(innards: SceneInnards) {
    this.#innards = innards;
  }

  /** When it was kept, ISO 8601. */
  get keptAt(): string { return this.#innards.kept.record.madeAt; }
  get record(): SceneRecord { return this.#innards.record; }
  /** What is not true of it, a line each. */
  get lacks(): readonly string[] { return lacksOf(this.#innards.record); }
  get qmp(): QmpClient { return this.#innards.qmp; }
  get console(): Console { return this.#innards.console; }
  /** Aborted with the reason when QEMU exits. */
  get signal(): AbortSignal { return this.#innards.trouble.signal; }

  /** Let the guest go on. */
  async goOn(): Promise<void> {
    await this.#innards.qmp.execute('cont');
  }

  /** SSH into the guest, which must go on. @throws DeadlineError or ProtocolError when it does not answer */
  async connect(): Promise<SshConnection> {
    const { kept, qmp, trouble } = this.#innards;
    return SshConnection.connect({ ...kept.record.guest, port: await sshPort(qmp), timeoutMs: SSH_TIMEOUT_MS, signal: trouble.signal });
  }

  /** As Machine.dumpMemory. */
  dumpMemory(path: string, options?: DumpOptions): Promise<number> {
    return dumpMemory({ qmp: this.qmp, shape: this.record.shape }, path, options);
  }

  /** End QEMU and all on disk but what it was brought back from. Idempotent. */
  close(): Promise<void> {
    return (this.#closed ??= (async () => {
      const { trouble, process, qmp, plugged } = this.#innards;
      trouble.leave();
      await process.end();
      trouble.raise(new MachineExitError('the machine was closed', undefined, undefined));
      qmp.close();
      await Promise.all(plugged.map((one) => one.detach()));
    })());
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
