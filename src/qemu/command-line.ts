// QEMU's command line, as a pure function of what the machine shall be.
import type { ChardevSpec, NetdevSpec, PropertyValue } from './attachment.ts';
import { portIds, type MachinePreset, type TcgThread } from './preset.ts';
import { reconnectProperty, type QemuVersion } from './versions.ts';

export interface ColdDevice {
  readonly id: string;
  readonly driver: string;
  readonly properties: Readonly<Record<string, PropertyValue>>;
  readonly chardevs: readonly ChardevSpec[];
  readonly netdevs?: readonly NetdevSpec[];
  readonly place: Placement;
}

/** The bus and, on a conventional bus, the slot. */
export interface Placement {
  readonly bus: string;
  readonly addr?: string;
}

export interface CommandLineSpec {
  /** The machine's name: the base name of its directory, by which the leash knows the process. */
  readonly name: string;
  readonly version: QemuVersion;
  readonly preset: MachinePreset;
  readonly ports: number;
  readonly accel: 'kvm' | 'tcg';
  readonly cpus: number;
  readonly tcgThread: TcgThread;
  readonly memoryMiB: number;
  /** A descriptor that the process inherits, of a memory file of that size: what a snapshot is made of. */
  readonly memoryFd: number;
  /** `'incoming'`: nothing is booted, the guest comes by migrate-incoming. */
  readonly start: 'incoming' | { readonly kernel: string; readonly initramfs: string; readonly append: readonly string[] };
  readonly devices: readonly ColdDevice[];
  /** Descriptors that the process inherits: connected sockets for QMP and the console. */
  readonly qmpFd: number;
  readonly consoleFd: number;
  /** SSH is forwarded from a free port of 127.0.0.1; false: no network card at all. */
  readonly network: boolean;
  readonly extraArgs: readonly string[];
}

/** A machine of the bare tier: no operating system, and qtest on a descriptor of its own. */
export interface BareCommandLineSpec extends Omit<CommandLineSpec, 'start' | 'memoryFd' | 'network'> {
  /** A file of 64 KiB that ends at the reset vector. */
  readonly firmware: string;
  readonly qtestFd: number;
}

/** The slot of pcie.0 or pci.0 where root ports, or on pc the hot-plugged devices, begin. */
const FIRST_PORT_SLOT = 0x10;
/** The harness's own network card: out of the way of what the user plugs. */
const NETWORK_SLOT = 0x1e;

/** QEMU's arguments, less the program itself. */
export function commandLine(spec: CommandLineSpec): string[] {
  return assemble(spec, {
    behaviour: ['-no-reboot'],
    // Not a memfd of QEMU's own: x-ignore-shared leaves only what has a name out of a snapshot's state (since 8.1).
    memory: `memory-backend-file,id=ram,size=${spec.memoryMiB}M,mem-path=/proc/self/fd/${spec.memoryFd}`,
    software: spec.start === 'incoming' ? ['-incoming', 'defer']
      : ['-kernel', spec.start.kernel, '-initrd', spec.start.initramfs, '-append', spec.start.append.join(' ')],
    // Another identity in every process: a guest that was restored takes new random numbers from it (drivers/virt/vmgenid.c).
    harness: ['-device', 'vmgenid,id=rootport-vmgenid,guid=auto', ...(spec.network ? network(spec.preset) : [])],
  });
}

/** The same for a machine without an operating system. Without -no-reboot, so that a test can reset it. */
export function bareCommandLine(spec: BareCommandLineSpec): string[] {
  // qtest logs every command to stderr unless told where to.
  const qtest = ['-chardev', `socket,id=qtest,fd=${spec.qtestFd}`, '-qtest', 'chardev:qtest', '-qtest-log', 'none'];
  return assemble(spec, {
    behaviour: [], memory: `memory-backend-memfd,id=ram,size=${spec.memoryMiB}M`, software: ['-bios', spec.firmware, ...qtest], harness: [],
  });
}

type Shared = Omit<CommandLineSpec, 'start' | 'memoryFd' | 'network'>;

/** What the kinds of machine differ in, as arguments. */
interface Differences {
  readonly behaviour: readonly string[];
  /** The object, less `share`. */
  readonly memory: string;
  readonly software: readonly string[];
  /** The harness's own devices. */
  readonly harness: readonly string[];
}

function assemble(spec: Shared, { behaviour, memory, software, harness }: Differences): string[] {
  const { preset } = spec;
  return [
    // Lines of the trace with the time of day in microseconds (machine/interrupt-trace.ts); QEMU's own messages get it too.
    '-msg', 'timestamp=on', '-name', spec.name, '-nodefaults', '-no-user-config', '-display', 'none', ...behaviour,
    '-machine', `${preset.machine},memory-backend=ram`, '-accel', accelerator(spec),
    '-cpu', cpuModel(spec.accel), '-smp', `${spec.cpus}`, '-m', `${spec.memoryMiB}M`,
    // Shared, so that a vhost-user back end can be plugged at any time.
    '-object', `${memory},share=on`,
    ...software,
    '-chardev', `socket,id=qmp,fd=${spec.qmpFd}`, '-mon', 'chardev=qmp,mode=control',
    '-chardev', `socket,id=console,fd=${spec.consoleFd}`, '-serial', 'chardev:console',
    ...(preset.globals ?? []).flatMap((one) => ['-global', one]),
    ...(preset.devices ?? []).flatMap((one) => ['-device', one]),
    ...harness,
    ...ports(spec),
    ...spec.devices.flatMap((one) => deviceArguments(one, spec.version)),
    ...spec.extraArgs,
  ];
}

/** A device with what must be there before it. */
export function deviceArguments(device: ColdDevice, version: QemuVersion): string[] {
  return [
    ...device.chardevs.flatMap(({ id, path, reconnect = false }) => ['-chardev', options('socket', { id, path, ...(reconnect && reconnectProperty(version)) })]),
    ...(device.netdevs ?? []).flatMap(({ type, id, properties }) => ['-netdev', options(type, { id, ...properties })]),
    '-device', deviceOption(device),
  ];
}

function network(preset: MachinePreset): string[] {
  return [
    '-netdev', 'user,id=rootport-net,restrict=on,hostfwd=tcp:127.0.0.1:0-:22',
    '-device', `virtio-net-pci,id=rootport-nic,netdev=rootport-net,romfile=,bus=${preset.bus},addr=0x${NETWORK_SLOT.toString(16)}`,
  ];
}

function ports({ preset, ports: count }: Shared): string[] {
  if (preset.portDriver === undefined) return [];
  return portIds(preset, count).flatMap((id, i) => [
    '-device',
    `${preset.portDriver},id=${id},bus=${preset.bus},chassis=${i + 1},slot=${i + 1},` +
      `addr=0x${(FIRST_PORT_SLOT + (i >> 3)).toString(16)}.${i & 7}${(i & 7) === 0 ? ',multifunction=on' : ''}`,
  ]);
}

/** Where a device that goes into the named socket is put. */
export function placement(preset: MachinePreset, port: string): Placement {
  if (preset.portDriver !== undefined) return { bus: port };
  const index = Number(port.replace('slot', '')) - 1;
  return { bus: preset.bus, addr: `0x${(FIRST_PORT_SLOT - 8 + index).toString(16)}` };
}

/** One CPU is one thread in any case. */
function accelerator({ accel, cpus, tcgThread }: Shared): string {
  return accel === 'kvm' || cpus === 1 ? accel : `tcg,thread=${tcgThread}`;
}

/** Under KVM the host's own; under TCG all that QEMU can do, rdrand among it: without, the kernel waits for entropy. */
function cpuModel(accel: 'kvm' | 'tcg'): string {
  return accel === 'kvm' ? 'host' : 'max';
}

function deviceOption({ driver, id, properties, place }: ColdDevice): string {
  const all = { id, ...properties, ...place };
  return Object.values(all).some((value) => typeof value === 'object') ? JSON.stringify({ driver, ...all }) : options(driver, all);
}

/** `first,key=value,...` */
function options(first: string, values: Readonly<Record<string, PropertyValue>>): string {
  return [first, ...Object.entries(values)
    .map(([key, value]) => `${key}=${typeof value === 'boolean' ? (value ? 'on' : 'off') : escape(String(value))}`)].join(',');
}

/** QemuOpts: a comma in a value is doubled. */
function escape(value: string): string {
  return value.replaceAll(',', ',,');
}
