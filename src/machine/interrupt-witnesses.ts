// What counts a function's interrupts in a machine with a guest, read once: the device's back end, the VMM's trace
// and tables, the guest's kernel and its probe. What it comes to: interrupt-ledger.ts.
// Sources: PCI Local Bus 3.0, 6.8; Linux drivers/pci/msi (hwirq), virtio_pci_common.c (vector of a queue).
import { ProbedFunction } from '../guest/probe-function.ts';
import { PROBE_DRIVER } from '../guest/probe-protocol.ts';
import { interruptOf, parseInterrupts, type InterruptTable } from '../guest/proc-interrupts.ts';
import { COMMAND, configOf, type ConfigReader } from '../pci/config-space.ts';
import { readMsiCapability, type MsiCapability } from '../pci/msi.ts';
import { decodeMsixEntry, MSIX_TABLE_ENTRY, readMsixCapability, type MsixCapability } from '../pci/msix.ts';
import { readVirtioCapabilities, VIRTIO_PCI_CFG_TYPE } from '../pci/virtio-capabilities.ts';
import { firesRecorded } from './interrupt-fires.ts';
import type { Counts, InterruptReading, ReadEntry } from './interrupt-ledger.ts';
import { interruptTraceOf, messageKey } from './interrupt-trace.ts';
import type { Machine } from './machine.ts';
import type { PciFunction } from './pci-function.ts';

/** Of virtio_pci_common_cfg (virtio 1.2, 4.1.4.3). */
const NUM_QUEUES_OFFSET = 0x12;
/** Its only queue without a callback is the last: virtnet_find_vqs. */
const LAST_QUEUE_HAS_NO_VECTOR = new Set(['virtio_net']);

/** A reading, and what it takes to tell whose vector a fire was. */
export interface GuestReading extends InterruptReading {
  /** The offset of MSI-X's or MSI's capability in config space. */
  readonly capabilityOffset: number | undefined;
  vectorOf(index: number): number | undefined;
  /** The vector of each Linux interrupt number. */
  readonly irqs: ReadonlyMap<number, number>;
}

/**
 * Read against the stream, guest first and the device last: what is fired meanwhile cannot look handled before
 * it was sent, nor sent before it was fired.
 */
export async function readGuestInterrupts(fn: PciFunction): Promise<GuestReading> {
  const { shell } = fn.machine.guest;
  const { stdout } = await shell.run([
    `ls ${fn.sysfs}/msi_irqs 2>/dev/null; echo --; readlink ${fn.sysfs}/driver; readlink ${fn.sysfs}/virtio*/driver; echo --; cat /proc/interrupts`,
  ].join('\n'));
  const [list = '', drivers = '', interrupts = ''] = stdout.split('--\n');
  const [driver, virtioDriver] = drivers.split('\n').map((link) => link.split('/').pop());
  const irqs = list.split('\n').filter((line) => line !== '').map(Number).sort((a, b) => a - b);
  const handled = parseInterrupts(interrupts);
  const vectorOfIrq = vectorsOf(handled, irqs);
  const probed = driver === PROBE_DRIVER ? await fromProbe(fn) : { missing: `the driver is not ${PROBE_DRIVER}` };
  const config = configOf(await fn.configSpace());
  const msix = await readMsixCapability(config);
  const msi = await readMsiCapability(config);
  const mode = msix?.enabled === true ? 'msix' : msi?.enabled === true ? 'msi' : 'none';
  const vectors = mode === 'msi' ? msi?.vectorsEnabled ?? 0 : msix?.tableSize ?? 0;
  const table = msix !== undefined && mode === 'msix' ? await readTable(fn, msix) : undefined;
  const queueVector = await queueVectors(fn, config, { allocated: irqs.length, vectors, virtioDriver });
  const trace = await interruptTraceOf(fn.machine);
  if (trace?.missing === undefined) await trace?.settle();
  const position = trace?.position();
  const counts = trace === undefined || trace.missing !== undefined ? undefined : new Map(trace.counts);
  const mastering = (await config.configRead(0x04, 2) & COMMAND.BUS_MASTER) !== 0;
  return {
    mode, vectors, allocated: irqs.length, position, mastering,
    capabilityOffset: (mode === 'msi' ? msi : msix ?? msi)?.offset,
    functionMasked: mode === 'msix' ? msix?.functionMasked : undefined,
    probed: 'missing' in probed ? probed : { counts: spread(probed.counts, vectors) },
    entries: table?.entries ?? (msi !== undefined && mode === 'msi' ? msiEntries(msi) : []),
    pending: table?.pending ?? msiPending(mode === 'msi' ? msi : undefined),
    irqs: vectorOfIrq,
    handled: irqs.length === 0 ? { missing: 'the guest has allocated no MSI or MSI-X vector' } : handledOf(handled, vectorOfIrq, vectors),
    sent: sentWitness(trace, mode),
    trace: counts,
    requestVector: fn.fireWitness?.unit === 'queue' ? 0 : undefined,
    vectorOf: 'missing' in queueVector ? () => undefined : queueVector.of,
    fired: firedOf(fn, vectors, queueVector),
    fires: firesRecorded(fn.plugged),
  };
}

function sentWitness(trace: { readonly missing?: string } | undefined, mode: InterruptReading['mode']): Counts {
  if (trace === undefined) return { missing: 'the interrupt trace was not begun' };
  if (trace.missing !== undefined) return { missing: trace.missing };
  return mode === 'none' ? { missing: 'neither MSI nor MSI-X is enabled' } : { counts: [] };
}

/** The vector of a Linux interrupt is in its chip's own number (6.1: PCI-MSI, the low 11 bits; 6.2 on: the number). */
function vectorsOf(table: InterruptTable, irqs: readonly number[]): Map<number, number> {
  return new Map(irqs.map((irq, index) => {
    const hwirq = interruptOf(table, irq)?.hwirq;
    return [irq, hwirq === undefined ? index : hwirq & 0x7ff];
  }));
}

function handledOf(table: InterruptTable, irqs: ReadonlyMap<number, number>, vectors: number): InterruptReading['handled'] {
  const counts = Array.from({ length: vectors }, (): readonly number[] => []);
  // No line: nobody requested it, so nobody handled it.
  for (const [irq, vector] of irqs) counts[vector] = interruptOf(table, irq)?.counts ?? [];
  return { counts, cpus: table.cpus };
}

type QueueVectors = { readonly of: (index: number) => number | undefined } | { readonly missing: string };

/**
 * virtio: configuration changes have vector 0, and the queues either all vector 1, or each that has a callback
 * the next (vp_find_vqs_msix): queue i has vector i + 1 only if all before it have one.
 */
async function queueVectors(
  fn: PciFunction, config: ConfigReader, { allocated, vectors, virtioDriver }: { allocated: number; vectors: number; virtioDriver: string | undefined },
): Promise<QueueVectors> {
  if (fn.fireWitness?.unit !== 'queue') return { of: (index) => index };
  if (allocated < 2) return { missing: `the driver has ${allocated} vectors: they cannot be told apart by queue` };
  if (allocated === 2) return { of: (index) => (index < 0 ? 0 : 1) };
  const queues = await queueCount(fn, config) ?? vectors - 1;
  if (allocated <= queues && !LAST_QUEUE_HAS_NO_VECTOR.has(virtioDriver ?? '')) {
    return { missing: `the driver gave ${allocated - 1} of ${queues} queues a vector: which, only it knows` };
  }
  return { of: (index) => index + 1 };
}

/** num_queues of the common configuration, out of QEMU; undefined for a legacy device, or a BAR that is off. */
async function queueCount(fn: PciFunction, config: ConfigReader): Promise<number | undefined> {
  const common = (await readVirtioCapabilities(config)).find(({ cfgType }) => cfgType === VIRTIO_PCI_CFG_TYPE.COMMON_CFG);
  const base = (await fn.vmm()).regions.find(({ bar }) => bar === common?.bar)?.address ?? -1;
  if (common === undefined || base < 0) return undefined;
  const text = await fn.machine.qmp.hmp(`xp /1hx 0x${(BigInt(base) + common.structureOffset + BigInt(NUM_QUEUES_OFFSET)).toString(16)}`);
  const count = / 0x([0-9a-f]{4})/.exec(text)?.[1];
  return count === undefined ? undefined : parseInt(count, 16);
}

function firedOf(fn: PciFunction, vectors: number, queueVector: QueueVectors): Counts {
  const witness = fn.fireWitness;
  if (witness === undefined) return { missing: 'QEMU\'s own model is the device' };
  if ('missing' in queueVector) return queueVector;
  const counts = new Array<number>(vectors).fill(0);
  for (const [index, times] of witness.fired()) {
    const vector = queueVector.of(index);
    if (vector !== undefined) counts[vector] = (counts[vector] ?? 0) + times;
  }
  return { counts };
}

async function fromProbe(fn: PciFunction): Promise<{ counts: ReadonlyMap<number, number> }> {
  const counters = await new ProbedFunction(fn.machine.guest, fn.bdf, undefined).counters();
  return { counts: new Map(counters.map(({ vector, count }) => [vector, count])) };
}

function spread(counts: ReadonlyMap<number, number>, vectors: number): number[] {
  return Array.from({ length: vectors }, (_, vector) => counts.get(vector) ?? 0);
}

/** Table and pending bits as QEMU's memory has them; undefined when the BAR is not decoded. */
async function readTable(fn: PciFunction, msix: MsixCapability): Promise<{ entries: ReadEntry[]; pending: boolean[] } | undefined> {
  const { regions } = await fn.vmm();
  const baseOf = (bar: number): number => regions.find((one) => one.bar === bar)?.address ?? -1;
  if (baseOf(msix.tableBar) < 0 || baseOf(msix.pbaBar) < 0) return undefined;
  const bytes = await readWords(fn.machine, baseOf(msix.tableBar) + msix.tableOffset, msix.tableSize * 4);
  const bits = await readWords(fn.machine, baseOf(msix.pbaBar) + msix.pbaOffset, Math.ceil(msix.tableSize / 32));
  const vectors = Array.from({ length: msix.tableSize }, (_, vector) => vector);
  return {
    entries: vectors.map((vector) => {
      const { address, data, masked } = decodeMsixEntry(bytes, vector * MSIX_TABLE_ENTRY.sizeBytes);
      return { masked, ...destinationOf(address, data) };
    }),
    pending: vectors.map((vector) => ((bits[vector >> 3] ?? 0) >> (vector & 7) & 1) === 1),
  };
}

/** MSI's messages differ in the low bits of their data (PCI Local Bus 3.0, 6.8.1.6). */
function msiEntries({ address, data, vectorsEnabled, mask }: MsiCapability): ReadEntry[] {
  return Array.from({ length: vectorsEnabled }, (_, vector) => ({
    masked: ((mask ?? 0) >>> vector & 1) === 1, ...destinationOf(address, (data & ~(vectorsEnabled - 1)) | vector),
  }));
}

/** Undefined: the function does not send MSI. */
export function msiPending(msi: MsiCapability | undefined): InterruptReading['pending'] {
  const bits = msi?.pending;
  if (msi === undefined) return { missing: 'the PBA cannot be read' };
  return bits === undefined ? { missing: 'this MSI has no pending bits' }
    : Array.from({ length: msi.vectorsEnabled }, (_, vector) => (bits >>> vector & 1) === 1);
}

async function readWords(machine: Machine, address: number, words: number): Promise<Uint8Array> {
  const text = await machine.qmp.hmp(`xp /${words}wx 0x${address.toString(16)}`);
  const values = [...text.matchAll(/ 0x([0-9a-f]{8})/g)].map(([, word]) => parseInt(word ?? '', 16));
  const bytes = new Uint8Array(words * 4);
  const view = new DataView(bytes.buffer);
  values.slice(0, words).forEach((value, index) => view.setUint32(index * 4, value, true));
  return bytes;
}

/**
 * The message of an address and data (Intel SDM 3, 11.11); a remapped one does not say where it goes. Logical
 * destinations are a bit a CPU (the flat model, as Linux has it up to 8), physical ones the number.
 */
export function destinationOf(address: bigint, data: number): Pick<ReadEntry, 'message' | 'cpu'> {
  const low = Number(address & 0xffffffffn);
  if (address >> 32n !== 0n || (low >>> 20) !== 0xfee || (low & 0x10) !== 0) return { message: undefined, cpu: undefined };
  const destination = (low >> 12) & 0xff;
  const logical = (low >> 2) & 1;
  const bit = Math.log2(destination);
  return {
    message: messageKey(destination, logical, data & 0xff),
    cpu: logical === 0 ? destination : Number.isInteger(bit) ? bit : undefined,
  };
}
