// Plug: device_add (device-backends.ts), and the wait until the guest has the function and its driver.
import { DeadlineError } from '../errors.ts';
import type { Placement } from '../qemu/command-line.ts';
import { addDevice } from './device-backends.ts';
import type { Machine } from './machine.ts';
import { PciFunction } from './pci-function.ts';
import type { Plugged } from './plugged.ts';
import type { BusPlace } from './ports.ts';

export interface PlugOptions {
  /**
   * Which port (`rp1`), or a place on a bus that `extraArgs` made, behind a bridge or a switch:
   * `{ bus: 'br1', addr: '0x3' }`. Default: the first free port.
   */
  readonly port?: string | BusPlace;
  /** QEMU's id of the device; default dev0, dev1, ... One that was used before is good again once its device is gone. */
  readonly id?: string;
  /** Wait for the guest to have it, and its driver. False: only for QEMU. Default true. */
  readonly waitForGuest?: boolean;
  readonly timeoutMs?: number;
}

export function plugDevice(machine: Machine, plugged: Plugged, place: Placement, options: PlugOptions): Promise<PciFunction> {
  const what = `plug ${plugged.device.kind} into ${plugged.port} (${plugged.id})`;
  return machine.innards.trouble.recorder.span('test', what, () => plug(machine, plugged, place, options));
}

async function plug(machine: Machine, plugged: Plugged, place: Placement, options: PlugOptions): Promise<PciFunction> {
  const { device } = plugged;
  const { guest, qmp } = machine;
  const timeoutMs = options.timeoutMs ?? guest.defaultTimeoutMs;
  const expected = device.guest;
  for (const module of expected?.modules ?? []) await guest.shell.run(`modprobe ${module}`);
  await addDevice({ qmp, version: machine.parts.qemu.version, signal: machine.signal }, plugged, place, timeoutMs);
  if (options.waitForGuest === false) return PciFunction.find(machine, plugged);
  const fn = await enumerated(machine, plugged, timeoutMs);
  if (expected?.ready !== undefined) {
    await guest.until(`[ -e ${fn.sysfs}/${expected.ready} ]`,
      `the guest's driver to be up on ${fn.bdf} (${expected.ready} in its sysfs directory)`, timeoutMs);
    if (plugged.attachment.steered?.() !== true) await probed(machine, fn, timeoutMs);
  }
  return fn;
}

/**
 * What a driver makes is in sysfs before its probe() is done: virtio_blk still reads the partition table then, and what a
 * test does next would befall those reads. A bind of a bound device waits for the device's lock, which probe() runs under,
 * and is then refused (Linux: drivers/base/bus.c, bind_store).
 */
async function probed({ guest }: Machine, { bdf, sysfs }: PciFunction, timeoutMs: number): Promise<void> {
  try {
    await guest.attempt(`driver=$(readlink -f ${sysfs}/driver) && echo ${bdf} >$driver/bind`, { timeoutMs });
  } catch (error) {
    if (!(error instanceof DeadlineError)) throw error;
    throw new DeadlineError(`probe() of the guest's driver to return on ${bdf}`, timeoutMs, { cause: error, hint: 'what does it wait for? a stack of its task is in /proc/<pid>/stack' });
  }
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
