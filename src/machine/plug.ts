// Plug: device_add (device-backends.ts), and the wait until the guest has the function and its driver.
import { DeadlineError, ProtocolError } from '../errors.ts';
import { awaitProbe } from '../guest/probe-end.ts';
import { configOf } from '../pci/config-space.ts';
import { PCIE_REGISTER, readPcieCapability } from '../pci/pcie.ts';
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
  await loadDrivers(machine, expected?.modules ?? []);
  await addDevice({ qmp, version: machine.parts.qemu.version, signal: machine.signal }, plugged, place, timeoutMs);
  if (options.waitForGuest === false) return PciFunction.find(machine, plugged);
  const fn = await enumerated(machine, plugged, timeoutMs);
  await driverUp(machine, fn, expected?.ready, timeoutMs);
  if (plugged.attachment.steered?.() !== true) await added(machine, fn, timeoutMs);
  return fn;
}

/** What a machine booted with has its drivers, too: nobody waits for them but this. */
export async function awaitColdPlugged(machine: Machine): Promise<void> {
  const expecting = machine.innards.plugged.filter(({ device, attachment }) => device.guest !== undefined && attachment.steered?.() !== true);
  await loadDrivers(machine, [...new Set(expecting.flatMap(({ device }) => device.guest?.modules ?? []))]);
  for (const one of expecting) await driverUp(machine, await PciFunction.find(machine, one), one.device.guest?.ready, machine.guest.defaultTimeoutMs);
}

async function driverUp({ guest }: Machine, { sysfs, bdf }: PciFunction, ready: string | undefined, timeoutMs: number): Promise<void> {
  if (ready === undefined) return;
  await guest.until(`[ -e ${sysfs}/${ready} ]`, `the guest's driver to be up on ${bdf} (${ready} in its sysfs directory)`, timeoutMs);
}

/** One question for all of them: a modprobe is a process of some 10 ms under TCG, also of what is loaded. */
async function loadDrivers({ guest }: Machine, modules: readonly string[]): Promise<void> {
  if (modules.length === 0) return;
  await guest.shell.run(`failed=; for module in ${modules.join(' ')}; do
    state=; read -r state 2>/dev/null </sys/module/$module/initstate; [ "$state" = live ] || modprobe $module || failed=1
  done; [ -z "$failed" ]`);
}

/**
 * A function and what its driver makes are in sysfs before the kernel is done with it: a function without a driver may yet
 * have no resources and match no driver, and virtio_blk's probe() still reads the partition table, so that what a test does
 * next would befall those reads. What a hot-plug driver does last tells: pciehp lets the power indicator shine (Linux
 * drivers/pci/hotplug/pciehp_ctrl.c, board_added), acpiphp says that the slot is on (acpiphp_glue.c, enable_slot).
 */
async function added(machine: Machine, fn: PciFunction, timeoutMs: number): Promise<void> {
  const { guest, innards: { preset, ports } } = machine;
  const what = `the guest to be done with adding ${fn.bdf}`;
  try {
    if (preset.hotplug === 'pciehp' && ports.includes(fn.port)) {
      return await guest.until(await indicatorShines(fn), what, timeoutMs);
    }
    if (await slotIsOn(fn)) return;
    // No slot, behind a bridge without hot-plug; or one that is not said to be on, for the scan of a bridge above found
    // the function first (acpiphp_rescan_slot). The kernel names it in /proc just before its driver may come.
    await guest.until(`[ -e /proc/bus/pci/${fn.bdf.slice(5).replace(':', '/')} ]`, what, timeoutMs);
    if (await slotIsOn(fn)) return;
    await guest.attempt(awaitProbe(fn.bdf), { timeoutMs });
  } catch (error) {
    if (!(error instanceof DeadlineError)) throw error;
    throw new DeadlineError(what, timeoutMs, {
      cause: error, hint: 'its driver\'s probe() has not returned: what does it wait for? a stack of its task is in /proc/<pid>/stack; waitForGuest: false does not wait for it',
    });
  }
}

/** Looked for some 30 ms; then the slot may be on all the same. */
async function slotIsOn({ machine: { guest }, bdf }: PciFunction): Promise<boolean> {
  const { stdout } = await guest.shell.run(`on=; looks=0; until [ "$on" = 1 -o $looks = 4 ]; do
    [ $looks = 0 ] || usleep 3000; looks=$((looks+1))
    for slot in /sys/bus/pci/slots/*; do read -r at <$slot/address && [ "$at" = ${bdf.split('.')[0] ?? ''} ] && read -r on <$slot/power; done 2>/dev/null
  done; echo "$on"`);
  return stdout.trim() === '1';
}

/** Of the slot that a function of a root port is in: the second byte of the port's Slot Control has the power indicator on. */
async function indicatorShines({ machine: { guest }, sysfs, port }: PciFunction): Promise<string> {
  const { offset, slot } = await readPcieCapability(configOf(await guest.readFile(`${sysfs}/../config`))) ?? {};
  if (offset === undefined || slot === undefined) throw new ProtocolError(`${port} has no slot`);
  return `[ $(( $(od -An -tu1 -j${offset + PCIE_REGISTER.SLOT_CONTROL + 1} -N1 ${sysfs}/../config) & 3 )) = 1 ]`;
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
