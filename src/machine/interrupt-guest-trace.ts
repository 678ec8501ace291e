// When the guest handled interrupts: the tracepoint irq_handler_entry in a tracefs instance of our own (Linux:
// include/trace/events/irq.h, Documentation/trace/ftrace.rst), on the guest's CLOCK_MONOTONIC. Which CPU, too.
// A kernel without tracefs tells nothing: /proc/interrupts has counts alone.
import { GuestCommandError } from '../errors.ts';
import type { GuestShell } from '../guest/kept-shell.ts';

const INSTANCE = '/sys/kernel/tracing/instances/rootport';
const EVENT = `${INSTANCE}/events/irq/irq_handler_entry`;
const KIB_A_CPU = 256;
/** Round trips by which the clocks are compared; the quickest counts. */
const CLOCK_PROBES = 12;

/** An interrupt as its handler was entered. */
export interface HandlerEntry {
  readonly irq: number;
  readonly cpu: number;
  /** The guest's CLOCK_MONOTONIC. */
  readonly guestMs: number;
}

/** From the guest's clock to performance.now(): add. */
export interface ClockDifference {
  readonly offsetMs: number;
  /** It is right to this much, either way. */
  readonly uncertaintyMs: number;
}

const armed = new WeakMap<GuestShell, { first: number; last: number } | 'none'>();

/** Trace these interrupts from now on, with those asked for before. False where the kernel cannot. */
export async function traceHandlers(shell: GuestShell, irqs: readonly number[]): Promise<boolean> {
  const before = armed.get(shell);
  if (before === 'none') return false;
  if (irqs.length === 0) return before !== undefined;
  const first = Math.min(before?.first ?? Infinity, ...irqs);
  const last = Math.max(before?.last ?? 0, ...irqs);
  if (before !== undefined && before.first === first && before.last === last) return true;
  try {
    await shell.run([
      `[ -d ${INSTANCE} ] || { [ -e /sys/kernel/tracing/trace ] || mount -t tracefs tracefs /sys/kernel/tracing; mkdir ${INSTANCE} && echo mono >${INSTANCE}/trace_clock && echo ${KIB_A_CPU} >${INSTANCE}/buffer_size_kb; }`,
      `[ -d ${EVENT} ] && echo 'irq>=${first}&&irq<=${last}' >${EVENT}/filter && echo 1 >${EVENT}/enable`,
    ].join('\n'));
    armed.set(shell, { first, last });
    return true;
  } catch (error) {
    if (!(error instanceof GuestCommandError)) throw error;
    armed.set(shell, 'none');
    return false;
  }
}

/** The entries that the buffer still has, oldest first. */
export async function readHandlers(shell: GuestShell): Promise<HandlerEntry[]> {
  const { stdout } = await shell.run(`grep irq_handler_entry: ${INSTANCE}/trace || :`);
  return parseHandlers(stdout);
}

/** Lines of the instance's `trace`: `          <idle>-0       [001] d.h1.     4.782601: irq_handler_entry: irq=29 name=virtio0-input.0` */
export function parseHandlers(text: string): HandlerEntry[] {
  return [...text.matchAll(/\[(\d+)\] \S+ +(\d+\.\d+): irq_handler_entry: irq=(\d+) /g)]
    .map(([, cpu, seconds, irq]) => ({ cpu: Number(cpu), guestMs: Number(seconds) * 1000, irq: Number(irq) }));
}

/** By marks that the guest writes into its trace between two looks at our clock; undefined when they are not found there. */
export async function compareClocks(shell: GuestShell): Promise<ClockDifference | undefined> {
  const sent: { name: string; before: number; after: number }[] = [];
  for (let probe = 0; probe < CLOCK_PROBES; probe += 1) {
    const name = `rootport-clock-${Math.round(performance.now() * 1000)}-${probe}`;
    const before = performance.now();
    await shell.run(`echo ${name} >${INSTANCE}/trace_marker`);
    sent.push({ name, before, after: performance.now() });
  }
  const { stdout } = await shell.run(`grep rootport-clock- ${INSTANCE}/trace || :`);
  const best = sent.reduce((a, b) => (b.after - b.before < a.after - a.before ? b : a));
  const seconds = new RegExp(` (\\d+\\.\\d+): [^\\n]*${best.name}`).exec(stdout)?.[1];
  if (seconds === undefined) return undefined;
  return { offsetMs: (best.before + best.after) / 2 - Number(seconds) * 1000, uncertaintyMs: (best.after - best.before) / 2 };
}
