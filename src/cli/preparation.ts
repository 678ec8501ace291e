// Everything that a run needs, fetched and built before it, with visible progress; and what was chosen.
import { UsageError } from '../errors.ts';
import { buildModule, kernelNames } from '../image/index.ts';
import type { BootOptions } from '../machine/options.ts';
import { resolveParts, type Parts } from '../machine/parts.ts';
import { packageFile, silentProgress, terminalProgress, type Progress } from '../packages/index.ts';
import { qemuNames, resolveQemu } from '../qemu/find.ts';
import { q35 } from '../qemu/preset.ts';

export interface Preparation {
  readonly parts: Parts;
  /** Nothing had to be downloaded, built or proven. */
  readonly wasReady: boolean;
}

/**
 * QEMU, kernel, image, accelerator; and the probe module, when the kernel came with what builds it.
 * @throws EnvironmentError, UsageError as `resolveParts` and `buildModule` do
 */
export async function prepare(options: BootOptions): Promise<Preparation> {
  await checkChoices(options);
  const { progress, worked } = watched(terminalProgress());
  const parts = await resolveParts({ ...options, progress });
  if (parts.kernel.buildDir !== undefined) await buildModule(packageFile('images/probe'), parts.kernel, progress);
  return { parts, wasReady: !worked() };
}

/**
 * Refuse what there is not before anything is fetched for the rest.
 * @throws UsageError for an unknown name; EnvironmentError for a host's QEMU that does not answer
 */
export async function checkChoices({ kernel, qemu }: BootOptions): Promise<void> {
  if (typeof kernel === 'string' && !kernelNames().includes(kernel)) {
    throw new UsageError(`there is no kernel named ${JSON.stringify(kernel)}`, { hint: `the kernels are ${kernelNames().join(', ')}; or give a path` });
  }
  if (qemu !== undefined && !qemuNames().includes(qemu)) await resolveQemu(qemu, silentProgress);
}

/** One line: the machine that `boot` makes of these, and why. */
export function machineLine({ qemu, kernel, accelerator }: Parts): string {
  return `machine: ${q35().preset}, ${qemu.name}, Linux ${kernel.name}, ${accelerator.why}`;
}

/** The progress, and whether anything was ever shown on it. */
function watched(inner: Progress): { progress: Progress; worked: () => boolean } {
  let count = 0;
  const progress: Progress = { ...inner, start(text) { count += 1; inner.start(text); } };
  return { progress, worked: () => count > 0 };
}
