// Unplug, and what every side still shows of the function afterwards.
import { DeadlineError, QmpError, UsageError } from '../errors.ts';
import { findByQdevId, type QueryPciBus } from '../pci/query-pci.ts';
import { removeBackends } from './device-backends.ts';
import type { Machine } from './machine.ts';
import type { QmpClient } from '../qmp/client.ts';
import type { PciFunction } from './pci-function.ts';
import type { Plugged } from './plugged.ts';
import { armRemovalTrace, markTrace, readRemovals, removalBegan } from './removal-trace.ts';
import { pullCard } from './surprise.ts';

export interface UnplugOptions {
  readonly timeoutMs?: number;
  /**
   * Called when the guest has begun to remove the driver, before remove() returned: what happens here
   * happens in the middle of the unplug. A UsageError where the kernel has no kprobes to tell.
   */
  readonly whenRemoving?: () => void | Promise<void>;
  /**
   * What makes the device go, in place of QMP's device_del: the guest that cuts its slot's power, say, or a device_del
   * to a machine that stands still. It runs once everything is watched.
   */
  readonly request?: () => unknown;
  /**
   * Pull the card without a word before: the guest finds it gone, and the driver's remove() runs without its device.
   * UsageError where the machine has no native hot-plug (q35NativeHotplug has). Default false.
   */
  readonly surprise?: boolean;
}

/** What the three sides say of an unplug; `leftovers` is empty when nothing was left behind. */
export interface UnplugReport {
  readonly bdf: string;
  readonly kind: string;
  /** Milliseconds from device_del (or what took its place) to DEVICE_DELETED. */
  readonly deletedAfterMs: number;
  /** The driver that was bound before; undefined when there was none. */
  readonly driver: string | undefined;
  /** The driver's remove() returned. `'no driver'`: none was bound. `'no witness'`: this kernel has no kprobes. `'no guest'`: the bare tier. */
  readonly removeReturned: boolean | 'no driver' | 'no witness' | 'no guest';
  readonly leftovers: readonly Leftover[];
}

export interface Leftover {
  readonly witness: 'vmm' | 'guest' | 'device';
  /** Where: `/proc/interrupts`, `/proc/iomem`, `query-pci`. */
  readonly where: string;
  readonly what: string;
}

export function unplugDevice(machine: Machine, plugged: Plugged, fn: PciFunction, options: UnplugOptions): Promise<UnplugReport> {
  const what = `unplug ${plugged.device.kind} from ${plugged.port} (${plugged.id}, ${fn.bdf})`;
  return machine.innards.trouble.recorder.span('test', what, () => unplug(machine, plugged, fn, options));
}

/** An unplug that was asked for, and what was there before it. */
export interface BegunUnplug {
  readonly fn: PciFunction;
  readonly driver: string | undefined;
  readonly irqs: readonly number[];
  /** Where the guest's trace of removals stood; undefined where there is none. */
  readonly since: string | undefined;
  readonly beganAtMs: number;
}

async function unplug(machine: Machine, plugged: Plugged, fn: PciFunction, options: UnplugOptions): Promise<UnplugReport> {
  const { qmp, guest } = machine;
  const { id, attachment } = plugged;
  const timeoutMs = options.timeoutMs ?? guest.defaultTimeoutMs;
  plugged.checkMovable();
  const begun = await begin(machine, plugged, fn, options);
  plugged.begun = begun;
  const what = `DEVICE_DELETED of ${id} (${plugged.device.kind} in ${plugged.port})`;
  const over = new AbortController();
  const deleted = qmp.expectEvent('DEVICE_DELETED', (event) => event.data?.['device'] === id, {
    timeoutMs, what, signal: AbortSignal.any([machine.signal, over.signal]),
  });
  let gone = false;
  let slotAtRest: ((timeoutMs: number) => Promise<void>) | undefined;
  try {
    if (options.surprise === true) slotAtRest = await pullCard(machine, plugged.port);
    else if (options.request !== undefined) await options.request();
    else gone = await requestRemoval(qmp, id);
    if (!gone && options.whenRemoving !== undefined && begun.since !== undefined) {
      await guest.until(removalBegan(fn.bdf, begun.since), `the guest to begin to remove the driver of ${fn.bdf}`, timeoutMs);
      await options.whenRemoving();
    }
    if (!gone) await deleted;
  } catch (error) {
    throw explained(error, what, attachment.ailment?.());
  } finally {
    over.abort();
  }
  return concludeUnplug(machine, plugged, begun, { timeoutMs, slotAtRest });
}

async function begin({ guest }: Machine, plugged: Plugged, fn: PciFunction, { whenRemoving }: UnplugOptions): Promise<BegunUnplug> {
  const traced = await armRemovalTrace(guest.shell);
  if (!traced && whenRemoving !== undefined) {
    throw new UsageError('whenRemoving needs a kernel with CONFIG_KPROBE_EVENTS: nothing else tells when remove() begins');
  }
  const { begun: before } = plugged;
  const begun = {
    fn,
    // Asked for a second time, the guest may have done half of it.
    driver: await fn.driver() ?? before?.driver,
    irqs: [...new Set([...await fn.messageIrqs(), ...before?.irqs ?? []])],
    since: before === undefined ? traced ? await markTrace(guest.shell) : undefined : before.since,
  };
  await plugged.attachment.quiesce?.();
  return { ...begun, beganAtMs: performance.now() };
}

/** Once QEMU let go of it: take back what QEMU holds beside the device, wait for the guest, and see what is left. */
export async function concludeUnplug(
  machine: Machine, plugged: Plugged, { fn, driver, irqs, since, beganAtMs }: BegunUnplug,
  { timeoutMs, slotAtRest }: { timeoutMs: number; slotAtRest?: ((timeoutMs: number) => Promise<void>) | undefined },
): Promise<UnplugReport> {
  const { guest } = machine;
  const deletedAfterMs = (plugged.deletedAtMs ?? performance.now()) - beganAtMs;
  await plugged.release(() => removeBackends(machine, plugged, timeoutMs));
  await guest.until(`[ ! -e ${fn.sysfs} ]`, `the guest to drop ${fn.sysfs}`, timeoutMs);
  await slotAtRest?.(timeoutMs);
  const removals = since === undefined ? undefined : await readRemovals(guest.shell, since);
  return {
    bdf: fn.bdf,
    kind: plugged.device.kind,
    deletedAfterMs,
    driver,
    removeReturned: driver === undefined ? 'no driver' : removals?.some((one) => one.bdf === fn.bdf && one.returned) ?? 'no witness',
    leftovers: await leftovers(machine, plugged, fn, irqs),
  };
}

/**
 * device_del. True: there is no event to wait for, since an earlier unplug that was given up ended after all. With
 * native hot-plug QEMU refuses a second one while the first is under way: then that one is waited for.
 */
async function requestRemoval(qmp: QmpClient, id: string): Promise<boolean> {
  try {
    await qmp.execute('device_del', { id });
  } catch (error) {
    if (!(error instanceof QmpError)) throw error;
    if (error.errorClass === 'DeviceNotFound') return true;
    if (!error.description.includes('already in the process of unplug')) throw error;
  }
  return false;
}

/** The same with a hint: what is known to keep a device from going. */
function explained(error: unknown, what: string, ailment: string | undefined): unknown {
  if (error instanceof DeadlineError && error.waitedFor === what) {
    return new DeadlineError(what, error.timeoutMs, {
      hint: ailment ?? 'the guest did not let go of the device: its driver\'s remove() may hang, or its hot-plug is off (a refusal is silence)',
    });
  }
  return error;
}

async function leftovers(machine: Machine, plugged: Plugged, fn: PciFunction, irqs: readonly number[]): Promise<Leftover[]> {
  const found: Leftover[] = [];
  const buses = await machine.qmp.execute<QueryPciBus[]>('query-pci');
  if (findByQdevId(buses, plugged.id) !== undefined) found.push({ witness: 'vmm', where: 'query-pci', what: `${plugged.id} is still there` });
  const { shell } = machine.guest;
  // The interrupt descriptors outlive /proc/interrupts when a handler was freed but its vector was not.
  const nodes = [...irqs.map((irq) => `/proc/irq/${irq}`), `/sys/bus/pci/devices/${fn.bdf}`, `/sys/bus/pci/drivers/*/${fn.bdf}`, `/sys/kernel/debug/rootport_probe/${fn.bdf}`];
  const { stdout } = await shell.run(`grep . /proc/interrupts /proc/iomem /proc/ioports; echo ----; for node in ${nodes.join(' ')}; do [ ! -e $node ] || echo $node; done`);
  const [lines = '', there = ''] = stdout.split('----\n');
  for (const line of lines.split('\n')) {
    const [where = '', what = ''] = split(line);
    const irq = where === '/proc/interrupts' ? /^\s*(\d+):/.exec(what)?.[1] : undefined;
    const mine = where === '/proc/interrupts' ? irq !== undefined && (irqs.includes(Number(irq)) || what.includes(fn.bdf)) : what.includes(` ${fn.bdf}`);
    if (mine) found.push({ witness: 'guest', where, what: what.trim() });
  }
  for (const path of there.split('\n').filter(Boolean)) {
    found.push({ witness: 'guest', where: path, what: path.startsWith('/proc/irq/') ? 'the interrupt descriptor is still there' : 'the node is still there' });
  }
  return found;
}

/** `/proc/iomem:fe800000-fe8fffff : 0000:01:00.0` at the first colon. */
function split(line: string): [where: string, what: string] {
  const at = line.indexOf(':');
  return [line.slice(0, at), line.slice(at + 1)];
}
