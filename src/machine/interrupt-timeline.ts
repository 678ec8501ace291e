// The events of a function's ledger with their times, for a drawing: the device's fires as this process saw them,
// QEMU's trace by its own clock, the guest's handlers by the guest's. What has no times is said, not made up.
import type { BareStretchEvents } from './interrupt-bare.ts';
import type { InterruptMark } from './interrupt-ledger.ts';
import { compareClocks, readHandlers } from './interrupt-guest-trace.ts';
import type { StretchEvents } from './interrupt-stretch.ts';
import type { PciFunction } from './pci-function.ts';

export interface InterruptEvent {
  readonly lane: 'device' | 'VMM' | 'guest';
  readonly vector: number;
  /** Since the ledger began; of the guest's a little before, as far as the clocks are unsure. */
  readonly timeMs: number;
  readonly cpu?: number;
  readonly uncertaintyMs?: number;
}

export interface InterruptTimeline {
  readonly events: readonly InterruptEvent[];
  readonly notes: Readonly<Record<InterruptEvent['lane'], string>>;
}

/** Of a stretch that was read just now. */
export async function readTimeline(fn: PciFunction, since: InterruptMark | undefined, { beganMs, fires, messages, reading }: StretchEvents): Promise<InterruptTimeline> {
  const zeroMs = beganMs ?? performance.now();
  const vectors = new Map(reading.entries.flatMap(({ message }, vector) => (message === undefined ? [] : [[message, vector] as const])));
  const guest = await guestEvents(fn, since, reading.irqs);
  return {
    events: [
      ...fireEvents(fires, zeroMs),
      ...(messages ?? []).flatMap(({ what, timeMs }): InterruptEvent[] => {
        const vector = vectors.get(what);
        return vector === undefined ? [] : [{ lane: 'VMM', vector, timeMs: timeMs - zeroMs }];
      }),
      ...guest.events.map((event) => ({ ...event, timeMs: event.timeMs - zeroMs })),
    ],
    notes: {
      device: fireNote(fires),
      VMM: messages === undefined ? 'when it sent is not known: its trace did not run, or the clock was set'
        : 'messages as QEMU traced them, to some 0.1 ms; those of a vector that was moved are drawn where it goes now alone',
      guest: guest.note,
    },
  };
}

/** Of a stretch on the bare tier: a message is drawn between the looks of which the first did not find it. */
export function bareTimeline({ beganMs, fires, messages }: BareStretchEvents): InterruptTimeline {
  const zeroMs = beganMs ?? Math.min(performance.now(), ...(messages ?? []).map(({ byMs }) => byMs));
  return {
    events: [
      ...fireEvents(fires, zeroMs),
      ...(messages ?? []).map(({ vector, afterMs, byMs }): InterruptEvent => {
        const uncertaintyMs = (byMs - Math.max(afterMs, zeroMs)) / 2;
        return { lane: 'VMM', vector, timeMs: byMs - uncertaintyMs - zeroMs, uncertaintyMs };
      }),
    ],
    notes: {
      device: fireNote(fires),
      VMM: messages === undefined ? 'when it sent is not known: no message goes into guest RAM, or they were too many'
        : 'messages found in guest RAM, each between two looks at its slot; of several between them the last',
      guest: 'there is no operating system',
    },
  };
}

const fireEvents = (fires: StretchEvents['fires'], zeroMs: number): InterruptEvent[] =>
  (fires ?? []).map(({ what, timeMs }) => ({ lane: 'device', vector: what, timeMs: timeMs - zeroMs }));
const fireNote = (fires: StretchEvents['fires']): string => (fires === undefined ? 'when it fired is not known' : 'each fire, as this process made it');

async function guestEvents(fn: PciFunction, since: InterruptMark | undefined, irqs: ReadonlyMap<number, number>): Promise<{ events: InterruptEvent[]; note: string }> {
  const none = (why: string): { events: InterruptEvent[]; note: string } => ({ events: [], note: `only counts are known, not when: ${why}` });
  if (since === undefined) return none('its kernel is traced from `vm.mark(fn)` on');
  const { shell } = fn.machine.guest;
  const handlers = await readHandlers(shell);
  const clocks = await compareClocks(shell);
  if (clocks === undefined) return none('this kernel has no tracefs');
  const events = handlers.flatMap(({ irq, cpu, guestMs }): InterruptEvent[] => {
    const vector = irqs.get(irq);
    const timeMs = guestMs + clocks.offsetMs;
    return vector === undefined || timeMs < since.timeMs - clocks.uncertaintyMs ? [] : [{ lane: 'guest', vector, timeMs, cpu, uncertaintyMs: clocks.uncertaintyMs }];
  });
  return { events, note: `entries into handlers as the guest's kernel traced them; its clock compared with ours to ±${clocks.uncertaintyMs.toFixed(1)} ms` };
}
