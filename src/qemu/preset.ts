// Machines as data: qemu/machines.json, and what a user says of one.
import { readFileSync } from 'node:fs';
import { UsageError } from '../errors.ts';
import { packageFile } from '../packages/index.ts';

export interface MachinePreset {
  readonly name: string;
  /** Value of -machine, less the accelerator and memory. */
  readonly machine: string;
  /** A root port's device model; without one, devices go straight onto `bus`. */
  readonly portDriver?: string;
  readonly bus: string;
  /** Who carries hot-plug events to the guest. */
  readonly hotplug: 'acpi' | 'pciehp';
  readonly globals?: readonly string[];
  readonly devices?: readonly string[];
  readonly append?: readonly string[];
}

/** QEMU's -accel tcg,thread=. */
export type TcgThread = 'single' | 'multi';

/** A machine as `boot` and `useMachine` take it; made by q35(), q35NativeHotplug(), q35Iommu(), pc(). */
export interface MachineType {
  readonly preset: string;
  /** Hot-pluggable sockets: root ports `rp1`... (pc: slots of pci.0). Default 4. */
  readonly ports?: number;
  readonly cpus?: number;
  /**
   * Under TCG, how several CPUs run: in turns in one `single` thread, or `multi`: in a thread each. The default
   * is multi, except with a QEMU in which that is racy (8.1 to 11.0: see defaultTcgThread).
   */
  readonly tcgThread?: TcgThread;
  readonly memoryMiB?: number;
}

type Options = Omit<MachineType, 'preset'>;
export const q35 = (options: Options = {}): MachineType => ({ preset: 'q35', ...options });
export const q35NativeHotplug = (options: Options = {}): MachineType => ({ preset: 'q35-native-hotplug', ...options });
export const q35Iommu = (options: Options = {}): MachineType => ({ preset: 'q35-iommu', ...options });
export const pc = (options: Options = {}): MachineType => ({ preset: 'pc', ...options });

export function findPreset(name: string): MachinePreset {
  const presets = JSON.parse(readFileSync(packageFile('qemu/machines.json'), 'utf8')) as Record<string, Omit<MachinePreset, 'name'>>;
  const preset = Object.hasOwn(presets, name) ? presets[name] : undefined;
  if (preset === undefined) {
    throw new UsageError(`there is no machine named ${JSON.stringify(name)}`, { hint: `the machines are ${Object.keys(presets).join(', ')}` });
  }
  return { name, ...preset };
}

/** Slots of a conventional bus from the first that is given out (8) to the harness's own network card (0x1e). */
const CONVENTIONAL_SLOTS_MAX = 0x1e - 8;

/** Ids of the machine's hot-pluggable sockets, in slot order. */
export function portIds(preset: MachinePreset, ports: number): string[] {
  if (preset.portDriver === undefined && ports > CONVENTIONAL_SLOTS_MAX) {
    throw new UsageError(`ports: ${ports} do not fit onto ${preset.bus}, which has slots for ${CONVENTIONAL_SLOTS_MAX}`, { hint: 'q35({ ports: n }) has up to 64' });
  }
  return Array.from({ length: ports }, (_, i) => (preset.portDriver === undefined ? `slot${i + 1}` : `rp${i + 1}`));
}
