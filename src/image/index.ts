export { ensureGuestImage, type GuestImage } from './guest-image.ts';
export { checkFiles, filesArchive, withArchive, type GuestFiles } from './guest-files.ts';
export { checkPackages, ensureGuestPackages, type GuestPackage } from './guest-packages.ts';
export { DEFAULT_KERNEL, kernelNames, resolveKernel, type Kernel, type KernelChoice, type OwnKernel, type OwnKernelTree } from './kernel.ts';
export { buildModule, type BuiltModule } from './module-build.ts';
export { generateClientKey, type ClientKey } from './ssh-keys.ts';
export type { OwnUserland } from './own-userland.ts';
export { resolveUserland, type Userland } from './userland.ts';
