// What a machine of these options is made of, before there is one: its parts out of the cache, its shape, and the
// guest's command line. A boot carries it out; a snapshot is known by it. It starts nothing.
import { stat } from 'node:fs/promises';
import { filesArchive } from '../image/index.ts';
import { findPreset, portIds, q35, type MachinePreset } from '../qemu/preset.ts';
import { defaultTcgThread } from '../qemu/versions.ts';
import type { MachineShape } from './launch.ts';
import { checkOptions, guestMemoryMiB, type BootOptions } from './options.ts';
import { resolveParts, type Parts } from './parts.ts';

const PLAIN_APPEND = ['console=ttyS0', 'rdinit=/init'];
const QUICK_APPEND = [
  ...PLAIN_APPEND, 'quiet', 'nokaslr', 'mitigations=off', 'tsc=reliable', 'no_timer_check', 'random.trust_cpu=on',
  'cryptomgr.notests', 'raid=noautodetect', 'noreplace-smp',
];
/** Every deadline inside a guest is this much longer under TCG than under KVM. */
const COMMAND_TIMEOUT_MS = { kvm: 10_000, tcg: 30_000 } as const;
const BOOT_TIMEOUT_MS = { kvm: 20_000, tcg: 60_000 } as const;

export interface MachinePlan {
  readonly parts: Parts;
  readonly preset: MachinePreset;
  /** Hot-pluggable sockets, in order. */
  readonly ports: readonly string[];
  /** Without devices: they belong to one machine. */
  readonly shape: MachineShape;
  /** What is booted: the image for `-kernel`. */
  readonly kernelImage: string;
  /** What stands behind the guest image, an archive of the user's files. */
  readonly archive: Buffer | undefined;
  /** The kernel's command line, less what differs from boot to boot. */
  readonly append: readonly string[];
  readonly bootTimeoutMs: number;
  readonly commandTimeoutMs: number;
}

/** @throws UsageError, EnvironmentError as `boot` does */
export async function planMachine(options: BootOptions): Promise<MachinePlan> {
  checkOptions(options);
  const type = options.machine ?? q35();
  const preset = findPreset(type.preset);
  const ports = portIds(preset, type.ports ?? 4);
  const parts = await resolveParts(options);
  const accel = parts.accelerator.name;
  const archive = await filesArchive(options.files ?? {});
  const plain = options.bootMode === 'plain';
  const shape: MachineShape = {
    version: parts.qemu.version, preset, ports: ports.length, accel,
    cpus: type.cpus ?? 1, tcgThread: type.tcgThread ?? defaultTcgThread(parts.qemu.version),
    memoryMiB: guestMemoryMiB(type.memoryMiB, (await stat(parts.image.initramfs)).size + (archive?.length ?? 0)),
    devices: [], network: true, extraArgs: options.extraArgs ?? [],
  };
  return {
    parts, preset, ports, shape, archive,
    kernelImage: plain ? parts.kernel.bzImage ?? parts.kernel.vmlinux : parts.kernel.vmlinux,
    append: [...(plain ? PLAIN_APPEND : QUICK_APPEND), ...(preset.append ?? []), ...(options.append ?? [])],
    bootTimeoutMs: options.timeoutMs ?? BOOT_TIMEOUT_MS[accel], commandTimeoutMs: COMMAND_TIMEOUT_MS[accel],
  };
}
