// A snapshot on disk, which tells all that is needed to restore it:
//   snapshot.json  what it is of, the key to its guest, where its memory belongs, what the state must add up to
//   memory         the guest's memory, packed (memory-image.ts)
//   state          what QEMU wrote of everything else
//   console        what the console said until then
// Nothing odd is used: whoever finds it makes a new one. The directory is its maker's alone (0700), for with the key
// in it one can log in to every machine that is restored from it.
import { createHash } from 'node:crypto';
import { chmod, readFile, stat, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { ProtocolError } from '../errors.ts';
import type { SshTarget } from '../guest/ssh.ts';
import { MemoryImage, type Extent } from './memory-image.ts';

/** Of these files, and of how they are made: another one is not used. */
export const SNAPSHOT_FORMAT = 1;

/** What the guest knows us by. */
export type GuestKey = Pick<SshTarget, 'privateKey' | 'hostKeyBase64' | 'nonce'>;

export interface SnapshotRecord {
  readonly format: number;
  /** ISO 8601. */
  readonly madeAt: string;
  /** What must be the same wherever it is restored (snapshot-key.ts); empty for one that stays in its process. */
  readonly of: Readonly<Record<string, unknown>>;
  readonly guest: GuestKey;
  readonly memoryBytes: number;
  readonly extents: readonly Extent[];
  readonly stateSha256: string;
}

export interface OpenSnapshot {
  readonly record: SnapshotRecord;
  readonly memory: MemoryImage;
  readonly state: Buffer;
  readonly bootConsole: string;
}

const RECORD = 'snapshot.json', MEMORY = 'memory', STATE = 'state', CONSOLE = 'console';

/** Fill an empty directory. @param memoryPath of a file that nobody writes any more */
export async function writeSnapshot(
  directory: string, { state, memoryPath, bootConsole, ...rest }: Pick<SnapshotRecord, 'of' | 'guest'> & { readonly state: Buffer; readonly memoryPath: string; readonly bootConsole: string },
): Promise<void> {
  await chmod(directory, 0o700);
  const { size: memoryBytes } = await stat(memoryPath);
  const extents = await MemoryImage.save(memoryPath, join(directory, MEMORY));
  const record: SnapshotRecord = { format: SNAPSHOT_FORMAT, madeAt: new Date().toISOString(), ...rest, memoryBytes, extents, stateSha256: sha256(state) };
  for (const [name, content] of [[STATE, state], [CONSOLE, bootConsole], [RECORD, JSON.stringify(record)]] as const) {
    await writeFile(join(directory, name), content, { mode: 0o600, flag: 'wx' });
  }
}

/**
 * What stands there from now on, even when the directory is removed. Its memory is to be closed.
 * @throws ProtocolError when anything of it is odd, an error of the file system's when a file cannot be read
 */
export async function openSnapshot(directory: string): Promise<OpenSnapshot> {
  const record = parseRecord(await readFile(join(directory, RECORD), 'utf8'));
  const state = await readFile(join(directory, STATE));
  if (sha256(state) !== record.stateSha256) throw new ProtocolError(`the saved state, ${state.length} bytes, is not the one that was saved`);
  const bootConsole = await readFile(join(directory, CONSOLE), 'utf8');
  return { record, state, bootConsole, memory: await MemoryImage.open(join(directory, MEMORY), record.extents, record.memoryBytes) };
}

/** Note that it is used now; a cache that cannot be written keeps the older date. */
export async function markUsed(directory: string): Promise<void> {
  const now = new Date();
  await utimes(join(directory, RECORD), now, now).catch(() => undefined);
}

/** When it was last used; its making counts. */
export async function lastUsed(directory: string): Promise<Date> {
  return (await stat(join(directory, RECORD)).catch(() => undefined))?.mtime ?? new Date(0);
}

/** @throws ProtocolError */
export function parseRecord(text: string): SnapshotRecord {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new ProtocolError(`${RECORD} is not JSON`, { cause });
  }
  const record = (isObject(value) ? value : {}) as Record<keyof SnapshotRecord, unknown>;
  if (record.format !== SNAPSHOT_FORMAT) throw new ProtocolError(`${RECORD} is of format ${JSON.stringify(record.format) ?? 'none'}, and this rootport knows ${SNAPSHOT_FORMAT}`);
  const guest = (isObject(record.guest) ? record.guest : {}) as Record<keyof GuestKey, unknown>;
  const wrong = [
    ...[['madeAt', record.madeAt], ['stateSha256', record.stateSha256], ['guest.privateKey', guest.privateKey], ['guest.hostKeyBase64', guest.hostKeyBase64], ['guest.nonce', guest.nonce]]
      .filter(([, one]) => typeof one !== 'string' || one === ''),
    ...(isObject(record.of) ? [] : [['of']]),
    ...(isSize(record.memoryBytes) && record.memoryBytes > 0 ? [] : [['memoryBytes']]),
    ...(Array.isArray(record.extents) && record.extents.every((one) => Array.isArray(one) && one.length === 2 && one.every(isSize)) ? [] : [['extents']]),
  ].map(([name]) => name);
  if (wrong.length > 0) throw new ProtocolError(`${RECORD} has no good ${wrong.join(', ')}`);
  return record as unknown as SnapshotRecord;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isSize(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

function sha256(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('hex');
}
