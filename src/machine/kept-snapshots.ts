// Snapshots that the cache keeps: one boot for each machine that is asked for, shared by all processes that ask. What
// is odd, or does not load, is made anew; the least recently used go when there is too much. Without a cache that can
// be written a snapshot is its process' own.
import { stat } from 'node:fs/promises';
import { BootError, DeadlineError, EnvironmentError, MachineExitError, ProtocolError, RootportError, UsageError } from '../errors.ts';
import { ensureEntry, formatBytes, removeEntry, silentProgress, sizedEntries, type Progress } from '../packages/index.ts';
import { boot, bootPlan } from './boot.ts';
import type { Machine } from './machine.ts';
import type { BootOptions } from './options.ts';
import { planMachine, type MachinePlan } from './plan.ts';
import { lastUsed, markUsed } from './snapshot-directory.ts';
import { snapshotKey, type SnapshotKey } from './snapshot-key.ts';
import { saveMachine, Snapshot } from './snapshot.ts';

const KIND = 'snapshots';
const DEFAULT_LIMIT_MIB = 4096;
/** Ports, switches and bridges: QEMU saves their whole state (hw/pci-bridge), and there is no back end to be shared. */
const SAVED_DEVICES = new Set([
  'pcie-root-port', 'ioh3420', 'x3130-upstream', 'xio3130-downstream', 'pci-bridge', 'pcie-pci-bridge', 'i82801b11-bridge',
]);

/** A snapshot, and the first machine that was restored from it: proof that it can be. Both are to be closed. */
export interface ProvenSnapshot {
  readonly snapshot: Snapshot;
  readonly machine: Machine;
}

/**
 * A machine as `boot` gives one, restored from the snapshot of its boot that the cache keeps; the first time it is
 * booted and saved. Where that cannot be (devices that it boots with, a QEMU that cannot) it is booted, and
 * `progress` is told why. What `boot` does in each case it does here once: deadlines and errors are the same.
 */
export async function restore(options: BootOptions = {}): Promise<Machine> {
  const why = whyNotRestored(options) ?? whyNotKept(options);
  if (why === undefined) {
    try {
      const { snapshot, machine } = await provenSnapshot(options);
      await snapshot.close();
      return machine;
    } catch (error) {
      options.progress?.note(`booted, not restored from a snapshot: ${whyRefused(error)}`);
    }
  } else {
    options.progress?.note(`booted, not restored from a snapshot: ${why}`);
  }
  return boot(options);
}

/**
 * Why there can be no snapshot of such a machine at all. A back end of ours cannot be copied; and QEMU saves a device
 * of which it knows no state (edu has no VMStateDescription) without a word, and gives back one that was just reset.
 */
export function whyNotRestored({ devices = [], extraArgs = [] }: BootOptions): string | undefined {
  const added = extraArgs.flatMap((word, at) => (/^--?device$/.test(word) ? [extraArgs[at + 1]?.split(',')[0] ?? '?'] : []));
  const kinds = [...devices.map(({ kind }) => kind), ...added.filter((kind) => !SAVED_DEVICES.has(kind))];
  return kinds.length === 0 ? undefined : `of the devices that it boots with (${kinds.join(', ')}), whose state may not be saved`;
}

/** Why a snapshot of it is its process' own. */
function whyNotKept({ extraArgs = [] }: BootOptions): string | undefined {
  return extraArgs.length === 0 ? undefined : 'of extraArgs, which may name what changes';
}

/**
 * Why a snapshot could not be had, when that is no reason not to boot.
 * @throws the error when it is one: the caller's mistake, a host that lacks something, a guest that does not come up
 */
export function whyRefused(error: unknown): string {
  if (error instanceof ProtocolError) return error.summary;
  if (isOfFiles(error)) return error.message;
  throw error;
}

/**
 * The kept snapshot of a boot with these options, made when there is none that works.
 * @throws UsageError with devices; ProtocolError when QEMU cannot save or load such a machine, an error of the file
 * system's when there is no room even for a snapshot of this process' own; else as `boot`
 */
export async function provenSnapshot(options: BootOptions): Promise<ProvenSnapshot> {
  const why = whyNotRestored(options);
  if (why !== undefined) throw new UsageError(`there can be no snapshot of this machine, because ${why}`, { hint: 'plug them into the machines that are restored' });
  const progress = options.progress ?? silentProgress;
  const plan = await planMachine(options);
  if (whyNotKept(options) !== undefined) return ownSnapshot(plan);
  const key = snapshotKey(plan);
  for (let attempt = 1; ; attempt += 1) {
    let directory: string, isNew = false;
    try {
      directory = await ensureEntry(KIND, key.key, progress, async (partial) => {
        await make(plan, key, partial, progress);
        isNew = true;
      });
      if (isNew) await evict(directory, progress);
    } catch (error) {
      if (!isOfFiles(error) && !(error instanceof EnvironmentError)) throw error;
      progress.note(`the cache cannot keep a snapshot, so that others boot again: ${error instanceof RootportError ? error.summary : error.message}`);
      return ownSnapshot(plan);
    }
    const made = await identityOf(directory);
    try {
      return await prove(await openKept(directory, key, plan));
    } catch (error) {
      if (attempt === 2 || !(error instanceof ProtocolError || isOfFiles(error))) throw error;
      progress.note(`the snapshot ${directory} is not used, and made anew: ${error instanceof RootportError ? error.summary : error.message}`);
      // Unless another process has made it anew meanwhile.
      await removeEntry({ kind: KIND, key: key.key, path: directory }, progress, async () => await identityOf(directory) === made);
    }
  }
}

async function make(plan: MachinePlan, { of }: SnapshotKey, directory: string, progress: Progress): Promise<void> {
  const { preset, parts: { qemu, kernel }, shape: { cpus, memoryMiB } } = plan;
  progress.start(`snapshot of ${preset.name}, ${cpus} CPU, ${memoryMiB} MiB, ${qemu.name}, Linux ${kernel.release}: booting once`);
  try {
    await saveMachine(await bootPlan(plan), directory, of);
  } catch (error) {
    progress.fail('no snapshot');
    throw error;
  }
  progress.succeed('snapshot: ready');
}

async function openKept(directory: string, { of }: SnapshotKey, plan: MachinePlan): Promise<Snapshot> {
  const snapshot = await Snapshot.open(directory, plan);
  const strange = JSON.stringify(snapshot.record.of) !== JSON.stringify(of) ? 'it is of another machine'
    : snapshot.record.memoryBytes !== plan.shape.memoryMiB * 2 ** 20 ? `its memory is ${snapshot.record.memoryBytes} bytes` : undefined;
  if (strange !== undefined) {
    await snapshot.close();
    throw new ProtocolError(strange);
  }
  await markUsed(directory);
  return snapshot;
}

async function prove(snapshot: Snapshot): Promise<ProvenSnapshot> {
  try {
    return { snapshot, machine: await snapshot.restore() };
  } catch (error) {
    await snapshot.close();
    if (!(error instanceof BootError || error instanceof MachineExitError || error instanceof DeadlineError)) throw error;
    throw new ProtocolError(`the machine does not come back: ${error.summary}`, { cause: error });
  }
}

async function ownSnapshot(plan: MachinePlan): Promise<ProvenSnapshot> {
  return prove(await Snapshot.take(await bootPlan(plan)));
}

/** The most that all of them take on disk: ROOTPORT_SNAPSHOTS_MIB, 4096 unless set. */
export function snapshotLimitBytes(env: NodeJS.ProcessEnv = process.env): number {
  const text = env['ROOTPORT_SNAPSHOTS_MIB'] || `${DEFAULT_LIMIT_MIB}`;
  if (!/^\d+$/.test(text)) throw new UsageError(`ROOTPORT_SNAPSHOTS_MIB: ${JSON.stringify(text)} is not a whole number of MiB`);
  return Number(text) * 2 ** 20;
}

/** Those to remove for a limit, least recently used first. */
export function surplus<T extends { readonly sizeBytes: number; readonly usedAt: Date }>(snapshots: readonly T[], limitBytes: number): T[] {
  const gone: T[] = [];
  let total = snapshots.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
  for (const one of [...snapshots].sort((a, b) => a.usedAt.getTime() - b.usedAt.getTime())) {
    if (total <= limitBytes) break;
    gone.push(one);
    total -= one.sizeBytes;
  }
  return gone;
}

/** After a new one moved in, which stays. Who has one open keeps it: its files are only unlinked. */
async function evict(newest: string, progress: Progress): Promise<void> {
  const kept = (await sizedEntries()).filter(({ kind }) => kind === KIND);
  const dated = await Promise.all(kept.map(async (entry) => ({ ...entry, usedAt: await lastUsed(entry.path) })));
  const limit = snapshotLimitBytes();
  for (const entry of surplus(dated, limit)) {
    if (entry.path === newest) continue;
    await removeEntry(entry, progress);
    const minutes = Math.floor((Date.now() - entry.usedAt.getTime()) / 60_000);
    progress.note(`the kept snapshots took more than ${formatBytes(limit)} (ROOTPORT_SNAPSHOTS_MIB): one of ${formatBytes(entry.sizeBytes)}, last used ${minutes} min ago, is gone`);
  }
}

/** Of the directory, which another one under its name has not. */
async function identityOf(directory: string): Promise<string> {
  const there = await stat(directory).catch(() => undefined);
  return `${there?.ino} ${there?.mtimeMs}`;
}

/** By its look: in Jest's sandbox the Error of Node's own modules is another one. */
function isOfFiles(error: unknown): error is NodeJS.ErrnoException {
  return typeof error === 'object' && error !== null && 'syscall' in error && 'errno' in error;
}
