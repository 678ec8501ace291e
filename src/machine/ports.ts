// Which of a machine's ports a device goes into, or which place on a bus of the user's own.
import { UsageError } from '../errors.ts';
import { placement, type Placement } from '../qemu/command-line.ts';
import type { MachinePreset } from '../qemu/preset.ts';

/** A place on a bus that is none of the machine's ports: behind a bridge or switch of `extraArgs`. */
export type BusPlace = Placement;

/** The port's name, by which it is taken, and where QEMU puts a device in it. */
export interface PortPlace {
  readonly port: string;
  readonly place: Placement;
}

/** The named port, or place, if it is free; else the first free port. UsageError when there is none. */
export function freePort(
  { preset, ports }: { readonly preset: MachinePreset; readonly ports: readonly string[] },
  plugged: readonly { readonly port: string }[], wanted: string | BusPlace | undefined,
): PortPlace {
  const taken = new Set(plugged.map((one) => one.port));
  if (typeof wanted === 'object') {
    const port = wanted.addr === undefined ? wanted.bus : `${wanted.bus}:${wanted.addr}`;
    if (taken.has(port)) throw new UsageError(`the place ${port} is taken`);
    return { port, place: wanted };
  }
  const port = freeName(ports, taken, wanted);
  return { port, place: placement(preset, port) };
}

function freeName(ports: readonly string[], taken: ReadonlySet<string>, wanted: string | undefined): string {
  if (wanted !== undefined) {
    if (!ports.includes(wanted)) throw new UsageError(`there is no port named ${JSON.stringify(wanted)}`, { hint: `the ports are ${ports.join(', ')}` });
    if (taken.has(wanted)) throw new UsageError(`the port ${wanted} is taken`, { hint: `free: ${ports.filter((one) => !taken.has(one)).join(', ') || 'none'}` });
    return wanted;
  }
  const free = ports.find((one) => !taken.has(one));
  if (free === undefined) throw new UsageError(`all ${ports.length} ports are taken`, { hint: 'boot with more: q35({ ports: n })' });
  return free;
}
