// By what a kept snapshot is known: everything that must be the same for its guest to go on elsewhere, and to be the
// guest that a boot would give. Left out is what differs from process to process (paths, ports, descriptors).
import { createHash } from 'node:crypto';
import { readFileSync, statSync } from 'node:fs';
import { cpus, release } from 'node:os';
import { packageFile } from '../packages/index.ts';
import { commandLine } from '../qemu/command-line.ts';
import type { MachinePlan } from './plan.ts';
import { SNAPSHOT_FORMAT } from './snapshot-directory.ts';

export interface SnapshotKey {
  /** Names the cache's entry. */
  readonly key: string;
  /** What it is the digest of; JSON. */
  readonly of: Readonly<Record<string, unknown>>;
}

export function snapshotKey({ parts: { qemu, kernel, image }, shape, kernelImage, archive, append }: MachinePlan): SnapshotKey {
  const of = {
    format: SNAPSHOT_FORMAT,
    rootport: (JSON.parse(readFileSync(packageFile('package.json'), 'utf8')) as { version: string }).version,
    qemu: [qemu.key, qemu.version.text, ...qemu.command.map(identity)],
    kernel: [kernel.key, identity(kernelImage)],
    // An image that was built again under its key has another SSH host key.
    image: [image.key, image.hostKeyBase64, archive === undefined ? '' : digest(archive)],
    append,
    machine: commandLine({ ...shape, name: '', start: 'incoming', memoryFd: 0, qmpFd: 0, consoleFd: 0 }),
    host: hostIdentity(shape.accel),
  };
  return { key: digest(JSON.stringify(of)), of };
}

/** A file by what changes when it is replaced; whatever else stands on a command line, as it is. */
function identity(word: string): string {
  const there = word.startsWith('/') ? statSync(word, { throwIfNoEntry: false }) : undefined;
  return there?.isFile() === true ? `${word} ${there.size} ${Math.floor(there.mtimeMs)}` : word;
}

/**
 * The CPU: under TCG too, whose guest has measured the host's time stamp counter. Under KVM also its microcode and the
 * host's kernel, which between them say what `-cpu host` is.
 */
function hostIdentity(accel: 'kvm' | 'tcg'): string[] {
  const model = cpus()[0]?.model ?? '';
  if (accel === 'tcg') return [model];
  const info = readFileSync('/proc/cpuinfo', 'utf8');
  return [model, ...['flags', 'microcode'].map((name) => new RegExp(`^${name}\\s*: (.*)$`, 'm').exec(info)?.[1] ?? ''), release()];
}

function digest(content: string | Buffer): string {
  return createHash('sha256').update(content).digest('hex').slice(0, 16);
}
