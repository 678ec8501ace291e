// Which QEMU: the host's, one by path, or a package tree by version; and how it is run.
import { existsSync, readFileSync } from 'node:fs';
import { delimiter, join, resolve } from 'node:path';
import { execa } from 'execa';
import { EnvironmentError, UsageError } from '../errors.ts';
import { ensureTree, treeCommand, treeNames, type Progress } from '../packages/index.ts';
import { isAtLeast, knownVersions, type QemuVersion } from './versions.ts';

export interface Qemu {
  /** For messages and reports: `QEMU 10.0.2 (package tree)`. */
  readonly name: string;
  readonly version: QemuVersion;
  /** The program and what must stand before QEMU's own arguments (a loader, -L directories). */
  readonly command: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  /** What `resolveQemu` finds it by: a tree's version, or a path. */
  readonly choice: string;
  /** Identity, for cache keys. */
  readonly key: string;
  /** How to run another program of the same build (qemu-storage-daemon, qemu-img); undefined when it is not there. */
  companion(program: string): string[] | undefined;
}

const PROGRAM = 'qemu-system-x86_64';

export function qemuNames(): string[] {
  return treeNames().filter((name) => name.startsWith('qemu-')).map((name) => name.slice('qemu-'.length));
}

/** `'host'`, a tree's version (`'10.0'`), a path, or undefined: the host's if it is new enough, else a tree. */
export async function resolveQemu(choice: string | undefined, progress: Progress): Promise<Qemu> {
  if (choice === undefined) return resolveQemu(await defaultQemu(), progress);
  if (choice === 'host') {
    const path = onPath(PROGRAM);
    if (path === undefined) {
      throw new EnvironmentError(`${PROGRAM} is not on the PATH`, {
        hint: `install it (Debian: apt-get install qemu-system-x86), or ask for a tree: ${qemuNames().join(', ')}`,
      });
    }
    return byPath(path, 'the host\'s');
  }
  if (qemuNames().includes(choice)) return byTree(choice, progress);
  if (choice.includes('/')) {
    if (!existsSync(choice)) throw new UsageError(`there is no QEMU at ${resolve(choice)}`);
    return byPath(resolve(choice), 'by path');
  }
  throw new UsageError(`there is no QEMU named ${JSON.stringify(choice)}`, {
    hint: `give 'host', a path, or one of ${qemuNames().join(', ')}`,
  });
}

/** What is taken when nothing is asked for: `'host'`, or a tree's version. Downloads nothing. */
export async function defaultQemu(): Promise<string> {
  const { oldest, default: fallback } = knownVersions();
  const path = onPath(PROGRAM);
  const host = path === undefined ? undefined : await byPath(path, 'the host\'s').catch(() => undefined);
  return host !== undefined && isAtLeast(host.version, oldest) ? 'host' : fallback;
}

async function byPath(path: string, origin: string): Promise<Qemu> {
  const result = await execa(path, ['--version'], { reject: false });
  const text = /version (\d+)\.(\d+)[.\d]*/.exec(result.stdout ?? '');
  if (text === null) {
    throw new EnvironmentError(`${path} --version did not answer as QEMU does: ${result.stderr || result.stdout || result.shortMessage}`, {
      hint: `give another QEMU, or one of the trees ${qemuNames().join(', ')}`,
    });
  }
  const version = { major: Number(text[1]), minor: Number(text[2]), text: text[0].slice('version '.length) };
  return {
    name: `QEMU ${version.text} (${origin}, ${path})`,
    version, command: [path], env: {}, choice: path, key: `${path}-${version.text}`,
    companion: (program) => {
      const beside = join(path, '..', program);
      const found = existsSync(beside) ? beside : onPath(program);
      return found === undefined ? undefined : [found];
    },
  };
}

async function byTree(name: string, progress: Progress): Promise<Qemu> {
  const tree = await ensureTree(`qemu-${name}`, progress);
  const packages = readFileSync(join(tree, 'packages.txt'), 'utf8');
  const text = /^qemu-system-x86=(?:\d+:)?(\d+)\.(\d+)(?:\.\d+)?/m.exec(packages);
  const [major = 0, minor = 0] = [Number(text?.[1]), Number(text?.[2])];
  const full = /^qemu-system-x86=(?:\d+:)?(\S+)/m.exec(packages)?.[1] ?? name;
  return {
    name: `QEMU ${full} (package tree)`,
    version: { major, minor, text: full },
    command: [
      ...treeCommand(tree, `usr/bin/${PROGRAM}`),
      '-L', join(tree, 'usr/share/seabios'), '-L', join(tree, 'usr/share/qemu'),
    ],
    env: { QEMU_MODULE_DIR: join(tree, 'usr/lib/x86_64-linux-gnu/qemu') },
    choice: name, key: tree,
    companion: (program) => (existsSync(join(tree, 'usr/bin', program)) ? treeCommand(tree, `usr/bin/${program}`) : undefined),
  };
}

function onPath(program: string): string | undefined {
  return (process.env['PATH'] ?? '').split(delimiter).map((directory) => join(directory, program)).find(existsSync);
}
