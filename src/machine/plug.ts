// Plug: chardevs, device_add, and the wait until the guest has the function and its driver.
import { DeadlineError, QmpError } from '../errors.ts';
import type { Placement } from '../qemu/command-line.ts';
import { reconnectProperty } from '../qemu/versions.ts';
import type { Machine } from './machine.ts';
import { PciFunction } from './pci-function.ts';
import type { Plugged } from './plugged.ts';

export interface PlugOptions {
  /** Which port (`rp1`); default: the first free one. */
  readonly port?: string;
  /** Wait for the guest to have it, and its driver. False: only for QEMU. Default true. */
  readonly waitForGuest?: boolean;
  readonly timeoutMs?: number;
}

export async function plugDevice(
  machine: Machine, plugged: Plugged, place: Placement, options: PlugOptions,
): Promise<PciFunction> {
  const { attachment, id, device } = plugged;
  const { guest, qmp } = machine;
  const timeoutMs = options.timeoutMs ?? guest.defaultTimeoutMs;
  const expected = device.guest;
  for (const module of expected?.modules ?? []) await guest.shell.run(`modprobe ${module}`);
  const { chardevs, netdevs = [] } = attachment;
  for (const { id, path, reconnect = false } of chardevs) {
    const again = reconnect && reconnectProperty(machine.parts.qemu.version);
    await qmp.execute('chardev-add', {
      id, backend: { type: 'socket', data: { addr: { type: 'unix', data: { path } }, server: false, ...again } },
    });
  }
  const bounded = { timeoutMs, signal: machine.signal };
  let added = 0;
  try {
    for (const netdev of netdevs) {
      await qmp.execute('netdev_add', { type: netdev.type, id: netdev.id, ...netdev.properties }, bounded);
      added += 1;
    }
    await qmp.execute('device_add', { driver: attachment.driver, id, ...attachment.properties, ...place }, bounded);
  } catch (error) {
    // Nor would QEMU answer a chardev-remove.
    if (error instanceof DeadlineError) throw silent(plugged, added < netdevs.length ? 'netdev_add' : 'device_add', error);
    for (const netdev of netdevs.slice(0, added)) await qmp.execute('netdev_del', { id: netdev.id }).catch(() => undefined);
    for (const chardev of chardevs) await qmp.execute('chardev-remove', { id: chardev.id }).catch(() => undefined);
    throw unknownModel(error);
  }
  await attachment.ready?.({ timeoutMs, signal: machine.signal });
  if (options.waitForGuest === false) return PciFunction.find(machine, plugged);
  const fn = await enumerated(machine, plugged, timeoutMs);
  if (expected?.ready !== undefined) {
    await guest.until(`[ -e ${fn.sysfs}/${expected.ready} ]`,
      `the guest's driver to be up on ${fn.bdf} (${expected.ready} in its sysfs directory)`, timeoutMs);
  }
  return fn;
}

/** QEMU's own words for a device model that it lacks say nothing of what to do. */
function unknownModel(error: unknown): unknown {
  if (!(error instanceof QmpError) || !error.description.includes('is not a valid device model name')) return error;
  return new QmpError(error.command, error.errorClass, error.description, {
    sent: error.sent, received: error.received, cause: error,
    hint: 'this QEMU has no such device: another may (qemu: \'11.1\', or ROOTPORT_QEMU=11.1)',
  });
}

/** QEMU's main loop waits for a back end inside these: nothing of the machine runs meanwhile. */
function silent({ attachment, device, port }: Plugged, command: 'netdev_add' | 'device_add', error: DeadlineError): DeadlineError {
  return new DeadlineError(`QEMU's answer to ${command} of ${attachment.driver} (${device.kind} in ${port})`, error.timeoutMs, {
    cause: error,
    ...(attachment.chardevs.length === 0 ? {} : { hint: 'QEMU stands still until the device\'s back end answers it: does the back end hang?' }),
  });
}

/** A function behind a bridge has its bus number once the guest enumerated it: look until it is there. */
async function enumerated(machine: Machine, plugged: Plugged, timeoutMs: number): Promise<PciFunction> {
  const what = `the guest to find ${plugged.attachment.driver} in ${plugged.port}`;
  const fn = await PciFunction.find(machine, plugged);
  try {
    await machine.guest.until(`[ -e ${fn.sysfs}/driver_override ]`, what, timeoutMs);
  } catch (error) {
    if (error instanceof DeadlineError) throw new DeadlineError(what, timeoutMs, { cause: error, hint: 'does the machine\'s hot-plug work? see dmesg in the guest' });
    throw error;
  }
  return fn;
}
