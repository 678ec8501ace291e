// The guest's memory in a file, with its CPUs' registers: what `crash`, drgn and gdb read. Written by QEMU
// (docs/interop, dump-guest-memory of qapi/dump.json), by physical address (`paging: false`: a driver may have spoilt the
// page tables). The guest stands still meanwhile, and goes on after. It reads nothing of the core.
import { open, rm, stat, statfs } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { EnvironmentError, ProtocolError, UsageError } from '../errors.ts';
import { silentProgress, type Progress } from '../packages/index.ts';
import type { QmpEvent } from '../qmp/message.ts';
import type { QmpClient } from '../qmp/client.ts';
import { within } from '../wait.ts';
import type { MachineShape } from './launch.ts';

/**
 * `elf`: an ELF64 core, as large as the guest's memory. `kdump-zlib`: makedumpfile's format, compressed; QEMU before 8.2
 * writes it flattened only, which crash reads, and drgn after `makedumpfile -R`.
 */
export type CoreFormat = 'elf' | 'kdump-zlib';

export interface DumpOptions {
  /** Default `elf`. */
  readonly format?: CoreFormat;
  /** Default 120 s. */
  readonly timeoutMs?: number;
  /** Where it is shown how far it is; default: nowhere. */
  readonly progress?: Progress;
}

const FORMATS: readonly CoreFormat[] = ['elf', 'kdump-zlib'];
const TIMEOUT_MS = 120_000;
const LOOK_EVERY_MS = 500;
const MIB = 2 ** 20;
/** In the monitor. */
const FD_NAME = 'rootport-core';

interface DumpProgress {
  readonly status: string;
  readonly completed: number;
  readonly total: number;
}

/**
 * @param path a new file, or one that is overwritten; its owner's alone (0600)
 * @returns its size, bytes
 * @throws UsageError for a format that QEMU does not write, EnvironmentError when there is no room, ProtocolError when
 * QEMU cannot; no file is left then
 */
export async function dumpMemory(
  { qmp, shape: { memoryMiB } }: { readonly qmp: QmpClient; readonly shape: Pick<MachineShape, 'memoryMiB'> },
  path: string, { format = 'elf', timeoutMs = TIMEOUT_MS, progress = silentProgress }: DumpOptions = {},
): Promise<number> {
  const written = await formatOf(qmp, format);
  const { bavail, bsize } = await statfs(dirname(resolve(path)));
  if (bavail * bsize < memoryMiB * MIB) {
    throw new EnvironmentError(`${dirname(resolve(path))} has ${Math.floor(bavail * bsize / MIB)} MiB free, and the guest has ${memoryMiB} MiB of memory`, { hint: 'name a file elsewhere' });
  }
  const file = await open(path, 'w', 0o600);
  try {
    progress.start(`core of the guest, ${memoryMiB} MiB`);
    // By a descriptor: QEMU makes no file of its own, and any path will do.
    await qmp.execute('getfd', { fdname: FD_NAME }, { fds: [file.fd], afterAbort: true });
    await dump(qmp, written, timeoutMs, progress);
    const { size } = await stat(path);
    progress.succeed(`core of the guest: ${path}, ${Math.ceil(size / MIB)} MiB`);
    return size;
  } catch (error) {
    progress.fail('no core of the guest');
    await rm(path, { force: true });
    throw error;
  } finally {
    await file.close();
  }
}

/** As this QEMU names it. */
async function formatOf(qmp: QmpClient, format: CoreFormat): Promise<string> {
  if (!FORMATS.includes(format)) throw new UsageError(`there is no core format ${JSON.stringify(format)}`, { hint: `they are ${FORMATS.join(' and ')}` });
  const { formats } = await qmp.execute<{ formats: string[] }>('query-dump-guest-memory-capability', undefined, { afterAbort: true });
  const found = (format === 'elf' ? ['elf'] : ['kdump-raw-zlib', 'kdump-zlib']).find((one) => formats.includes(one));
  if (found === undefined) throw new UsageError(`this QEMU does not write ${format}`, { hint: `it writes ${formats.join(', ')}` });
  return found;
}

async function dump(qmp: QmpClient, format: string, timeoutMs: number, progress: Progress): Promise<void> {
  const stops: (() => void)[] = [];
  try {
    // Not expectEvent: after a fault of the guest's the client waits for nothing any more, and QEMU lives.
    const event = (name: string): Promise<QmpEvent> => new Promise((resolve) => { stops.push(qmp.on(name, resolve)); });
    const [completed, resumed] = [event('DUMP_COMPLETED'), event('RESUME')];
    const { running } = await qmp.execute<{ running: boolean }>('query-status', undefined, { afterAbort: true });
    await qmp.execute('dump-guest-memory', { paging: false, protocol: `fd:${FD_NAME}`, detach: true, format }, { afterAbort: true });
    const timer = setInterval(() => {
      qmp.execute<DumpProgress>('query-dump', undefined, { afterAbort: true }).then(
        ({ completed: done, total }) => progress.update(total > 0 ? done / total : undefined, ''), () => undefined);
    }, LOOK_EVERY_MS);
    stops.push(() => clearInterval(timer));
    const { data } = await within(completed, { timeoutMs, what: 'QEMU to write the guest\'s memory' });
    const { result, error } = data as { readonly result: DumpProgress; readonly error?: string };
    if (result.status !== 'completed') throw new ProtocolError(`QEMU could not write the guest's memory: ${error ?? result.status}`, { received: data });
    // It cleans up after its event (dump/dump.c, dump_process), and refuses another dump or a migration until then.
    if (running) await within(resumed, { timeoutMs, what: 'the guest to go on' });
  } finally {
    for (const stop of stops) stop();
  }
}
