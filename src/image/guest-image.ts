// The guest's initramfs: userland, kernel modules, init. Content-addressed in the cache, uncompressed
// (a compressed one boots slower than it is read).
import { createHash } from 'node:crypto';
import { mkdtemp, mkdir, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ensureEntry, packageFile, type Progress } from '../packages/index.ts';
import { CpioArchive } from './cpio.ts';
import type { GuestPackages } from './guest-packages.ts';
import type { Kernel } from './kernel.ts';
import { collectModules, type ModuleFile } from './modules.ts';
import { generateHostKey } from './ssh-keys.ts';
import type { Userland } from './userland.ts';

export interface GuestImage {
  readonly key: string;
  readonly initramfs: string;
  /** The guest's SSH host key, base64 wire form, to be pinned. */
  readonly hostKeyBase64: string;
}

/** Loaded by init before the network: what the harness itself needs. */
const BOOT_MODULES = ['virtio_pci', 'virtio_net'];
/** On board for modprobe: the drivers of the devices that rootport brings, and a file system. */
const ON_BOARD = ['virtio_blk', 'virtio_rng', 'virtio_input', 'evdev', 'virtio_console', 'vmw_vsock_virtio_transport', 'ext4', 'crc32c_generic'];
/** Not in every kernel: since Linux 6.15 or so what needs it brings it. */
const NOT_EVERYWHERE = ['crc32c_generic'];

export interface ImageContents {
  /** Further kernel modules to have on board, with their dependencies. */
  readonly modules: readonly string[];
  /** Programs over the userland's. */
  readonly packages: GuestPackages | undefined;
}

export async function ensureGuestImage(
  kernel: Kernel, userland: Userland, { modules, packages }: ImageContents, progress: Progress,
): Promise<GuestImage> {
  const init = await readFile(packageFile('images/init'));
  const collect = (): Promise<ModuleFile[]> => collectModules(kernel, [...BOOT_MODULES, ...ON_BOARD, ...modules], userland.tools, NOT_EVERYWHERE);
  const hash = createHash('sha256')
    .update(JSON.stringify(['image 2', kernel.key, userland.key, [...modules].sort(), BOOT_MODULES, ON_BOARD])).update(init);
  if (packages !== undefined) hash.update(packages.key);
  const changing = kernel.modulesChange ? await collect() : undefined;
  for (const { name, content } of changing ?? []) hash.update(`${name} ${content.length}\n`).update(content);
  const key = hash.digest('hex').slice(0, 16);
  const entry = await ensureEntry('images', key, progress, async (directory) => {
    progress.start(`guest image for Linux ${kernel.release}`);
    const boot = new Set((await collectModules(kernel, BOOT_MODULES, userland.tools)).map((one) => one.name));
    const all = changing ?? await collect();
    const hostKey = generateHostKey();
    const archive = new CpioArchive();
    skeleton(archive);
    archive.file('init', init, 0o755);
    await userland.addTo(archive);
    await packages?.addTo(archive);
    archive.file('etc/rootport/host_key', hostKey.dropbear, 0o600);
    archive.file('etc/rootport/modules', `${BOOT_MODULES.filter((name) => boot.has(name)).join(' ')}\n`);
    await addModules(archive, kernel, all, userland);
    await writeFile(join(directory, 'initramfs.cpio'), archive.finish());
    await writeFile(join(directory, 'host-key'), hostKey.publicBase64);
    progress.succeed(`guest image for Linux ${kernel.release}: ready`);
  });
  return {
    key,
    initramfs: join(entry, 'initramfs.cpio'),
    hostKeyBase64: await readFile(join(entry, 'host-key'), 'utf8'),
  };
}

function skeleton(archive: CpioArchive): void {
  for (const path of ['proc', 'sys', 'dev', 'run', 'tmp', 'mnt', 'usr/bin', 'usr/sbin', 'usr/lib', 'usr/lib64', 'var/log', 'etc']) {
    archive.directory(path);
  }
  for (const name of ['bin', 'sbin', 'lib', 'lib64']) archive.symlink(name, `usr/${name}`);
  archive.directory('root', 0o700);
  archive.directory('root/.ssh', 0o700);
  archive.characterDevice('dev/console', 5, 1);
  archive.characterDevice('dev/null', 1, 3, 0o666);
  archive.file('etc/passwd', 'root::0:0:root:/root:/bin/sh\n');
  archive.file('etc/group', 'root:x:0:\n');
  archive.file('etc/shells', '/bin/sh\n');
  archive.file('etc/nsswitch.conf', 'passwd: files\ngroup: files\n');
  archive.file('etc/profile', 'export PATH=/usr/sbin:/usr/bin:/sbin:/bin\n');
  archive.file('etc/fstab', [
    'proc /proc proc', 'sysfs /sys sysfs', 'devtmpfs /dev devtmpfs', 'tmpfs /run tmpfs', 'tmpfs /tmp tmpfs',
    'debugfs /sys/kernel/debug debugfs', 'tracefs /sys/kernel/tracing tracefs',
  ].map((line) => `${line} defaults 0 0\n`).join(''));
  archive.file('etc/inittab', '::ctrlaltdel:/bin/busybox poweroff -f\n');
}

/** The modules and what modprobe reads, made by depmod over just these. */
async function addModules(
  archive: CpioArchive, kernel: Kernel, modules: readonly ModuleFile[], userland: Userland,
): Promise<void> {
  const base = `usr/lib/modules/${kernel.release}`;
  const stage = await mkdtemp(join(tmpdir(), 'rootport-modules-'));
  try {
    await mkdir(join(stage, base), { recursive: true });
    for (const { name, content } of modules) {
      await writeFile(join(stage, base, `${name}.ko`), content);
      archive.file(`${base}/${name}.ko`, content);
    }
    for (const name of ['modules.builtin', 'modules.order', 'modules.builtin.modinfo']) {
      const list = await readFile(join(kernel.modulesDir ?? '', name)).catch(() => Buffer.alloc(0));
      await writeFile(join(stage, base, name), list);
    }
    await userland.depmod(stage, kernel.release);
    for (const name of await readdir(join(stage, base))) {
      if (/^modules\.(dep|alias|softdep|symbols|builtin)/.test(name)) archive.file(`${base}/${name}`, await readFile(join(stage, base, name)));
    }
  } finally {
    await rm(stage, { recursive: true, force: true });
  }
}
