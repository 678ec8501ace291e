// What `boot` takes, and the checks that need no machine.
import { checkFiles, checkPackages, type GuestFiles, type GuestPackage, type KernelChoice, type OwnUserland } from '../image/index.ts';
import type { Progress } from '../packages/index.ts';
import type { AcceleratorChoice } from '../qemu/accelerator.ts';
import type { Device } from '../qemu/attachment.ts';
import type { MachineType } from '../qemu/preset.ts';
import { UsageError } from '../errors.ts';

export interface BootOptions {
  /** q35(), q35NativeHotplug(), q35Iommu(), pc(); default q35() with 4 ports, 1 CPU, 256 MiB. */
  readonly machine?: MachineType;
  /** `'host'`, a tree (`'7.2'`, `'10.0'`, `'11.1'`), or a path. Default: the host's if 7.2 or newer, else 10.0. */
  readonly qemu?: string;
  /** `'6.1'` (default), `'6.12'`, `{ image, modulesDir, buildDir }`, or `{ tree }`. */
  readonly kernel?: KernelChoice;
  /** Default auto: KVM if it is proven to work, else TCG. */
  readonly accel?: AcceleratorChoice;
  /** Further kernel modules to have on board for modprobe, with their dependencies. */
  readonly modules?: readonly string[];
  /**
   * Debian packages to have in the guest: `['fio', 'strace']`. Each comes with what it holds (without manuals and
   * services) and the shared libraries that its programs link against, out of the cache when they are in it, else
   * from the network, without root. Nothing else that it depends on comes (name python3-minimal and the like if a
   * script wants it), and no maintainer script is run. The guest's shell is busybox's and takes its own applets
   * first: what both have is called by its path, `/usr/sbin/ip`. The guest unpacks all of it at each boot, some
   * 0.3 s for 50 MiB under TCG; of a large package take some programs only,
   * `{ name: 'xfsprogs', programs: ['mkfs.xfs', 'xfs_repair'] }`.
   * UsageError for a name that Debian does not know, or a program that the package has not.
   */
  readonly packages?: readonly GuestPackage[];
  /**
   * Files to have in the guest before its first process runs (firmware, say): absolute path there to path here.
   * Its directories are made. UsageError for a path that is hidden there (/tmp, /dev, ...) or not a file here.
   */
  readonly files?: GuestFiles;
  /** Devices that are there when the guest boots, in the machine's first ports. */
  readonly devices?: readonly Device[];
  /**
   * `'quick'` (default): the uncompressed kernel, with a command line that leaves out what only costs
   * time in a test (KASLR, mitigations, timer checks). `'plain'`: the bzImage as it is distributed, and
   * nothing on the command line but the console: slower, for what depends on those.
   */
  readonly bootMode?: 'quick' | 'plain';
  /** Words added to the kernel command line. */
  readonly append?: readonly string[];
  /** Arguments added to QEMU's. */
  readonly extraArgs?: readonly string[];
  /** Static programs for a host without apt. */
  readonly userland?: OwnUserland;
  /** Deadline of the boot, to the guest's own ready mark. Default 60 s under TCG, 20 s under KVM. */
  readonly timeoutMs?: number;
  /** Where progress is shown; default: nowhere. */
  readonly progress?: Progress;
}

const KNOWN = new Set<string>(['machine', 'qemu', 'kernel', 'accel', 'modules', 'packages', 'files', 'devices', 'bootMode', 'append', 'extraArgs', 'userland', 'timeoutMs', 'progress']);

export function checkOptions(options: BootOptions): void {
  for (const name of Object.keys(options)) {
    if (!KNOWN.has(name)) throw new UsageError(`boot has no option ${JSON.stringify(name)}`, { hint: `the options are ${[...KNOWN].join(', ')}` });
  }
  const { cpus = 1, memoryMiB = 256, ports = 4, tcgThread } = options.machine ?? { preset: 'q35' };
  if (!Number.isInteger(cpus) || cpus < 1 || cpus > 288) throw new UsageError(`cpus: ${cpus} is not a whole number from 1 to 288`);
  if (!Number.isInteger(memoryMiB) || memoryMiB < 128) throw new UsageError(`memoryMiB: ${memoryMiB} is less than the 128 that a guest needs`);
  if (!Number.isInteger(ports) || ports < 0 || ports > 64) throw new UsageError(`ports: ${ports} is not a whole number from 0 to 64`);
  if (tcgThread !== undefined && !['single', 'multi'].includes(tcgThread)) {
    throw new UsageError(`there is no tcgThread ${JSON.stringify(tcgThread)}`, { hint: 'they are single and multi' });
  }
  if ((options.devices?.length ?? 0) > ports) {
    throw new UsageError(`${options.devices?.length} devices do not fit into ${ports} ports`, { hint: 'q35({ ports: n })' });
  }
  checkPackages(options.packages ?? []);
  checkFiles(options.files ?? {});
}

const MIB = 2 ** 20;
const DEFAULT_MEMORY_MIB = 256;

/**
 * A guest's memory, MiB. While it boots it holds its image twice, packed and unpacked, and takes for the unpacked
 * one at most half of what is left beside the packed one (a tmpfs): three times the image, a tenth more for the
 * pages' own structures, and the kernel. What does not fit the kernel leaves out without a word (6.1), or panics;
 * so that too little is a UsageError here.
 * @param asked undefined: 256, and more for a large image
 */
export function guestMemoryMiB(asked: number | undefined, imageBytes: number): number {
  const image = Math.ceil(imageBytes / MIB);
  const least = Math.ceil(3.3 * (imageBytes / MIB)) + 60;
  if (asked !== undefined && asked < least) {
    throw new UsageError(`memoryMiB: ${asked} is too little for a guest image of ${image} MiB, which the guest unpacks in its memory`, {
      hint: `give ${least} or more, or leave memoryMiB out; or take only some programs of a package: { name, programs }`,
    });
  }
  return asked ?? Math.max(DEFAULT_MEMORY_MIB, least + 64);
}
