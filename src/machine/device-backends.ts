// Handing one device to QEMU over QMP, with its chardevs and netdevs before it, and taking those back after it is
// gone. Not here: what the guest makes of it (plug.ts, unplug.ts, bare-hotplug.ts).
import pRetry from 'p-retry';
import { DeadlineError, QmpError } from '../errors.ts';
import { closeFd, createEventfd } from '../native/index.ts';
import type { Placement } from '../qemu/command-line.ts';
import { reconnectProperty, type QemuVersion } from '../qemu/versions.ts';
import type { QmpClient } from '../qmp/client.ts';
import type { Plugged } from './plugged.ts';

export interface QemuSide {
  readonly qmp: QmpClient;
  readonly version: QemuVersion;
  readonly signal: AbortSignal;
}

/** Chardevs, netdevs, device_add; resolves when the back end has handed everything over. */
export async function addDevice({ qmp, version, signal }: QemuSide, plugged: Plugged, place: Placement, timeoutMs: number): Promise<void> {
  const { attachment, id } = plugged;
  const { chardevs, netdevs = [] } = attachment;
  for (const { id: chardev, path, reconnect = false } of chardevs) {
    const again = reconnect && reconnectProperty(version);
    await qmp.execute('chardev-add', {
      id: chardev, backend: { type: 'socket', data: { addr: { type: 'unix', data: { path } }, server: false, ...again } },
    });
  }
  const bounded = { timeoutMs, signal };
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
  await attachment.ready?.({ timeoutMs, signal });
}

/** After DEVICE_DELETED: fill the descriptors that QEMU left handlers on, and remove netdevs and chardevs. */
export async function removeBackends({ qmp }: Pick<QemuSide, 'qmp'>, { attachment }: Plugged, timeoutMs: number): Promise<void> {
  if (attachment.danglingFds !== undefined) await fillDescriptors(qmp, attachment.danglingFds);
  for (const netdev of attachment.netdevs ?? []) await qmp.execute('netdev_del', { id: netdev.id });
  // With a netdev its chardev goes too (QEMU net/vhost-user.c, net_vhost_user_cleanup).
  const carried = new Set((attachment.netdevs ?? []).map(({ properties }) => properties['chardev']));
  for (const chardev of attachment.chardevs) if (!carried.has(chardev.id)) await removeChardev(qmp, chardev.id, timeoutMs);
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

/**
 * Give QEMU descriptors that never become ready, for the lowest numbers that are free: a handler that was
 * left on one of them then never runs. Seen on 10.0: without this, a vhost-user device whose eventfds get
 * such numbers ends QEMU with SIGSEGV.
 */
async function fillDescriptors(qmp: QmpClient, count: number): Promise<void> {
  const idle = createEventfd();
  try {
    for (let i = 0; i < count; i += 1) await qmp.execute('add-fd', {}, { fds: [idle] });
  } finally {
    closeFd(idle);
  }
}

/** The front end lets go of its chardev a moment after DEVICE_DELETED, and no event says when. */
function removeChardev(qmp: QmpClient, id: string, timeoutMs: number): Promise<unknown> {
  return pRetry(() => qmp.execute('chardev-remove', { id }), {
    minTimeout: 2, factor: 2, maxTimeout: 50, retries: Infinity, maxRetryTime: timeoutMs,
    shouldRetry: ({ error }) => error instanceof QmpError && error.description.includes('busy'),
  });
}
