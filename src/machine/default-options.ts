// What `rootport run` and a user's shell hand to every machine that does not say otherwise:
//   ROOTPORT_QEMU       'host', a tree's version, or a path
//   ROOTPORT_KERNEL     a name, or a path: of a built tree, or of an image; with an image
//   ROOTPORT_KERNEL_MODULES, ROOTPORT_KERNEL_BUILD   its /lib/modules/<release>, and what builds modules
//   ROOTPORT_ACCEL      auto, kvm, tcg
//   ROOTPORT_BUSYBOX, ROOTPORT_DROPBEAR   static programs for the guest, on a host without apt
// `boot` itself reads no environment; useMachine, the preset's set-up and the CLI give it these.
import { statSync } from 'node:fs';
import { resolve } from 'node:path';
import type { KernelChoice } from '../image/index.ts';
import type { AcceleratorChoice } from '../qemu/accelerator.ts';
import { UsageError } from '../errors.ts';
import type { BootOptions } from './options.ts';

/**
 * Options out of the environment; unset and empty variables give none. Names are checked by `boot`.
 * @throws UsageError for a kernel path that leads nowhere, and for half a userland
 */
export function defaultOptions(env: NodeJS.ProcessEnv = process.env): BootOptions {
  const { ROOTPORT_QEMU: qemu, ROOTPORT_KERNEL: kernel, ROOTPORT_ACCEL: accel, ROOTPORT_BUSYBOX: busybox, ROOTPORT_DROPBEAR: dropbear } = env;
  if (!busybox !== !dropbear) throw new UsageError('ROOTPORT_BUSYBOX and ROOTPORT_DROPBEAR are set together, or not at all');
  return {
    ...(qemu ? { qemu } : {}),
    ...(kernel ? { kernel: kernelChoice(kernel, env) } : {}),
    ...(accel ? { accel: accel as AcceleratorChoice } : {}),
    ...(busybox && dropbear ? { userland: { busybox: resolve(busybox), dropbear: resolve(dropbear) } } : {}),
  };
}

/** A word with a slash is a path. */
function kernelChoice(text: string, env: NodeJS.ProcessEnv): KernelChoice {
  if (!text.includes('/')) return text;
  const path = resolve(text);
  const there = statSync(path, { throwIfNoEntry: false });
  if (there === undefined) throw new UsageError(`there is no kernel at ${path}`);
  if (there.isDirectory()) return { tree: path };
  const { ROOTPORT_KERNEL_MODULES: modulesDir, ROOTPORT_KERNEL_BUILD: buildDir } = env;
  return { image: path, ...(modulesDir ? { modulesDir: resolve(modulesDir) } : {}), ...(buildDir ? { buildDir: resolve(buildDir) } : {}) };
}
