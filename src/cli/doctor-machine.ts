// The doctor's look at the machine that would be booted: QEMU, kernel, KVM. It downloads nothing: KVM is
// proven when both are in the cache already.
import { existsSync } from 'node:fs';
import { RootportError } from '../errors.ts';
import { DEFAULT_KERNEL, resolveKernel, resolveUserland } from '../image/index.ts';
import type { BootOptions } from '../machine/options.ts';
import { cachedTree, terminalProgress, type Progress } from '../packages/index.ts';
import { kvmVerdict } from '../qemu/accelerator.ts';
import { defaultQemu, qemuNames, resolveQemu, type Qemu } from '../qemu/find.ts';
import type { Check } from './doctor-check.ts';

export interface MachinePlan {
  /** `'host'`, a path, or a tree's version. */
  readonly qemu: string;
  /** Package trees that it takes and the cache does not have. */
  readonly uncached: readonly string[];
}

/** What would be taken, without fetching it. */
export async function machinePlan(boot: BootOptions): Promise<MachinePlan> {
  const qemu = boot.qemu ?? await defaultQemu();
  const kernel = boot.kernel ?? DEFAULT_KERNEL;
  const trees = [
    ...(boot.userland === undefined ? ['userland'] : []),
    ...(qemuNames().includes(qemu) ? [`qemu-${qemu}`] : []),
    ...(typeof kernel === 'string' ? [`linux-${kernel}`] : []),
  ];
  return { qemu, uncached: trees.filter((tree) => cachedTree(tree) === undefined) };
}

export async function machineChecks({ qemu: choice, uncached }: MachinePlan, boot: BootOptions): Promise<Check[]> {
  const progress = terminalProgress();
  const later = (name: string, tree: string): Check => ({
    name, state: 'note', detail: `${tree}, not in the cache yet: the first run downloads it`, mend: 'rootport cache prepare',
  });
  const checks: Check[] = [];
  let qemu: Qemu | undefined;
  if (uncached.includes(`qemu-${choice}`)) {
    checks.push(later('QEMU', `the ${choice} tree`));
  } else {
    try {
      qemu = await resolveQemu(choice, progress);
      checks.push({ name: 'QEMU', state: 'ok', detail: qemu.name });
    } catch (error) {
      checks.push(missing('QEMU', error));
    }
  }
  const vmlinux = await kernelCheck(checks, uncached, boot, later, progress);
  checks.push(await kvmCheck(qemu, vmlinux, boot, progress));
  return checks;
}

/** Adds its check; the kernel to boot when it could be had. */
async function kernelCheck(
  checks: Check[], uncached: readonly string[], boot: BootOptions, later: (name: string, tree: string) => Check, progress: Progress,
): Promise<string | undefined> {
  const lacking = uncached.filter((tree) => !tree.startsWith('qemu-'));
  for (const tree of lacking) checks.push(tree === 'userland' ? later('guest programs', 'the userland tree') : later('kernel', `the ${tree} tree`));
  if (lacking.length > 0) return undefined;
  try {
    const { tools } = await resolveUserland(boot.userland, progress);
    const kernel = await resolveKernel(boot.kernel ?? DEFAULT_KERNEL, tools, progress);
    checks.push({ name: 'kernel', state: 'ok', detail: `Linux ${kernel.name}${kernel.buildDir === undefined ? ', without what builds modules' : ''}` });
    return kernel.vmlinux;
  } catch (error) {
    checks.push(missing('kernel', error));
    return undefined;
  }
}

async function kvmCheck(qemu: Qemu | undefined, vmlinux: string | undefined, boot: BootOptions, progress: Progress): Promise<Check> {
  const name = 'KVM';
  const wanted = boot.accel === 'kvm';
  const without = wanted ? '' : '; TCG is taken, which is some ten times slower';
  if (qemu === undefined || vmlinux === undefined) {
    const there = existsSync('/dev/kvm');
    return {
      name, state: !there && wanted ? 'missing' : 'note',
      detail: there ? '/dev/kvm is there; not proven yet, that takes QEMU and the kernel' : `there is no /dev/kvm${without}`,
      mend: there ? 'rootport doctor --prepare' : 'load kvm_intel or kvm_amd, or turn virtualisation on in the firmware',
    };
  }
  const { works, reason, hint } = await kvmVerdict(qemu, vmlinux, progress);
  if (works) return { name, state: 'ok', detail: `proven: ${reason}` };
  return { name, state: wanted ? 'missing' : 'note', detail: `${reason}${without}`, ...(hint === undefined ? {} : { mend: hint }) };
}

function missing(name: string, error: unknown): Check {
  if (!(error instanceof RootportError)) throw error;
  return { name, state: 'missing', detail: error.summary.split('\n')[0] ?? '', ...(error.hint === undefined ? {} : { mend: error.hint }) };
}
