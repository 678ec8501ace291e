// A machine that did not come to be: nothing of it is left running, and the error says where it happened.
import { rm } from 'node:fs/promises';
import { RootportError } from '../errors.ts';
import type { QemuProcess } from '../qemu/process.ts';
import type { Plugged } from './plugged.ts';
import type { Trouble } from './trouble.ts';

/** Ends all there is of it, and throws the error with the machine's context. */
export async function failedStart(error: unknown, { trouble, process, plugged, directory }: {
  readonly trouble: Trouble; readonly process: QemuProcess | undefined; readonly plugged: readonly Plugged[]; readonly directory: string;
}): Promise<never> {
  const context = trouble.context();
  await process?.end();
  await Promise.all(plugged.map((one) => one.detach()));
  // The leash of a process removes the directory.
  if (process === undefined) await rm(directory, { recursive: true, force: true });
  throw error instanceof RootportError && context !== undefined ? error.on(context) : error;
}
