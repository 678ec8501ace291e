// Plug and unplug on a bare machine: QMP on one side, the slot's registers on the other, BARs placed between.
import { DeadlineError, ProtocolError } from '../errors.ts';
import { findByQdevId, type QueryPciBus } from '../pci/query-pci.ts';
import { addDevice, removeBackends, type QemuSide } from './device-backends.ts';
import type { BareFunction } from './bare-function.ts';
import type { BareMachine } from './bare-machine.ts';
import type { Plugged } from './plugged.ts';
import type { Leftover, UnplugReport } from './unplug.ts';

const qemuSide = (machine: BareMachine): QemuSide => ({ qmp: machine.qmp, version: machine.innards.qemu.version, signal: machine.signal });

/** device_add, the slot's word that something came, power, BARs. */
export async function plugBare(machine: BareMachine, plugged: Plugged): Promise<BareFunction> {
  const { port, attachment } = plugged;
  const { timeoutMs, bus } = machine.innards;
  await machine.slots.events(port);
  await addDevice(qemuSide(machine), plugged, machine.placementOf(port), timeoutMs);
  const { inserted } = await machine.slots.events(port);
  if (!inserted) throw new ProtocolError(`${machine.slots.kind} hot-plug: ${port} does not tell that ${attachment.driver} came`);
  await machine.slots.powerOn(port);
  const bridge = machine.innards.preset.portDriver === undefined ? undefined : (await machine.functionOf(port)).node;
  await bus.enumeration.rescan(bridge);
  return machine.functionOf(plugged.device);
}

/** device_del: the slot asks for the device, and nothing else happens. */
export async function requestRemoval(machine: BareMachine, plugged: Plugged): Promise<void> {
  const { attachment, id, port } = plugged;
  plugged.checkMovable();
  await attachment.quiesce?.();
  await machine.slots.events(port);
  await machine.qmp.execute('device_del', { id });
}

/** The slot is ejected; resolves when QEMU has let the device go, with what is still seen of it. */
export async function ejectBare(machine: BareMachine, plugged: Plugged, timeoutMs: number): Promise<UnplugReport> {
  const { id, port, device } = plugged;
  const { node, bdf } = await machine.functionOf(device);
  const what = `DEVICE_DELETED of ${id} (${device.kind} in ${port})`;
  const deleted = machine.qmp.expectEvent('DEVICE_DELETED', (event) => event.data?.['device'] === id, { timeoutMs, what, signal: machine.signal });
  const beganAt = performance.now();
  await machine.slots.eject(port);
  await deleted.catch((error: unknown) => {
    throw error instanceof DeadlineError ? new DeadlineError(what, timeoutMs, { cause: error, hint: 'an eject without a device_del before it may be refused' }) : error;
  });
  const deletedAfterMs = performance.now() - beganAt;
  machine.innards.bus.enumeration.forget(node);
  await removeBackends(machine, plugged, timeoutMs);
  const leftovers: Leftover[] = [];
  if (findByQdevId(await machine.qmp.execute<QueryPciBus[]>('query-pci'), id) !== undefined) leftovers.push({ witness: 'vmm', where: 'query-pci', what: `${id} is still there` });
  const vendor = await machine.innards.bus.config.read(node.address, 0, 2);
  if (vendor !== 0xffff) leftovers.push({ witness: 'vmm', where: 'config space', what: `a function of vendor 0x${vendor.toString(16)} still answers at ${bdf}` });
  return { bdf, kind: device.kind, deletedAfterMs, driver: undefined, removeReturned: 'no guest', leftovers };
}
