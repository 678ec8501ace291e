// The stretch of test that a ledger is of, in a machine with a guest: from a mark, or the plug, to now. What the
// VMM sent in it, when the device fired, and whether interrupts were on all the time.
import { UsageError } from '../errors.ts';
import { COMMAND } from '../pci/config-space.ts';
import type { TimedEvent } from './event-log.ts';
import { traceHandlers } from './interrupt-guest-trace.ts';
import { firesSince, recentFires, recordFires } from './interrupt-fires.ts';
import { ledgerOf, type Counts, type InterruptLedger, type InterruptMark, type InterruptReading, type Stretch } from './interrupt-ledger.ts';
import { interruptTraceOf, startInterruptTrace, vectorOfMessage, type InterruptTrace, type TracePosition } from './interrupt-trace.ts';
import { readGuestInterrupts, type GuestReading } from './interrupt-witnesses.ts';
import { vectorsAtCpus } from './local-apic.ts';
import type { Machine } from './machine.ts';
import type { PciFunction } from './pci-function.ts';
import type { Plugged } from './plugged.ts';
import type { ConfigWrite } from './trace-line.ts';

/** Where the trace stood at a plug; undefined when it did not run. */
export interface PlugMark {
  readonly trace: ReadonlyMap<string, number>;
  readonly position: TracePosition;
  readonly timeMs: number;
}

/** What was fired longer ago has come, or never will. */
const SETTLED_MS = 5000;
/** Looks of a mark at what is on its way, at most. */
const SETTLING_LOOKS = 4;
/** A CPU that takes no interrupt for so long has them turned off; in turns under TCG it has one each 100 ms (TCG_KICK_PERIOD). */
const TAKEN_MS = 1000;

const plugs = new WeakMap<Plugged, PlugMark>();

/** For `plug`: what the trace counted before the device was there; undefined when it did not run. */
export async function traceBefore(machine: Machine): Promise<PlugMark | undefined> {
  const trace = await interruptTraceOf(machine);
  if (trace === undefined) return undefined;
  if (trace.missing === undefined) await trace.settle();
  return { trace: new Map(trace.counts), position: trace.position(), timeMs: performance.now() };
}

/** Of a device that was attached just now. */
export function rememberPlug(plugged: Plugged, before: PlugMark | undefined): void {
  if (before === undefined) return;
  plugs.set(plugged, before);
  recordFires(plugged);
}

/** Remember the counts of a function, to count deliveries from here on. */
export async function markInterrupts(fn: PciFunction): Promise<InterruptMark> {
  const trace = await startInterruptTrace(fn.machine);
  recordFires(fn.plugged);
  const unknowable = trace.missing !== undefined || fn.fireWitness?.watch === undefined;
  let waiting: ReadonlySet<number> = new Set();
  /** What was fired until then, and was sent, has been taken. */
  let takenMs = -Infinity;
  for (let look = 1; ; look += 1) {
    const reading = await readGuestInterrupts(fn);
    const nowMs = performance.now();
    const fires = recentFires(fn.plugged, nowMs - SETTLED_MS);
    const unsent = inFlightAt(fn, reading, fires, trace);
    // What was fired while the guest was being read may have been counted there, or not.
    const late = fires.filter(({ timeMs }) => timeMs > takenMs);
    const settled = unsent.size === 0 && late.length === 0;
    if (!settled && !unknowable && look < SETTLING_LOOKS) {
      // The guest may answer on one CPU while another has yet to take what was sent.
      waiting = await takenByCpus(fn.machine, reading);
      takenMs = nowMs;
      continue;
    }
    await traceHandlers(fn.machine.guest.shell, [...reading.irqs.keys()]);
    // QEMU's main loop has turned dozens of times since: what it has not sent of the earlier fires by now is lost.
    return { bdf: fn.bdf, timeMs: performance.now(), reading, inFlight: unknowable ? unsent : notTaken(reading, waiting, late) };
  }
}

/** Wait until no message of the function's waits for its CPU; the vectors of those that a CPU does not take. */
async function takenByCpus(machine: Machine, { entries }: GuestReading): Promise<ReadonlySet<number>> {
  const mine = new Set(entries.flatMap(({ message }) => (message === undefined ? [] : [vectorOfMessage(message)])));
  for (const began = performance.now(); ;) {
    const waiting = new Set([...await vectorsAtCpus(machine)].filter((vector) => mine.has(vector)));
    if (waiting.size === 0 || performance.now() - began > TAKEN_MS) return waiting;
    // Nothing tells of it, and each look keeps the CPUs from running.
    await new Promise((resolve) => { setTimeout(resolve, 2); });
  }
}

/** What may be handled only after a reading: one delivery of each vector that a CPU does not take, for the APIC keeps no more, and the latest fires. */
function notTaken(reading: GuestReading, waiting: ReadonlySet<number>, late: readonly TimedEvent<number>[]): Map<number, number> {
  const times = new Map<number, number>();
  const add = (vector: number | undefined): void => { if (vector !== undefined) times.set(vector, (times.get(vector) ?? 0) + 1); };
  for (const [vector, { message }] of reading.entries.entries()) if (message !== undefined && waiting.has(vectorOfMessage(message))) add(vector);
  for (const { what } of late) add(reading.vectorOf(what));
  return times;
}

/** The recent fires that no message is known to have followed: each may still come. */
function inFlightAt(fn: PciFunction, reading: GuestReading, fires: readonly TimedEvent<number>[], trace: InterruptTrace): Map<number, number> {
  const inFlight = new Map<number, number>();
  if (reading.mode === 'none') return inFlight;
  if (fn.fireWitness?.watch === undefined) {
    // What was fired ever, for nobody knows when.
    if ('counts' in reading.fired) for (const [vector, times] of reading.fired.counts.entries()) if (times !== 0) inFlight.set(vector, Infinity);
    return inFlight;
  }
  const lastSent = new Map(trace.messagesAfter(performance.now() - 2 * SETTLED_MS).map(({ what, timeMs }) => [what, timeMs]));
  for (const { timeMs, what } of fires) {
    const vector = reading.vectorOf(what);
    if (vector === undefined || vector === reading.requestVector) continue;
    const message = reading.entries[vector]?.message;
    const sentMs = message === undefined ? undefined : lastSent.get(message);
    if (sentMs === undefined || sentMs < timeMs) inFlight.set(vector, (inFlight.get(vector) ?? 0) + 1);
  }
  return inFlight;
}

/** The events of a stretch, as far as their times are known; for a drawing. */
export interface StretchEvents {
  readonly beganMs: number | undefined;
  /** By vector. */
  readonly fires: readonly TimedEvent<number>[] | undefined;
  readonly messages: readonly TimedEvent<string>[] | undefined;
  readonly reading: GuestReading;
}

/** The counts since a mark, or since the device was plugged, and what happened when. UsageError for another function's mark. */
export async function readStretch(fn: PciFunction, since?: InterruptMark): Promise<{ ledger: InterruptLedger; events: StretchEvents }> {
  checkMark(fn.bdf, since);
  const now = await readGuestInterrupts(fn);
  const plug = plugs.get(fn.plugged);
  const before = since?.reading;
  const position = since === undefined ? plug?.position : before?.position;
  const trace = await interruptTraceOf(fn.machine);
  const recorded = since === undefined ? (plug === undefined ? undefined : 0) : before?.fires;
  const fires = firesSince(fn.plugged, recorded)?.flatMap(({ timeMs, what }) => {
    const vector = now.vectorOf(what);
    return vector === undefined ? [] : [{ timeMs, what: vector }];
  });
  const messages = position === undefined ? undefined : trace?.messagesSince(position);
  const enabling = enablingOf(now, before, position === undefined ? undefined : trace?.configWritesSince(position), fn.bdf.slice(5));
  const stretch: Stretch = {
    bdf: fn.bdf, tier: 'guest', since: since === undefined ? 'plug' : 'mark', fires, messages, inFlight: since?.inFlight, ...enabling,
    sent: sentIn(now, since === undefined ? plug?.trace : before?.trace, before),
  };
  return { ledger: ledgerOf(before, now, stretch), events: { beganMs: since?.timeMs ?? plug?.timeMs, fires, messages, reading: now } };
}

export function checkMark(bdf: string, since: InterruptMark | undefined): void {
  if (since !== undefined && since.bdf !== bdf) throw new UsageError(`the mark is of ${since.bdf}, and the function is ${bdf}`);
}

/** Of each vector's message since `trace`; undefined where it cannot be told. */
export function sentIn(now: InterruptReading, trace: ReadonlyMap<string, number> | undefined, before: InterruptReading | undefined): Counts {
  if ('missing' in now.sent || now.trace === undefined) return 'missing' in now.sent ? now.sent : { missing: 'no trace' };
  if (trace === undefined) return { missing: 'the trace began after the device was plugged; count from `await vm.mark(fn)`' };
  const messages = now.entries.map(({ message }) => message);
  if (messages.every((message) => message === undefined)) return { missing: 'where the table\'s messages go cannot be told: remapped, elsewhere, or its BAR is off' };
  return {
    counts: messages.map((message, vector) => {
      // The guest may have moved it to another CPU since; what it said before may be another vector's by now.
      const past = before?.entries[vector]?.message;
      const keys = new Set([message, past !== undefined && messages.includes(past) ? undefined : past].filter((key) => key !== undefined));
      return keys.size === 0 ? undefined : [...keys].reduce((sum, key) => sum + (now.trace?.get(key) ?? 0) - (trace.get(key) ?? 0), 0);
    }),
  };
}

/**
 * Whether messages were on all the time, from the writes to the function's config space: on means MSI-X (or
 * MSI) enabled and bus mastering allowed, and what is fired while it is off is lost (PCI Local Bus 3.0, 6.8.2).
 * Function Mask and a vector's own mask lose nothing. Counts began anew wherever it was turned on.
 */
export function enablingOf(
  now: Pick<GuestReading, 'mode' | 'mastering' | 'capabilityOffset'>, before: Pick<InterruptReading, 'mode' | 'mastering'> | undefined,
  writes: readonly TimedEvent<ConfigWrite>[] | undefined, slot: string,
): Pick<Stretch, 'interrupted' | 'enabledAtMs'> {
  const never = { enabledAtMs: Infinity };
  if (now.mode === 'none' || !now.mastering) return { ...never, interrupted: 'MSI-X (or MSI) or bus mastering is off' };
  if (writes === undefined) return { ...never, interrupted: 'whether MSI-X and bus mastering stayed on is not known' };
  // A function comes with both off (PCI Local Bus 3.0, 6.2.2).
  let enabled = (before?.mode ?? 'none') !== 'none';
  let mastering = before?.mastering ?? false;
  let live = enabled && mastering;
  let enabledAtMs = live ? -Infinity : Infinity;
  let turnedOn = 0;
  let turnedOff = false;
  for (const { timeMs, what: { slot: written, offset, value } } of writes) {
    if (written !== slot) continue;
    if (offset === 0x04) mastering = (value & COMMAND.BUS_MASTER) !== 0;
    const control = now.capabilityOffset === undefined ? undefined : controlWritten(now.capabilityOffset, offset, value, now.mode);
    if (control !== undefined) enabled = (control & (now.mode === 'msi' ? 0x1 : 0x8000)) !== 0;
    const is = enabled && mastering;
    if (is && !live) {
      turnedOn += 1;
      enabledAtMs = timeMs;
    }
    turnedOff ||= live && !is;
    live = is;
  }
  if (turnedOff || turnedOn > 1) return { ...never, interrupted: 'MSI-X (or MSI) or bus mastering was off meanwhile' };
  return { interrupted: live && (enabledAtMs === -Infinity || turnedOn === 1) ? undefined : 'when MSI-X (or MSI) was turned on was not seen', enabledAtMs };
}

/**
 * Message Control, out of a write that covers its enable bit: of 16 bits, of 32 from the capability's beginning (what
 * is written there narrower is read-only), or of the byte that MSI-X's bit is in. The trace tells no width.
 */
function controlWritten(capability: number, offset: number, value: number, mode: InterruptReading['mode']): number | undefined {
  if (offset === capability + 2) return value;
  if (offset === capability) return value >>> 16;
  return offset === capability + 3 && mode === 'msix' ? value << 8 : undefined;
}
