// What `rootport run` and a user's shell hand to every machine that does not say otherwise:
// ROOTPORT_QEMU, ROOTPORT_KERNEL (a name, or a path to a built tree or an image) and ROOTPORT_ACCEL; and for
// a host without apt ROOTPORT_BUSYBOX and ROOTPORT_DROPBEAR, both static. `boot` itself reads no environment;
// useMachine, the preset's set-up and the CLI give it these.
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
    ...(kernel ? { kernel: kernelChoice(kernel) } : {}),
    ...(accel ? { accel: accel as AcceleratorChoice } : {}),
    ...(busybox && dropbear ? { userland: { busybox: resolve(busybox), dropbear: resolve(dropbear) } } : {}),
  };
}

/** A word with a slash is a path: of a built tree, or of an image that brings no modules. */
function kernelChoice(text: string): KernelChoice {
  if (!text.includes('/')) return text;
  const path = resolve(text);
  const there = statSync(path, { throwIfNoEntry: false });
  if (there === undefined) throw new UsageError(`there is no kernel at ${path}`);
  return there.isDirectory() ? { tree: path } : { image: path };
}
