// Which of a machine's ports a device goes into.
import { UsageError } from '../errors.ts';

/** The named port if it is free, else the first free one. UsageError when there is none. */
export function freePort(ports: readonly string[], plugged: readonly { readonly port: string }[], wanted: string | undefined): string {
  const taken = new Set(plugged.map((one) => one.port));
  if (wanted !== undefined) {
    if (!ports.includes(wanted)) throw new UsageError(`there is no port named ${JSON.stringify(wanted)}`, { hint: `the ports are ${ports.join(', ')}` });
    if (taken.has(wanted)) throw new UsageError(`the port ${wanted} is taken`, { hint: `free: ${ports.filter((one) => !taken.has(one)).join(', ') || 'none'}` });
    return wanted;
  }
  const free = ports.find((one) => !taken.has(one));
  if (free === undefined) throw new UsageError(`all ${ports.length} ports are taken`, { hint: 'boot with more: q35({ ports: n })' });
  return free;
}
