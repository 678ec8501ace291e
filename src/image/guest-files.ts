// A user's own files in the guest before its first process starts: a second archive behind the image, which
// the kernel unpacks after it (Linux: Documentation/driver-api/early-userspace/buffer-format.rst). It is the
// machine's own and not in the cache, which would keep every version of a file that is being worked on.
import { statSync } from 'node:fs';
import { copyFile, appendFile, readFile } from 'node:fs/promises';
import { join, posix } from 'node:path';
import { UsageError } from '../errors.ts';
import { CpioArchive } from './cpio.ts';
import { inTree } from './guest-packages.ts';

/** Absolute path in the guest to path of a regular file of the host. */
export type GuestFiles = Readonly<Record<string, string>>;

/** Mounted over by images/init, or its own. */
const NOT_FOR_FILES = ['/proc', '/sys', '/dev', '/run', '/tmp', '/init', '/etc/rootport', '/root/.ssh'];

/** @throws UsageError for a path in the guest that cannot be, and for a file of the host that is not there */
export function checkFiles(files: GuestFiles): void {
  for (const [path, from] of Object.entries(files)) {
    if (!path.startsWith('/') || path.endsWith('/') || posix.normalize(path) !== path || path.includes('\0')) {
      throw new UsageError(`files: ${JSON.stringify(path)} is not the absolute path of a file in the guest`, { hint: 'such as files: { \'/root/data.bin\': \'fixtures/data.bin\' }' });
    }
    const taken = NOT_FOR_FILES.find((one) => path === one || path.startsWith(`${one}/`));
    if (taken !== undefined) throw new UsageError(`files: ${path} cannot be set: ${taken} is the guest's own`, { hint: 'once it runs, guest.upload() puts files into /tmp and /run' });
    const there = typeof from === 'string' ? statSync(from, { throwIfNoEntry: false }) : undefined;
    if (there?.isFile() !== true) {
      throw new UsageError(`files: ${path} is to be ${JSON.stringify(from)}, which is ${there === undefined ? 'not there' : 'not a regular file'}`, { hint: 'give the path of a file of this host' });
    }
  }
}

/** The files as an archive to stand behind the image; undefined when there are none. Modes are 0644, or 0755 where the host's is executable. */
export async function filesArchive(files: GuestFiles): Promise<Buffer | undefined> {
  if (Object.keys(files).length === 0) return undefined;
  const archive = new CpioArchive();
  for (const [path, from] of Object.entries(files)) {
    archive.file(inTree(path), await readFile(from), (statSync(from).mode & 0o111) === 0 ? 0o644 : 0o755);
  }
  return archive.finish();
}

/** The initramfs with an archive behind it; a new one in `directory` unless there is none. */
export async function withArchive(initramfs: string, archive: Buffer | undefined, directory: string): Promise<string> {
  if (archive === undefined) return initramfs;
  const own = join(directory, 'initramfs.cpio');
  await copyFile(initramfs, own);
  await appendFile(own, archive);
  return own;
}
