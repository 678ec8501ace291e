// Directories of the host in a guest, both ways: 9p2000.L over virtio-9p-pci (QEMU: docs, "9psetup"; Linux:
// Documentation/filesystems/9p.rst). The guest's root does there what this process' user may, and no name leads outside:
// QEMU opens every component of a path below the directory without following symbolic links (hw/9pfs/9p-local.c,
// local_open_nofollow); the guest resolves a link in its own tree. It boots nothing.
import { realpathSync, statSync } from 'node:fs';
import { basename, posix } from 'node:path';
import { UsageError } from '../errors.ts';
import type { Guest } from '../guest/guest.ts';
import type { BootOptions } from '../machine/options.ts';
import { shellWord } from '../shell-word.ts';

export interface Share {
  /** Here, absolute, links resolved. */
  readonly directory: string;
  /** Where it is in the guest, absolute. */
  readonly mountPoint: string;
}

/** Bytes of a message at most: each is a way through QEMU. */
const MSIZE = 512 * 1024;

/**
 * `directory`, which is /mnt/<its name> in the guest, or `directory:/path/there`.
 * @throws UsageError for what is no directory, or would hide what a guest is made of
 */
export function parseShare(text: string): Share {
  const at = text.lastIndexOf(':/');
  // A directory whose name has :/ in it is there itself.
  const [path, there] = at > 0 && !isDirectory(text) ? [text.slice(0, at), text.slice(at + 1)] : [text, undefined];
  if (!isDirectory(path)) throw new UsageError(`--share: there is no directory ${path}`, { hint: 'DIRECTORY, or DIRECTORY:/PATH/IN/THE/GUEST' });
  const directory = realpathSync(path);
  const mountPoint = posix.normalize(there ?? `/mnt/${basename(directory) || 'root'}`).replace(/(?<=.)\/$/, '');
  if (/^\/(|bin|sbin|lib|lib64|usr|etc|dev|proc|sys|run|tmp|root|init)$|^\/(dev|proc|sys|usr)\//.test(mountPoint)) {
    throw new UsageError(`--share: ${mountPoint} of the guest would be hidden`, { hint: 'take a path below /mnt' });
  }
  return { directory, mountPoint };
}

/** @throws UsageError for two in one place */
export function checkShares(shares: readonly Share[]): void {
  const twice = shares.find(({ mountPoint }, i) => shares.findIndex((one) => one.mountPoint === mountPoint) !== i);
  if (twice !== undefined) throw new UsageError(`--share: two directories would be ${twice.mountPoint}`, { hint: 'give one another path: DIRECTORY:/PATH' });
}

/** What a machine with these shares is booted with. */
export function shareOptions(shares: readonly Share[]): Pick<BootOptions, 'modules' | 'extraArgs'> {
  if (shares.length === 0) return {};
  return {
    modules: ['9p', '9pnet_virtio'],
    // security_model=none: owners and modes are the host's own, and what the guest may not do there it is refused.
    extraArgs: shares.flatMap(({ directory }, i) => [
      '-fsdev', `local,id=share${i},path=${directory.replaceAll(',', ',,')},security_model=none,multidevs=remap`,
      '-device', `virtio-9p-pci,id=rootport-share${i},fsdev=share${i},mount_tag=share${i}`,
    ]),
  };
}

/** Mount them. Without a cache: each side sees at once what the other wrote. */
export async function mountShares(guest: Guest, shares: readonly Share[]): Promise<void> {
  if (shares.length > 0) await guest.run('modprobe -a 9p 9pnet_virtio');
  for (const [i, { mountPoint }] of shares.entries()) {
    await guest.run(`mkdir -p ${shellWord(mountPoint)} && mount -t 9p -o trans=virtio,version=9p2000.L,cache=none,msize=${MSIZE} share${i} ${shellWord(mountPoint)}`);
  }
}

function isDirectory(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() === true;
}
