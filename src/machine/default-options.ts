// What `rootport run` and a user's shell hand to every machine that does not say otherwise:
// ROOTPORT_QEMU, ROOTPORT_KERNEL and ROOTPORT_ACCEL. `boot` itself reads no environment; useMachine, the
// preset's set-up and the CLI give it these.
import type { AcceleratorChoice } from '../qemu/accelerator.ts';
import type { BootOptions } from './options.ts';

/** Options out of the environment; unset and empty variables give none. Names are checked by `boot`. */
export function defaultOptions(env: NodeJS.ProcessEnv = process.env): BootOptions {
  const { ROOTPORT_QEMU: qemu, ROOTPORT_KERNEL: kernel, ROOTPORT_ACCEL: accel } = env;
  return {
    ...(qemu ? { qemu } : {}),
    ...(kernel ? { kernel } : {}),
    ...(accel ? { accel: accel as AcceleratorChoice } : {}),
  };
}
