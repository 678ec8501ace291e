// The VMM's word on interrupts: QEMU's trace event `apic_deliver_irq`, one line for each message that its
// APIC delivers (QEMU: hw/intc/apic.c; enabled at run time over QMP). TCG only: KVM's own APIC traces
// nothing here. It counts by what a message says, its destination and vector; whose message that is,
// interrupt-witnesses.ts knows from the MSI-X tables.
import { QmpError } from '../errors.ts';
import type { Tally } from '../recorder.ts';
import type { Machine } from './machine.ts';

const EVENT = 'apic_deliver_irq';
const LINE = /^(?:\d+@\d+\.\d+:)?apic_deliver_irq dest (\d+) dest_mode (\d+) delivery_mode \d+ vector (\d+) /;

/** What tells one message from another, as the trace and an MSI address and data both have it. */
export function messageKey(destination: number, destinationMode: number, vector: number): string {
  return `${destination}/${destinationMode}/${vector}`;
}

export interface InterruptTrace {
  /** Why there is none. */
  readonly missing?: string;
  /** Messages delivered since the trace began, by messageKey, everything read that QEMU has written. */
  counts(): Promise<ReadonlyMap<string, number>>;
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

async function start(machine: Machine): Promise<InterruptTrace> {
  const { process, parts } = machine.innards;
  const none = (missing: string): InterruptTrace => ({ missing, counts: () => Promise.resolve(new Map()) });
  if (parts.accelerator.name === 'kvm') return none('under KVM QEMU does not see the interrupts');
  const counts = new Map<string, number>();
  const tallies = new Map<string, Tally>();
  const { recorder } = machine.innards.trouble;
  process.onLine((line) => {
    const match = LINE.exec(line);
    if (match === null) return false;
    const key = messageKey(Number(match[1]), Number(match[2]), Number(match[3]));
    counts.set(key, (counts.get(key) ?? 0) + 1);
    let tally = tallies.get(key);
    if (tally === undefined) tallies.set(key, tally = recorder.tally('interrupt', `VMM: vector 0x${Number(match[3]).toString(16)} to APIC destination ${match[1]}`));
    tally.hit(1, performance.now());
    return true;
  });
  try {
    await machine.qmp.execute('trace-event-set-state', { name: EVENT, enable: true });
  } catch (error) {
    if (!(error instanceof QmpError)) throw error;
    return none(`this QEMU cannot trace ${EVENT}: ${error.description}`);
  }
  const read = async (): Promise<ReadonlyMap<string, number>> => {
    // QEMU writes a line before it answers what is asked later; both are read in one turn of the loop.
    await machine.qmp.execute('query-name');
    await new Promise((resolve) => { setImmediate(resolve); });
    await new Promise((resolve) => { setImmediate(resolve); });
    return new Map(counts);
  };
  // A QEMU whose traces go elsewhere (a log file, another backend) writes none here; a guest that answers
  // over its network card takes interrupts.
  await machine.guest.shell.run(':');
  return (await read()).size > 0 ? { counts: read } : none(`${EVENT} is on, and this QEMU writes no line of it to stderr`);
}
