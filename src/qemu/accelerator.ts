// Which accelerator, and why. /dev/kvm can be there, open, create VMs, and still hang every Linux guest,
// so KVM is proven with the guest kernel itself: it must print its first line within a deadline. The
// verdict is kept in the cache for this boot of the host, this QEMU and this kernel.
import { createHash } from 'node:crypto';
import { accessSync, constants, existsSync } from 'node:fs';
import { mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { execa } from 'execa';
import { EnvironmentError, UsageError } from '../errors.ts';
import { cacheRoot, withLock, type Progress } from '../packages/index.ts';
import type { Qemu } from './find.ts';
import { PARENT_DEATH_PREFIX } from './leash.ts';

export type AcceleratorChoice = 'auto' | 'kvm' | 'tcg';

export interface Accelerator {
  readonly name: 'kvm' | 'tcg';
  /** One line: what was chosen, and why. */
  readonly why: string;
}

/** A kernel under working KVM prints its first line after some 100 ms; this is for a very busy host. */
const PROOF_TIMEOUT_MS = 6000;

export async function chooseAccelerator(
  choice: AcceleratorChoice, qemu: Qemu, vmlinux: string, progress: Progress,
): Promise<Accelerator> {
  if (choice === 'tcg') return { name: 'tcg', why: 'tcg: asked for' };
  if (choice !== 'kvm' && choice !== 'auto') {
    throw new UsageError(`there is no accelerator named ${JSON.stringify(choice)}`, { hint: 'they are auto, kvm and tcg' });
  }
  const verdict = await kvmVerdict(qemu, vmlinux, progress);
  if (verdict.works) return { name: 'kvm', why: `kvm: ${verdict.reason}` };
  if (choice === 'auto') return { name: 'tcg', why: `tcg: ${verdict.reason}` };
  throw new EnvironmentError(`KVM was asked for and cannot be had: ${verdict.reason}`, { hint: verdict.hint ?? 'use accel: \'auto\' or \'tcg\'' });
}

export interface KvmVerdict {
  readonly works: boolean;
  readonly reason: string;
  readonly hint?: string;
}

/** Proven or refuted with this QEMU and kernel; from the cache when it was proven since the host booted. */
export async function kvmVerdict(qemu: Qemu, vmlinux: string, progress: Progress): Promise<KvmVerdict> {
  if (!existsSync('/dev/kvm')) {
    return { works: false, reason: 'there is no /dev/kvm', hint: 'load kvm_intel or kvm_amd, or turn virtualisation on in the firmware' };
  }
  try {
    accessSync('/dev/kvm', constants.R_OK | constants.W_OK);
  } catch {
    return { works: false, reason: '/dev/kvm may not be opened by this user', hint: 'sudo usermod -aG kvm "$USER", then log in again' };
  }
  const hostBoot = (await readFile('/proc/sys/kernel/random/boot_id', 'utf8')).trim();
  const key = createHash('sha256').update(JSON.stringify([hostBoot, qemu.key, qemu.version.text, vmlinux])).digest('hex').slice(0, 16);
  const file = join(cacheRoot(), 'kvm', `${key}.json`);
  const kept = await readVerdict(file);
  if (kept !== undefined) return kept;
  return withLock(`kvm-${key}`, progress, async () => {
    const meanwhile = await readVerdict(file);
    if (meanwhile !== undefined) return meanwhile;
    progress.start('proving KVM with the guest kernel');
    const verdict = await prove(qemu, vmlinux);
    progress.succeed(`KVM ${verdict.works ? 'works' : 'does not work'} here: ${verdict.reason}`);
    await mkdir(join(cacheRoot(), 'kvm'), { recursive: true });
    await writeFile(`${file}.partial`, JSON.stringify(verdict));
    await rename(`${file}.partial`, file);
    return verdict;
  });
}

async function readVerdict(file: string): Promise<KvmVerdict | undefined> {
  try {
    return JSON.parse(await readFile(file, 'utf8')) as KvmVerdict;
  } catch {
    await rm(file, { force: true });
    return undefined;
  }
}

async function prove(qemu: Qemu, vmlinux: string): Promise<KvmVerdict> {
  const [file = '', ...args] = [...PARENT_DEATH_PREFIX, ...qemu.command,
    '-nodefaults', '-no-user-config', '-display', 'none', '-no-reboot', '-machine', 'q35,accel=kvm', '-cpu', 'host', '-m', '256M',
    '-kernel', vmlinux, '-append', 'console=ttyS0 earlyprintk=ttyS0 panic=-1', '-serial', 'stdio'];
  const began = Date.now();
  const child = execa(file, args, { env: { ...qemu.env }, stdin: 'ignore', reject: false, buffer: { stdout: false }, forceKillAfterDelay: false });
  let said = '';
  const outcome = await new Promise<'line' | 'silence' | 'exit'>((resolve) => {
    const timer = setTimeout(() => resolve('silence'), PROOF_TIMEOUT_MS);
    child.stdout.on('data', (chunk: Buffer) => {
      said += chunk.toString('latin1');
      if (/Linux version \d/.test(said)) { clearTimeout(timer); resolve('line'); }
    });
    void child.then(() => { clearTimeout(timer); resolve('exit'); });
  });
  child.kill('SIGKILL');
  const { stderr } = await child;
  if (outcome === 'line') return { works: true, reason: `the guest kernel printed its first line after ${Date.now() - began} ms` };
  if (outcome === 'exit') return { works: false, reason: `QEMU with KVM exited: ${stderr.trim().split('\n').at(-1) ?? ''}`, hint: 'see dmesg of the host' };
  return {
    works: false,
    reason: `/dev/kvm opens, but the guest kernel printed nothing in ${PROOF_TIMEOUT_MS / 1000} s under it (broken nested virtualisation?)`,
    hint: 'use a host whose nested virtualisation works, or accel: \'tcg\'',
  };
}
