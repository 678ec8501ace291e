// What is known of a machine that was kept as a failure left it, beside its memory and its devices' state
// (snapshot-directory.ts): scene.json. What QEMU must be given again for both to fit, and what is not true of a machine
// that is made of them. The guest's kernel and image are in its memory: nothing of the host's is read for them.
import { readFileSync, statSync } from 'node:fs';
import { cpus } from 'node:os';
import { basename } from 'node:path';
import { ProtocolError, UsageError } from '../errors.ts';
import { packageFile } from '../packages/index.ts';
import type { FormerAttachment } from '../qemu/attachment.ts';
import { commandLine } from '../qemu/command-line.ts';
import type { Qemu } from '../qemu/find.ts';
import type { MachineShape } from './launch.ts';

export const SCENE_FORMAT = 1;
export const SCENE_FILE = 'scene.json';

/** A device that was plugged, or that the machine booted with. */
export interface SceneDevice extends FormerAttachment {
  readonly id: string;
  readonly port: string;
}

export interface SceneRecord {
  readonly format: number;
  /** The version that wrote it. */
  readonly rootport: string;
  /** The machine in one line. */
  readonly description: string;
  /** Why nothing was done with the machine any more; absent: it was well. */
  readonly trouble?: string;
  /** The console's line that says so: such a guest answers nobody any more. */
  readonly panic?: string;
  readonly qemu: { readonly choice: string; readonly name: string; readonly program: readonly string[] };
  /** QEMU's arguments, less what differs from process to process, and the devices. */
  readonly machine: readonly string[];
  /** The CPU under it. */
  readonly cpu: string;
  /** Without devices. */
  readonly shape: MachineShape;
  readonly devices: readonly SceneDevice[];
  /** PCI functions whose state QEMU does not save: QEMU's ids. */
  readonly stateless: readonly string[];
}

export function rootportVersion(): string {
  return (JSON.parse(readFileSync(packageFile('package.json'), 'utf8')) as { version: string }).version;
}

/** Of a QEMU, wherever its files are: its version, and the sizes of what is run. */
export function programOf({ version, command }: Pick<Qemu, 'version' | 'command'>): string[] {
  const files = command.map((word) => [basename(word), word.startsWith('/') ? statSync(word, { throwIfNoEntry: false }) : undefined] as const);
  return [version.text, ...files.flatMap(([name, there]) => (there?.isFile() === true ? [`${name} ${there.size}`] : []))];
}

export function machineOf(shape: MachineShape): string[] {
  return commandLine({ ...shape, devices: [], name: '', start: 'incoming', memoryFd: 0, qmpFd: 0, consoleFd: 0 });
}

export function hostCpu(): string {
  return cpus()[0]?.model ?? '';
}

/**
 * Refuse a machine that this QEMU, this rootport or this host would make another of.
 * @throws UsageError that names what differs
 */
export function checkScene(record: SceneRecord, qemu: Pick<Qemu, 'name' | 'version' | 'command'>): void {
  const [was, is] = [record.qemu.program, programOf(qemu)];
  if (JSON.stringify(was) !== JSON.stringify(is)) {
    throw new UsageError(`the machine was kept with ${record.qemu.name}, and this is ${was[0] === is[0] ? 'another build of it' : qemu.name}`, { hint: 'its state fits that QEMU alone: name it by --qemu' });
  }
  if (JSON.stringify(machineOf(record.shape)) !== JSON.stringify(record.machine)) {
    throw new UsageError(`the machine was kept with rootport ${record.rootport}, and rootport ${rootportVersion()} makes another of it`, { hint: 'use that version' });
  }
  if (record.shape.accel === 'kvm' && record.cpu !== hostCpu()) {
    throw new UsageError(`the machine was kept under KVM on ${record.cpu}, and this host has ${hostCpu()}`, { hint: 'its CPU state fits that host alone' });
  }
}

/** What is not true of the machine that is made of it, a line each. */
export function lacksOf({ devices, stateless, shape, cpu, trouble }: SceneRecord): string[] {
  const known = new Map(devices.map((one) => [one.id, one]));
  return [
    ...(trouble === undefined ? [] : [`it was kept after: ${trouble}`]),
    ...stateless.map((id) => `${nameOf(known.get(id), id)}: QEMU does not save its state, so it is as after a reset: no BAR, no interrupt, its registers at their defaults`),
    ...devices.filter(({ backEnd }) => backEnd !== undefined).map((one) => `the back end of ${nameOf(one, one.id)} is not here: its requests will hang`),
    ...(shape.accel === 'tcg' && cpu !== hostCpu() ? ['this host\'s CPU is another: the guest\'s clock may run at another speed'] : []),
  ];
}

function nameOf(device: SceneDevice | undefined, id: string): string {
  return device === undefined ? id : `${id} (${device.kind} in ${device.port})`;
}

/** @throws ProtocolError */
export function parseScene(text: string): SceneRecord {
  let value: Partial<Record<keyof SceneRecord, unknown>> | null;
  try {
    value = JSON.parse(text) as typeof value;
  } catch (cause) {
    throw new ProtocolError(`${SCENE_FILE} is not JSON`, { cause });
  }
  if (value?.format !== SCENE_FORMAT) throw new ProtocolError(`${SCENE_FILE} is of format ${JSON.stringify(value?.format) ?? 'none'}, and this rootport knows ${SCENE_FORMAT}`);
  const texts = (['rootport', 'description', 'cpu'] as const).filter((name) => typeof value[name] !== 'string');
  const lists = (['machine', 'devices', 'stateless'] as const).filter((name) => !Array.isArray(value[name]));
  const objects = (['qemu', 'shape'] as const).filter((name) => typeof value[name] !== 'object' || value[name] === null);
  const wrong = [...texts, ...lists, ...objects];
  if (wrong.length > 0) throw new ProtocolError(`${SCENE_FILE} has no good ${wrong.join(', ')}`);
  return value as unknown as SceneRecord;
}
