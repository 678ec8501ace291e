// Everything a boot needs from the cache, resolved once: QEMU, kernel, image, accelerator.
import {
  DEFAULT_KERNEL, ensureGuestImage, ensureGuestPackages, resolveKernel, resolveUserland, type GuestImage, type Kernel,
} from '../image/index.ts';
import { silentProgress } from '../packages/index.ts';
import { chooseAccelerator, type Accelerator } from '../qemu/accelerator.ts';
import { resolveQemu, type Qemu } from '../qemu/find.ts';
import type { BootOptions } from './options.ts';

export interface Parts {
  readonly qemu: Qemu;
  readonly kernel: Kernel;
  readonly image: GuestImage;
  readonly accelerator: Accelerator;
}

/** Downloads and builds what is not in the cache yet; quick and offline when everything is. */
export async function resolveParts(options: BootOptions): Promise<Parts> {
  const progress = options.progress ?? silentProgress;
  const userland = await resolveUserland(options.userland, progress);
  const qemu = await resolveQemu(options.qemu, progress);
  const kernel = await resolveKernel(options.kernel ?? DEFAULT_KERNEL, userland.tools, progress);
  const packages = await ensureGuestPackages(options.packages ?? [], progress);
  const image = await ensureGuestImage(kernel, userland, { modules: options.modules ?? [], packages }, progress);
  const accelerator = await chooseAccelerator(options.accel ?? 'auto', qemu, kernel.vmlinux, progress);
  return { qemu, kernel, image, accelerator };
}
