// The interrupt ledger of a function of the bare tier: messages go into guest RAM and are counted there, and there
// is no guest to handle them. RAM tells that a message came, not how often: two before a look are one, and of MSI's,
// which have one address for all, the last.
import { UsageError } from '../errors.ts';
import { COMMAND } from '../pci/config-space.ts';
import { MSIX_TABLE_ENTRY, decodeMsixEntry, readMsixCapability, readMsixPendings, type MsixCapability } from '../pci/msix.ts';
import { readMsiCapability, type MsiCapability } from '../pci/msi.ts';
import { messageName } from '../qtest/message-slots.ts';
import { MsixMessages, type MsiMessages } from '../qtest/messages.ts';
import type { FireWitness } from '../qemu/attachment.ts';
import type { BareFunction } from './bare-function.ts';
import type { TimedEvent } from './event-log.ts';
import { firesRecorded, firesSince, recordFires } from './interrupt-fires.ts';
import { ledgerOf, type Counts, type InterruptLedger, type InterruptMark, type InterruptReading, type ReadEntry } from './interrupt-ledger.ts';
import { checkMark, enablingOf, sentIn } from './interrupt-stretch.ts';
import { msiPending } from './interrupt-witnesses.ts';
import { startBareTrace, type InterruptTrace } from './interrupt-trace.ts';
import type { Plugged } from './plugged.ts';

const NO_GUEST = { missing: 'there is no operating system' };

interface BareReading extends InterruptReading {
  readonly capabilityOffset: number | undefined;
}

/** Remember the counts of a function, to count from here on. */
export async function markBareInterrupts(fn: BareFunction): Promise<InterruptMark> {
  const plugged = await pluggedOf(fn);
  if (plugged !== undefined) recordFires(plugged);
  return { bdf: fn.bdf, timeMs: performance.now(), reading: await readBare(fn, plugged), inFlight: new Map() };
}

/** The events of a stretch on the bare tier, as far as their times are known; for a drawing. */
export interface BareStretchEvents {
  readonly beganMs: number | undefined;
  /** By vector; undefined: not known. */
  readonly fires: readonly TimedEvent<number>[] | undefined;
  /** Messages found in RAM, by vector, and the looks between which each came; undefined: none goes there, or too many. */
  readonly messages: readonly { readonly vector: number; readonly afterMs: number; readonly byMs: number }[] | undefined;
}

/** The counts since a mark, or all that there are, and what happened when. UsageError for another function's mark. */
export async function readBareStretch(fn: BareFunction, since?: InterruptMark): Promise<{ ledger: InterruptLedger; events: BareStretchEvents }> {
  checkMark(fn.bdf, since);
  const plugged = await pluggedOf(fn);
  const now = await readBare(fn, plugged);
  const trace = await traceOf(fn);
  const before = since?.reading;
  const writes = before?.position === undefined ? undefined : trace.configWritesSince(before.position);
  const fires = plugged === undefined ? undefined : timesOf(plugged, before?.fires);
  const ledger = ledgerOf(before, now, {
    // When a message came that had not been taken is not known: the last look proves nothing of the last fire.
    bdf: fn.bdf, tier: 'bare', since: since === undefined ? 'plug' : 'mark', messages: undefined, inFlight: undefined, fires,
    ...enablingOf(now, before, writes, fn.bdf.slice(5)),
    sent: sentIn(now, since === undefined ? new Map<string, number>() : before?.trace, before),
  });
  return { ledger, events: { beganMs: since?.timeMs, fires, messages: foundIn(fn, now, before?.position?.messages ?? 0) } };
}

function foundIn({ messages }: BareFunction, { entries }: BareReading, position: number): BareStretchEvents['messages'] {
  const vectors = new Map(entries.flatMap(({ message }, vector) => (message === undefined ? [] : [[message, vector] as const])));
  return messages?.slots.foundSince(position)?.flatMap(({ name, afterMs, byMs }) => {
    const vector = vectors.get(name);
    return vector === undefined ? [] : [{ vector, afterMs, byMs }];
  });
}

/** COMMAND as it is, written back: the trace has a line of it, or tells nothing. */
function traceOf(fn: BareFunction): Promise<InterruptTrace> {
  return startBareTrace(fn.machine, async () => fn.configWrite(0x04, 2, await fn.configRead(0x04, 2)));
}

async function pluggedOf(fn: BareFunction): Promise<Plugged | undefined> {
  const { qdev_id: id } = await fn.vmm();
  return fn.machine.innards.plugged.find((one) => one.id === id);
}

async function readBare(fn: BareFunction, plugged: Plugged | undefined): Promise<BareReading> {
  const { messages } = fn;
  const msix = await readMsixCapability(fn);
  const msi = await readMsiCapability(fn);
  const mode = msix?.enabled === true ? 'msix' : msi?.enabled === true ? 'msi' : 'none';
  const vectors = mode === 'msi' ? msi?.vectorsEnabled ?? 0 : msix?.tableSize ?? 0;
  const entries = mode === 'msix' && msix !== undefined ? await readTable(fn, msix, messages)
    : mode === 'msi' && msi !== undefined ? msiEntries(msi, messages) : [];
  const pending = mode === 'msix' && msix !== undefined ? await readMsixPendings(fn, msix) : undefined;
  const seen = await messages?.slots.seen();
  const trace = await traceOf(fn);
  await trace.settle();
  const witness = plugged?.attachment.witness;
  return {
    mode, vectors, capabilityOffset: (mode === 'msi' ? msi : msix ?? msi)?.offset,
    allocated: entries.filter(({ message }) => message !== undefined).length,
    mastering: (await fn.configRead(0x04, 2) & COMMAND.BUS_MASTER) !== 0,
    functionMasked: mode === 'msix' ? msix?.functionMasked : undefined,
    requestVector: undefined,
    handled: NO_GUEST, probed: NO_GUEST,
    entries,
    pending: pending === undefined ? msiPending(mode === 'msi' ? msi : undefined) : Array.from({ length: vectors }, (_, vector) => pending.includes(vector)),
    sent: seen === undefined ? { missing: 'no message goes into guest RAM: neither enableMsix() nor enableMsi() was called' } : { counts: [] },
    trace: seen, position: { ...trace.position(), messages: messages?.slots.foundCount ?? 0 },
    fires: plugged === undefined ? undefined : firesRecorded(plugged),
    fired: firedOf(witness, vectors),
  };
}

/** Of queues the test has written which vector is whose: only a device that counts by vector tells. */
function timesOf(plugged: Plugged, position: number | undefined): TimedEvent<number>[] | undefined {
  return plugged.attachment.witness?.unit === 'vector' ? firesSince(plugged, position) : undefined;
}

function firedOf(witness: FireWitness | undefined, vectors: number): Counts {
  if (witness === undefined) return { missing: 'QEMU\'s own model is the device' };
  if (witness.unit === 'queue') return { missing: 'it counts by queue, and whose vector is whose the test has written' };
  const fired = witness.fired();
  return { counts: Array.from({ length: vectors }, (_, vector) => fired.get(vector) ?? 0) };
}

async function readTable(fn: BareFunction, { tableBar, tableOffset, tableSize }: MsixCapability, messages: MsixMessages | MsiMessages | undefined): Promise<ReadEntry[]> {
  const { address } = await fn.bar(tableBar);
  if (address === 0n) throw new UsageError(`BAR ${tableBar} of ${fn.bdf} has no address: its MSI-X table cannot be read`);
  const bytes = await fn.machine.qtest.read(address + BigInt(tableOffset), tableSize * MSIX_TABLE_ENTRY.sizeBytes);
  return Array.from({ length: tableSize }, (_, vector) => {
    const entry = decodeMsixEntry(bytes, vector * MSIX_TABLE_ENTRY.sizeBytes);
    const ours = messages instanceof MsixMessages && messages.slots.has(entry.address);
    return { masked: entry.masked, message: ours ? messageName(entry.address, entry.data) : undefined, cpu: undefined };
  });
}

/** The function puts a message's number into the low bits of the data. */
function msiEntries({ address, data, vectorsEnabled, mask }: MsiCapability, messages: MsixMessages | MsiMessages | undefined): ReadEntry[] {
  const ours = messages?.slots.has(address) === true;
  return Array.from({ length: vectorsEnabled }, (_, vector) => ({
    masked: ((mask ?? 0) >>> vector & 1) === 1, cpu: undefined,
    message: ours ? messageName(address, (data & ~(vectorsEnabled - 1)) | vector) : undefined,
  }));
}
