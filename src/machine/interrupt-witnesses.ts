// How often each interrupt vector of a function was delivered: fired as the device counts, sent as the VMM's
// trace counts, handled as the guest counts, and what is still pending. Facts only: matchers judge them.
// Sources: PCI Local Bus 3.0, 6.8; Linux drivers/pci/msi (hwirq), virtio_pci_common.c (vector of a queue).
import { UsageError } from '../errors.ts';
import { ProbedFunction } from '../guest/probe-function.ts';
import { PROBE_DRIVER } from '../guest/probe-protocol.ts';
import { interruptOf, parseInterrupts } from '../guest/proc-interrupts.ts';
import { configOf } from '../pci/config-space.ts';
import { readMsiCapability } from '../pci/msi.ts';
import { decodeMsixEntry, MSIX_TABLE_ENTRY, readMsixCapability, type MsixCapability } from '../pci/msix.ts';
import { interruptTraceOf, messageKey, startInterruptTrace } from './interrupt-trace.ts';
import type { Machine } from './machine.ts';
import type { PciFunction } from './pci-function.ts';
import type { Plugged } from './plugged.ts';

/** One witness's count of every vector, or why it has none. */
export type Counts = { readonly counts: readonly number[] } | { readonly missing: string };

export interface InterruptWitnesses {
  readonly mode: 'msix' | 'msi' | 'none';
  /** Vectors that the guest allocated. */
  readonly allocated: number;
  /** Vectors that the function has. */
  readonly vectors: number;
  /** In the order of a message's way: the device, the VMM, the guest's kernel, its handler in our probe. */
  readonly fired: Counts;
  readonly sent: Counts;
  readonly handled: Counts;
  readonly probed: Counts;
  /** Pending bits by vector; undefined where the function has none that can be read. */
  readonly pending: readonly boolean[] | undefined;
}

/** Where the counts of a function stood. */
export interface InterruptMark {
  readonly bdf: string;
  readonly fired: readonly number[];
  readonly handled: readonly number[];
  readonly probed: readonly number[];
  /** Undefined: the trace did not run yet. */
  readonly trace: ReadonlyMap<string, number> | undefined;
  /** Whose message each vector's was. */
  readonly messages: readonly (string | undefined)[];
}

const plugs = new WeakMap<Plugged, InterruptMark['trace']>();

/** For `plug`: what the trace counted before the device was there; undefined when it did not run. */
export async function traceBefore(machine: Machine): Promise<InterruptMark['trace']> {
  return (await interruptTraceOf(machine))?.counts();
}

export function rememberPlug(plugged: Plugged, trace: InterruptMark['trace']): void {
  plugs.set(plugged, trace);
}

/** Remember the counts of a function, to count deliveries from here on. */
export async function markInterrupts(fn: PciFunction): Promise<InterruptMark> {
  await startInterruptTrace(fn.machine);
  const raw = await readRaw(fn);
  const numbers = (counts: Counts): readonly number[] => ('counts' in counts ? counts.counts : []);
  return {
    bdf: fn.bdf, fired: numbers(raw.fired), handled: numbers(raw.handled), probed: numbers(raw.probed),
    trace: raw.trace, messages: raw.messages,
  };
}

/** The counts since a mark, or since the device was plugged. */
export async function readInterrupts(fn: PciFunction, since?: InterruptMark): Promise<InterruptWitnesses> {
  if (since !== undefined && since.bdf !== fn.bdf) throw new UsageError(`the mark is of ${since.bdf}, and the function is ${fn.bdf}`);
  const raw = await readRaw(fn);
  return {
    mode: raw.mode, allocated: raw.allocated, vectors: raw.vectors, pending: raw.pending,
    fired: less(raw.fired, since?.fired),
    handled: less(raw.handled, since?.handled),
    probed: less(raw.probed, since?.probed),
    sent: sent(raw, since === undefined ? plugs.get(fn.plugged) : since.trace, since?.messages ?? []),
  };
}

interface Raw extends Omit<InterruptWitnesses, 'sent'> {
  readonly trace: ReadonlyMap<string, number> | undefined;
  readonly traceMissing: string | undefined;
  /** By vector: the message that its table entry says now; undefined when it cannot be told. */
  readonly messages: readonly (string | undefined)[];
}

/** Read against the stream, guest first: what is fired meanwhile cannot look handled before it was sent. */
async function readRaw(fn: PciFunction): Promise<Raw> {
  const { shell } = fn.machine.guest;
  const { stdout } = await shell.run(`ls ${fn.sysfs}/msi_irqs 2>/dev/null || :; echo --; cat /proc/interrupts`);
  const [list = '', interrupts = ''] = stdout.split('--\n');
  const irqs = list.split('\n').filter((line) => line !== '').map(Number).sort((a, b) => a - b);
  const config = configOf(await fn.configSpace());
  const msix = await readMsixCapability(config);
  const msi = await readMsiCapability(config);
  const mode = msix?.enabled === true ? 'msix' : msi?.enabled === true ? 'msi' : 'none';
  const vectors = mode === 'msi' ? msi?.vectorsEnabled ?? 0 : msix?.tableSize ?? 0;
  const probed = await fromProbe(fn, vectors);
  const table = msix !== undefined && mode === 'msix' ? await readTable(fn, msix) : undefined;
  const messages = table?.messages ?? (msi !== undefined && mode === 'msi' ? [messageOf(msi.address, msi.data)] : []);
  const trace = await interruptTraceOf(fn.machine);
  return {
    mode, vectors, allocated: irqs.length, probed, messages, pending: table?.pending,
    handled: irqs.length === 0 ? { missing: 'the guest has allocated no MSI or MSI-X vector' } : handledOf(interrupts, irqs, vectors),
    fired: firedOf(fn, irqs.length, vectors),
    trace: trace?.missing === undefined ? await trace?.counts() : undefined,
    traceMissing: trace === undefined ? 'the interrupt trace was not begun' : trace.missing,
  };
}

/** The vector of a Linux interrupt is in its chip's own number (6.1: PCI-MSI, the low 11 bits; 6.2 on: the number). */
function handledOf(interrupts: string, irqs: readonly number[], vectors: number): Counts {
  const table = parseInterrupts(interrupts);
  const counts = new Array<number>(vectors).fill(0);
  for (const [index, irq] of irqs.entries()) {
    const line = interruptOf(table, irq); // none: nobody requested it, so nobody handled it
    const vector = line?.hwirq === undefined ? index : line.hwirq & 0x7ff;
    counts[vector] = line?.total ?? 0;
  }
  return { counts };
}

/** virtio: queue i has vector i + 1 and config changes vector 0, or all queues share vector 1. */
function firedOf(fn: PciFunction, allocated: number, vectors: number): Counts {
  const witness = fn.fireWitness;
  if (witness === undefined) return { missing: 'QEMU\'s own model is the device' };
  const fired = witness.fired();
  const counts = new Array<number>(vectors).fill(0);
  if (witness.unit === 'queue' && allocated < 2) return { missing: `the driver has ${allocated} vectors: they cannot be told apart by queue` };
  for (const [index, times] of fired) {
    const vector = witness.unit === 'vector' ? index : index < 0 ? 0 : allocated === 2 ? 1 : index + 1;
    counts[vector] = (counts[vector] ?? 0) + times;
  }
  return { counts };
}

async function fromProbe(fn: PciFunction, vectors: number): Promise<Counts> {
  if (await fn.driver() !== PROBE_DRIVER) return { missing: `the driver is not ${PROBE_DRIVER}` };
  const counts = new Array<number>(vectors).fill(0);
  for (const { vector, count } of await new ProbedFunction(fn.machine.guest, fn.bdf, undefined).counters()) counts[vector] = count;
  return { counts };
}

/** Table and pending bits as QEMU's memory has them; undefined when the BAR is not decoded. */
async function readTable(fn: PciFunction, msix: MsixCapability): Promise<{ messages: (string | undefined)[]; pending: boolean[] } | undefined> {
  const { regions } = await fn.vmm();
  const baseOf = (bar: number): number => regions.find((one) => one.bar === bar)?.address ?? -1;
  if (baseOf(msix.tableBar) < 0 || baseOf(msix.pbaBar) < 0) return undefined;
  const entries = await readWords(fn.machine, baseOf(msix.tableBar) + msix.tableOffset, msix.tableSize * 4);
  const bits = await readWords(fn.machine, baseOf(msix.pbaBar) + msix.pbaOffset, Math.ceil(msix.tableSize / 32));
  const vectors = Array.from({ length: msix.tableSize }, (_, vector) => vector);
  return {
    messages: vectors.map((vector) => {
      const { address, data } = decodeMsixEntry(entries, vector * MSIX_TABLE_ENTRY.sizeBytes);
      return messageOf(address, data);
    }),
    pending: vectors.map((vector) => ((bits[vector >> 3] ?? 0) >> (vector & 7) & 1) === 1),
  };
}

async function readWords(machine: Machine, address: number, words: number): Promise<Uint8Array> {
  const text = await machine.qmp.hmp(`xp /${words}wx 0x${address.toString(16)}`);
  const values = [...text.matchAll(/ 0x([0-9a-f]{8})/g)].map(([, word]) => parseInt(word ?? '', 16));
  const bytes = new Uint8Array(words * 4);
  const view = new DataView(bytes.buffer);
  values.slice(0, words).forEach((value, index) => view.setUint32(index * 4, value, true));
  return bytes;
}

/** The message of an address and data (Intel SDM 3, 11.11); a remapped one does not say where it goes. */
function messageOf(address: bigint, data: number): string | undefined {
  const low = Number(address & 0xffffffffn);
  if ((low >>> 20) !== 0xfee || (low & 0x10) !== 0) return undefined;
  return messageKey((low >> 12) & 0xff, (low >> 2) & 1, data & 0xff);
}

function sent({ trace, traceMissing, messages, vectors, mode }: Raw, before: InterruptMark['trace'], earlier: InterruptMark['messages']): Counts {
  if (trace === undefined) return { missing: traceMissing ?? 'no trace' };
  if (before === undefined) return { missing: 'the trace began after the device was plugged; count from `await vm.mark(fn)`' };
  if (mode === 'none') return { missing: 'neither MSI nor MSI-X is enabled' };
  if (messages.every((message) => message === undefined)) return { missing: 'the table\'s messages are remapped, or its BAR is off' };
  return {
    counts: Array.from({ length: vectors }, (_, vector) => {
      // The guest may have moved it to another CPU since; what it said before may be another vector's by now.
      const past = earlier[vector];
      const keys = new Set([messages[vector], past !== undefined && messages.includes(past) ? undefined : past]);
      return [...keys].reduce((sum, key) => sum + (key === undefined ? 0 : (trace.get(key) ?? 0) - (before.get(key) ?? 0)), 0);
    }),
  };
}

function less(now: Counts, before: readonly number[] | undefined): Counts {
  if (!('counts' in now) || before === undefined) return now;
  const counts = now.counts.map((count, index) => count - (before[index] ?? 0));
  return counts.some((count) => count < 0) ? { missing: 'it began to count anew after the mark: were the vectors allocated again?' } : { counts };
}
