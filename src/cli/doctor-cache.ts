// The doctor's look at the cache, and at what fills it: apt, a Debian mirror, disk space.
import { mkdir, mkdtemp, rm, statfs } from 'node:fs/promises';
import { join } from 'node:path';
import { cacheRoot, formatBytes, sizedEntries } from '../packages/index.ts';
import { hostMirror } from '../packages/mirror.ts';
import type { Check } from './doctor-check.ts';
import { findProgram } from './doctor-host.ts';

/** What a first run of one QEMU and one kernel takes, measured and rounded up: trees, builds, and .debs beside them. */
const FIRST_RUN_BYTES = 1.2e9;

const HAND_OVER_INSTEAD =
  'on a host without apt: ROOTPORT_QEMU=/path/to/qemu-system-x86_64 ROOTPORT_KERNEL=/path/to/built/kernel/tree ' +
  '(or an image, with ROOTPORT_KERNEL_MODULES and ROOTPORT_KERNEL_BUILD) ROOTPORT_BUSYBOX=... ROOTPORT_DROPBEAR=... ' +
  '(both static); or bring a filled cache (ROOTPORT_CACHE)';

/** @param uncached what is not in the cache yet; when that is nothing, apt is not needed */
export async function packageChecks(uncached: readonly string[]): Promise<Check[]> {
  const checks: Check[] = [];
  const lacking = uncached.length > 0 ? 'missing' : 'note';
  const why = uncached.length > 0 ? `needed to fetch ${uncached.join(', ')}` : 'not needed now: the cache has what is asked for';
  for (const [program, install] of [['apt-get', HAND_OVER_INSTEAD], ['dpkg-deb', 'apt-get install dpkg']] as const) {
    const path = findProgram(program);
    checks.push(path === undefined
      ? { name: program, state: lacking, detail: `not on the PATH (${why})`, mend: install }
      : { name: program, state: 'ok', detail: path });
  }
  try {
    const { main, security, keyring } = await hostMirror();
    checks.push({ name: 'Debian mirror', state: 'ok', detail: `${main}${security === undefined ? ', no security sources' : ''}` });
    checks.push(keyring === undefined
      ? { name: 'Debian keyring', state: 'note', detail: 'not in /usr/share/keyrings: apt\'s own trusted keys must do', mend: 'apt-get install debian-archive-keyring' }
      : { name: 'Debian keyring', state: 'ok', detail: keyring });
  } catch (error) {
    checks.push({ name: 'Debian mirror', state: lacking, detail: `${(error as Error).message.split('\n')[0] ?? ''} (${why})`, mend: 'set ROOTPORT_DEBIAN_MIRROR to a Debian mirror' });
  }
  return checks;
}

export async function cacheChecks(uncached: readonly string[]): Promise<Check[]> {
  const root = cacheRoot();
  try {
    await mkdir(root, { recursive: true });
    await rm(await mkdtemp(join(root, '.doctor-')), { recursive: true });
  } catch (error) {
    return [{ name: 'cache', state: 'missing', detail: `${root} cannot be written: ${(error as Error).message}`, mend: 'export ROOTPORT_CACHE=/a/directory/that/can/be/written' }];
  }
  const entries = await sizedEntries();
  const total = entries.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
  const { bavail, bsize } = await statfs(root);
  const freeBytes = bavail * bsize;
  const enough = uncached.length === 0 || freeBytes >= FIRST_RUN_BYTES;
  return [
    { name: 'cache', state: 'ok', detail: `${root}: ${entries.length} entries, ${formatBytes(total)}` },
    {
      name: 'disk space', state: enough ? 'ok' : 'missing', detail: `${formatBytes(freeBytes)} free for the cache`,
      ...(enough ? {} : { mend: `free ${formatBytes(FIRST_RUN_BYTES)}, or set ROOTPORT_CACHE to a larger disk` }),
    },
  ];
}
