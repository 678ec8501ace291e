// The state of a machine's CPUs and devices out of one QEMU and into another, without its memory (x-ignore-shared: memory
// that is shared is not in the stream). QEMU: migration/ram.c (ramblock_is_ignored), docs/devel/migration. Whose memory
// goes along, and what is kept of it: snapshot.ts and kept-scene.ts.
import { join } from 'node:path';
import { ProtocolError } from '../errors.ts';
import type { QmpEvent } from '../qmp/message.ts';
import type { QmpClient } from '../qmp/client.ts';
import { within } from '../wait.ts';
import { receiveState, sendState, uriOf } from './state-stream.ts';

const TIMEOUT_MS = 30_000;
const END_TIMEOUT_MS = 5000;
const CAPABILITIES = ['events', 'x-ignore-shared'] as const;

export interface MigrationSite {
  readonly qmp: QmpClient;
  /** The machine's own, for a socket. */
  readonly directory: string;
  /** Ends the waits; absent: a machine that broke, whose QEMU lives. */
  readonly signal?: AbortSignal;
}

/**
 * The guest stands still after it.
 * @throws QmpError when a device refuses, ProtocolError when QEMU fails on the way
 */
export async function saveDeviceState({ qmp, directory, signal }: MigrationSite): Promise<Buffer> {
  await enable(qmp);
  await using receiver = await receiveState(join(directory, 'state'));
  const ended = migrationEnd(qmp);
  try {
    await qmp.execute('migrate', { uri: receiver.uri }, { afterAbort: true });
    if (await within(ended.status, { timeoutMs: TIMEOUT_MS, what: 'QEMU to save the machine\'s state', signal }) === 'failed') {
      const answer = await qmp.execute<{ 'error-desc'?: string }>('query-migrate', undefined, { afterAbort: true });
      throw new ProtocolError(`QEMU could not save the machine's state: ${answer['error-desc'] ?? 'it does not say why'}`, { received: answer });
    }
    return await within(receiver.bytes, { timeoutMs: TIMEOUT_MS, what: 'QEMU to end the machine\'s state', signal });
  } finally {
    ended.stop();
  }
}

/** Into a QEMU that was started for it, whose memory is there. The guest goes on if it ran when it was saved. */
export async function loadDeviceState({ qmp, directory, signal }: MigrationSite, state: Buffer): Promise<void> {
  await enable(qmp);
  const ended = migrationEnd(qmp);
  try {
    const socket = join(directory, 'state');
    await qmp.execute('migrate-incoming', { uri: uriOf(socket) });
    sendState(socket, state);
    // "Completed" is the last that is said: RESUME comes before it (migration/migration.c, process_incoming_migration_bh).
    const status = await within(ended.status, { timeoutMs: TIMEOUT_MS, what: 'QEMU to load the machine\'s state', signal });
    // It says so a moment before it ends, and why on stderr (migration/migration.c, process_incoming_migration_co).
    if (status === 'failed') await within(new Promise<never>(() => undefined), { timeoutMs: END_TIMEOUT_MS, what: 'QEMU, which could not load the machine\'s state, to end', signal });
  } finally {
    ended.stop();
  }
}

/** Not expectEvent, which is over for a machine that broke. */
function migrationEnd(qmp: QmpClient): { readonly status: Promise<string>; readonly stop: () => void } {
  let stop: () => void = () => undefined;
  const status = new Promise<string>((resolve) => {
    stop = qmp.on('MIGRATION', ({ data }: QmpEvent) => {
      const text = (data as { status?: string } | undefined)?.status ?? '';
      if (text === 'completed' || text === 'failed') resolve(text);
    });
  });
  return { status, stop };
}

async function enable(qmp: QmpClient): Promise<void> {
  await qmp.execute('migrate-set-capabilities', { capabilities: CAPABILITIES.map((capability) => ({ capability, state: true })) }, { afterAbort: true });
}
