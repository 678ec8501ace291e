// Before any test: download and build what the cache lacks, with visible progress, so that no test's
// deadline has to cover a download; and say in a line what machines are made of and why, unless `rootport run`
// has said it. Quick and offline when the cache is warm.
// A suite that asks for another kernel or QEMU fetches it in its own beforeAll, with progress too.
import { RootportError } from '../errors.ts';
import { defaultOptions } from '../machine/default-options.ts';
import { resolveParts } from '../machine/parts.ts';
import { terminalProgress } from '../packages/index.ts';
import { startSignal } from './start-signal.ts';

export default async function globalSetup(): Promise<void> {
  try {
    const { qemu, kernel, accelerator } = await resolveParts({ ...defaultOptions(), progress: terminalProgress() });
    if (process.env['ROOTPORT_MACHINE_SAID'] === undefined) {
      process.stderr.write(`rootport: ${qemu.name}, Linux ${kernel.name}, ${accelerator.why}\n`);
    }
  } catch (error) {
    // Jest prints the stack: what to do about it says more.
    if (error instanceof RootportError) error.stack = `${error.name}: ${error.message}`;
    throw error;
  }
  await startSignal();
}
