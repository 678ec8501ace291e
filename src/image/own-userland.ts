// The guest's programs handed over, for a host without apt: a static busybox and a static dropbear.
import { existsSync, statSync } from 'node:fs';
import { readFile, symlink } from 'node:fs/promises';
import { join } from 'node:path';
import { execa } from 'execa';
import { UsageError } from '../errors.ts';
import type { Progress } from '../packages/index.ts';
import { addBusybox, applets } from './busybox.ts';
import { neededLibraries } from './elf.ts';
import type { Userland } from './userland.ts';

/** Static programs for this machine's architecture. */
export interface OwnUserland {
  /** With the applets of Debian's busybox-static; those that a guest cannot do without are checked. */
  readonly busybox: string;
  /** 2024.86 or newer: older ones lose commands that begin when others end. */
  readonly dropbear: string;
}

/** What images/init and the harness's own commands call; a test's commands may want more. */
const NEEDED_APPLETS = [
  'cat', 'chmod', 'depmod', 'dirname', 'dmesg', 'grep', 'ifconfig', 'init', 'insmod', 'ls', 'mkdir', 'modprobe', 'mount', 'readlink', 'rmmod',
  'sh', 'sleep', 'tail',
];
/** The first whose sessions survive a SIGCHLD between a channel's opening and its command. */
const SOUND_DROPBEAR = [2024, 86] as const;

/**
 * @throws UsageError for a program that is not there, is not static, does not run here or lacks what a guest
 * needs. A dropbear that loses commands is taken, and said so.
 */
export async function ownUserland(own: OwnUserland, progress: Progress): Promise<Userland> {
  for (const [name, path] of Object.entries(own) as [string, string][]) {
    if (!existsSync(path)) throw new UsageError(`the userland's ${name} ${path} does not exist`);
    const libraries = neededLibraries(await readFile(path));
    if (libraries.length > 0) {
      throw new UsageError(`the userland's ${name} ${path} is not static: it wants ${libraries.join(', ')}`, { hint: 'build it with -static' });
    }
  }
  await checkBusybox(own.busybox);
  await checkDropbear(own.dropbear, progress);
  return {
    key: JSON.stringify([own, Object.values(own).map((path: string) => [statSync(path).size, statSync(path).mtimeMs])]),
    tools: (tool) => [tool],
    async depmod(base, release) {
      await symlink('usr/lib', join(base, 'lib'));
      await execa(own.busybox, ['depmod', '-b', base, release]);
    },
    async addTo(archive) {
      await addBusybox(archive, own.busybox, new Set());
      archive.file('usr/sbin/dropbear', await readFile(own.dropbear), 0o755);
    },
  };
}

async function checkBusybox(path: string): Promise<void> {
  const has = await applets(path).catch((cause: Error) => {
    throw new UsageError(`the userland's busybox does not run here: ${cause.message}`, { cause });
  });
  const lacking = NEEDED_APPLETS.filter((one) => !has.includes(one));
  if (lacking.length > 0) {
    throw new UsageError(`the userland's busybox ${path} lacks ${lacking.join(', ')}`, { hint: 'Debian\'s busybox-static has all of them' });
  }
}

async function checkDropbear(path: string, progress: Progress): Promise<void> {
  const { all = '', shortMessage } = await execa(path, ['-V'], { reject: false, all: true });
  const version = /dropbear v?(\d+)\.(\d+)/i.exec(all);
  if (version === null) throw new UsageError(`the userland's dropbear ${path} -V did not answer as dropbear does: ${all || (shortMessage as string)}`);
  const [year, release] = [Number(version[1]), Number(version[2])];
  if (year < SOUND_DROPBEAR[0] || (year === SOUND_DROPBEAR[0] && release < SOUND_DROPBEAR[1])) {
    progress.note(`dropbear ${year}.${release} can lose a command that begins when another ends: take ${SOUND_DROPBEAR.join('.')} or newer`);
  }
}
