// busybox in the guest's image: the program and a link for each of its applets.
import { readFile } from 'node:fs/promises';
import { execa } from 'execa';
import type { CpioArchive } from './cpio.ts';

/** `real`: names for which the archive brings a program of its own. */
export async function addBusybox(archive: CpioArchive, path: string, real: ReadonlySet<string>): Promise<void> {
  archive.file('usr/bin/busybox', await readFile(path), 0o755);
  for (const applet of await applets(path)) {
    if (applet !== 'busybox' && !real.has(applet)) archive.symlink(`usr/bin/${applet}`, 'busybox');
  }
}

/** What this busybox was built with. @throws ExecaError when it does not run here */
export async function applets(path: string): Promise<string[]> {
  const { stdout } = await execa(path, ['--list']);
  return stdout.split('\n').filter((one) => one !== '');
}
