// The VMM's word on interrupts: QEMU's trace event `apic_deliver_irq`, one line for each message that its
// APIC delivers (QEMU: hw/intc/apic.c), and `pci_cfg_write` (hw/pci/pci_host.c), which tells whether MSI-X and bus
// mastering stayed on; enabled at run time over QMP. Messages under TCG only: KVM's own APIC traces nothing here.
// It counts by what a message says, its destination and vector; whose message that is, interrupt-witnesses.ts
// knows from the MSI-X tables.
import { QmpError } from '../errors.ts';
import type { QemuProcess } from '../qemu/process.ts';
import type { QmpClient } from '../qmp/client.ts';
import type { Tally } from '../recorder.ts';
import { EventLog, type TimedEvent } from './event-log.ts';
import type { Machine } from './machine.ts';
import { parseTraceLine, type ConfigWrite } from './trace-line.ts';
import type { Trouble } from './trouble.ts';

const MESSAGE = 'apic_deliver_irq';
const CONFIG_WRITE = 'pci_cfg_write';
/** What tells one message from another, as the trace and an MSI address and data both have it. */
export function messageKey(destination: number, destinationMode: number, vector: number): string {
  return `${destination}/${destinationMode}/${vector}`;
}

/** Of a messageKey, the CPU's vector. */
export function vectorOfMessage(key: string): number {
  return Number(key.slice(key.lastIndexOf('/') + 1));
}

/** Where the trace stands; for `InterruptTrace.eventsSince`. */
export interface TracePosition {
  readonly messages: number;
  readonly configWrites: number;
}

export interface InterruptTrace {
  /** Why there are no messages in it. */
  readonly missing?: string;
  /** Messages delivered since the trace began, by messageKey. Read everything that QEMU has written first: `settle`. */
  readonly counts: ReadonlyMap<string, number>;
  position(): TracePosition;
  /** Wait until all that QEMU has written is read. */
  settle(): Promise<void>;
  /** The messages (their keys) from a position on; undefined when there were too many to remember, or the host's clock was set. */
  messagesSince(position: TracePosition): TimedEvent<string>[] | undefined;
  /** The messages after a time, as far as they are remembered. */
  messagesAfter(timeMs: number): TimedEvent<string>[];
  /** The config writes from a position on; likewise, or when this QEMU tells of none. */
  configWritesSince(position: TracePosition): TimedEvent<ConfigWrite>[] | undefined;
}

/** A machine of either tier, as far as it is traced. */
export interface TracedMachine {
  readonly qmp: QmpClient;
  readonly innards: { readonly process: QemuProcess; readonly trouble: Trouble };
}

const traces = new WeakMap<object, Promise<InterruptTrace>>();

/** Begin to count on this machine; once, however often it is asked for. */
export function startInterruptTrace(machine: Machine): Promise<InterruptTrace> {
  const { innards } = machine;
  const running = traces.get(innards) ?? start(machine);
  traces.set(innards, running);
  return running;
}

/** The trace if it was begun. */
export function interruptTraceOf(machine: Machine): Promise<InterruptTrace> | undefined {
  return traces.get(machine.innards);
}

/** Begin to count on a machine without an operating system: `provoke` writes to config space, as proof that such lines come. */
export function startBareTrace(machine: TracedMachine, provoke: () => Promise<void>): Promise<InterruptTrace> {
  const { innards } = machine;
  const running = traces.get(innards) ?? startBare(machine, provoke);
  traces.set(innards, running);
  return running;
}

const NO_APIC = 'no message of the bare tier goes to the APIC';

async function startBare(machine: TracedMachine, provoke: () => Promise<void>): Promise<InterruptTrace> {
  const trace = listen(machine);
  const enabled = await enable(machine, CONFIG_WRITE) === undefined;
  await provoke();
  await trace.settle();
  const blind = !enabled || trace.position().configWrites === 0;
  return { ...trace, missing: NO_APIC, messagesSince: () => undefined, ...(blind ? { configWritesSince: () => undefined } : {}) };
}

async function start(machine: Machine): Promise<InterruptTrace> {
  const trace = listen(machine);
  const noConfigWrites = await enable(machine, CONFIG_WRITE) !== undefined;
  let missing = machine.innards.parts.accelerator.name === 'kvm' ? 'under KVM QEMU does not see the interrupts' : await enable(machine, MESSAGE);
  if (missing === undefined) {
    // A QEMU whose traces go elsewhere (a log file, another backend) writes none here; a guest that answers
    // over its network card takes interrupts.
    await machine.guest.shell.run(':');
    await trace.settle();
    if (trace.counts.size === 0) missing = `${MESSAGE} is on, and this QEMU writes no line of it to stderr`;
  }
  if (missing === undefined) return noConfigWrites ? { ...trace, configWritesSince: () => undefined } : trace;
  // Whether pci_cfg_write reaches us is known only from the messages, which go the same way.
  return { ...trace, missing, messagesSince: () => undefined, configWritesSince: () => undefined };
}

async function enable({ qmp }: TracedMachine, name: string): Promise<string | undefined> {
  try {
    await qmp.execute('trace-event-set-state', { name, enable: true });
    return undefined;
  } catch (error) {
    if (!(error instanceof QmpError)) throw error;
    return `this QEMU cannot trace ${name}: ${error.description}`;
  }
}

/** What QEMU writes of the two events, kept; they are enabled by the caller. */
function listen({ qmp, innards: { process, trouble } }: TracedMachine): InterruptTrace {
  const counts = new Map<string, number>();
  const messages = new EventLog<string>();
  const configWrites = new EventLog<ConfigWrite>();
  const clock = traceClock();
  const tallies = new Map<string, Tally>();
  const tallyOf = (key: string, vector: number, destination: number): Tally => {
    const known = tallies.get(key);
    if (known !== undefined) return known;
    const made = trouble.recorder.tally('interrupt', `VMM: vector 0x${vector.toString(16)} to APIC destination ${destination}`);
    tallies.set(key, made);
    return made;
  };
  process.onLine((line) => {
    const event = parseTraceLine(line);
    if (event === undefined) return false;
    const timeMs = clock.timeOf(event.seconds);
    if (event.configWrite !== undefined) {
      configWrites.add(timeMs, event.configWrite);
      return true;
    }
    const { destination, destinationMode, vector } = event.message;
    const key = messageKey(destination, destinationMode, vector);
    counts.set(key, (counts.get(key) ?? 0) + 1);
    messages.add(timeMs, key);
    tallyOf(key, vector, destination).hit(1, timeMs);
    return true;
  });
  const settle = async (): Promise<void> => {
    // QEMU writes a line before it answers what is asked later; both are read in one turn of the loop.
    await qmp.execute('query-name');
    await new Promise((resolve) => { setImmediate(resolve); });
    await new Promise((resolve) => { setImmediate(resolve); });
  };
  return {
    counts, settle,
    position: () => ({ messages: messages.count, configWrites: configWrites.count }),
    messagesSince: (position) => (clock.isSteady() ? messages.since(position.messages) : undefined),
    messagesAfter: (timeMs) => (clock.isSteady() ? messages.after(timeMs) : []),
    configWritesSince: (position) => (clock.isSteady() ? configWrites.since(position.configWrites) : undefined),
  };
}

interface TraceClock {
  /** From the seconds of a line to performance.now(); without them, when it was read. */
  timeOf(seconds: number | undefined): number;
  /** The time of day was not set since: its times are those of this process. */
  isSteady(): boolean;
}

function traceClock(): TraceClock {
  const offsetMs = clockOffsetMs();
  return {
    timeOf: (seconds) => {
      const now = performance.now();
      return seconds === undefined ? now : Math.min(seconds * 1000 - offsetMs, now);
    },
    isSteady: () => Math.abs(Date.now() - performance.now() - offsetMs) < 2,
  };
}

/** Time of day less performance.now(), in ms, to some 20 us: by the turn of a millisecond, the quickest seen of three. */
function clockOffsetMs(): number {
  const offsets = Array.from({ length: 3 }, () => {
    const began = Date.now();
    let now = began;
    while (now === began) now = Date.now();
    return now - performance.now();
  });
  return Math.max(...offsets);
}
