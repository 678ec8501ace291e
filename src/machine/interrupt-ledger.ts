// The interrupt ledger of a function and a stretch of test: for each vector what the device fired, what the VMM
// sent, what the guest handled and on which CPU, what is pending and masked. Facts only: matchers judge them.
// Where they come from: interrupt-witnesses.ts (a guest), interrupt-bare.ts (the bare tier).
import type { VectorCounts } from '../pci/vector-counts.ts';
import type { TimedEvent } from './event-log.ts';
import type { TracePosition } from './interrupt-trace.ts';

/** Who counts, in the order of a message's way: the device, the VMM, the guest's kernel, its handler in our probe. */
export const LEDGER_WITNESSES = ['fired', 'sent', 'handled', 'probed'] as const;
export type LedgerWitness = (typeof LEDGER_WITNESSES)[number];

export interface LedgerRow extends VectorCounts {
  /** It was pending when the ledger began; false without a mark. */
  readonly wasPending: boolean | undefined;
  /** As many may have been fired before the ledger began and come in it; Infinity: not known. */
  readonly inFlight: number;
  /** Its message is known to have been the same all the time: what the VMM sent of it is all that was sent. */
  readonly sameMessage: boolean;
  /** Another vector, with the same message: what was sent cannot be told apart. */
  readonly sharesMessageWith: number | undefined;
  /** Times on this process's performance.now(); undefined: none, or not known. */
  readonly lastFiredMs: number | undefined;
  readonly lastSentMs: number | undefined;
}

export interface InterruptLedger {
  /** `0000:01:00.0` */
  readonly bdf: string;
  /** `'bare'`: there is no guest; `sent` is read from guest RAM, and tells that a message came, not how often. */
  readonly tier: 'guest' | 'bare';
  readonly mode: 'msix' | 'msi' | 'none';
  readonly since: 'mark' | 'plug';
  /** Vectors that the guest allocated (bare: those whose message is known). */
  readonly allocated: number;
  /** Vectors that the function has. */
  readonly vectors: number;
  readonly functionMasked: boolean | undefined;
  /** Why a witness has no counts. */
  readonly missing: Readonly<Partial<Record<LedgerWitness | 'pending', string>>>;
  /** This vector's fires are the device's requests to QEMU (virtio: configuration changes), which interrupts as it sees fit. */
  readonly requestVector: number | undefined;
  /** Why fires may have been lost, or counts begun anew, as they should: MSI-X or bus mastering was off. */
  readonly interrupted: string | undefined;
  /** Fires before it are lost, as they should be: messages and bus mastering were off. -Infinity: on from the beginning. */
  readonly enabledAtMs: number;
  /** By vector, all of them. */
  readonly rows: readonly LedgerRow[];
}

/** Where the counts of a function stood. */
export interface InterruptMark {
  readonly bdf: string;
  /** On this process's performance.now(). */
  readonly timeMs: number;
  readonly reading: InterruptReading;
  /** By vector: fires before the mark whose deliveries may come after it. */
  readonly inFlight: ReadonlyMap<number, number>;
}

/** One look at everything that counts. */
export interface InterruptReading {
  readonly mode: InterruptLedger['mode'];
  /** Bus mastering is allowed: messages get through. */
  readonly mastering: boolean;
  readonly allocated: number;
  readonly vectors: number;
  readonly functionMasked: boolean | undefined;
  readonly requestVector: number | undefined;
  readonly fired: Counts;
  readonly sent: Counts;
  /** By vector, then by place in `cpus`. */
  readonly handled: { readonly counts: readonly (readonly number[])[]; readonly cpus: readonly number[] } | { readonly missing: string };
  readonly probed: Counts;
  readonly pending: readonly boolean[] | { readonly missing: string };
  readonly entries: readonly ReadEntry[];
  /** Messages by their keys; undefined: the trace did not run. */
  readonly trace: ReadonlyMap<string, number> | undefined;
  readonly position: TracePosition | undefined;
  readonly fires: number | undefined;
}

/** One witness's count of every vector (undefined: not of this one), or why it has none. */
export type Counts = { readonly counts: readonly (number | undefined)[] } | { readonly missing: string };

/** An entry of the table as it was read. */
export interface ReadEntry {
  readonly masked: boolean;
  /** Its message as the trace spells it; undefined when it cannot be told. */
  readonly message: string | undefined;
  readonly cpu: number | undefined;
}

/** What else is known of the stretch between two readings. */
export interface Stretch {
  readonly bdf: string;
  readonly tier: InterruptLedger['tier'];
  readonly since: InterruptLedger['since'];
  readonly sent: Counts;
  readonly interrupted: string | undefined;
  readonly enabledAtMs: number;
  readonly inFlight: ReadonlyMap<number, number> | undefined;
  /** By vector; undefined: not known. */
  readonly fires: readonly TimedEvent<number>[] | undefined;
  /** The messages' keys. */
  readonly messages: readonly TimedEvent<string>[] | undefined;
}

/** The ledger between two readings; `before` undefined: since the plug, when nothing was counted. */
export function ledgerOf(before: InterruptReading | undefined, now: InterruptReading, stretch: Stretch): InterruptLedger {
  const fired: Counts = before !== undefined && 'missing' in before.fired && 'counts' in now.fired
    ? { missing: `at the mark it was not known: ${before.fired.missing}` } : less(now.fired, before?.fired);
  const probed = less(now.probed, before?.probed);
  const handled = handledSince(now, before);
  const count = (counts: Counts, vector: number): number | undefined => ('counts' in counts ? counts.counts[vector] : undefined);
  const keys = now.entries.map(({ message }) => message);
  const sharing = sharers(now.entries, before?.entries);
  const lastFired = lastTimes(stretch.fires);
  const lastSent = lastTimes(stretch.messages);
  return {
    bdf: stretch.bdf, tier: stretch.tier, since: stretch.since, mode: now.mode, allocated: now.allocated, vectors: now.vectors,
    functionMasked: now.functionMasked, requestVector: now.requestVector, interrupted: stretch.interrupted, enabledAtMs: stretch.enabledAtMs,
    missing: Object.fromEntries(Object.entries({ fired, sent: stretch.sent, handled, probed, pending: now.pending })
      .flatMap(([name, one]) => ('missing' in one ? [[name, one.missing]] : []))),
    rows: Array.from({ length: now.vectors }, (_, vector): LedgerRow => {
      const on = 'counts' in handled ? handled.counts[vector] ?? [] : undefined;
      const shared = sharing.get(vector);
      const key = keys[vector];
      const messageBefore = before?.entries[vector]?.message;
      const handledOn = (on ?? []).flatMap((times, at) => (times === 0 ? [] : [{ cpu: ('cpus' in handled ? handled.cpus[at] : undefined) ?? at, times }]));
      // It went where neither reading of the table says: by a message in between, which nobody knows to count.
      const known = [now.entries[vector], before?.entries[vector]].map((entry) => entry?.cpu);
      const wentElsewhere = known[0] !== undefined && handledOn.some(({ cpu }) => !known.includes(cpu));
      const isCounted = shared === undefined && !wentElsewhere;
      return {
        vector,
        fired: count(fired, vector), probed: count(probed, vector),
        sent: isCounted ? count(stretch.sent, vector) : undefined,
        handled: on?.reduce((sum, times) => sum + times, 0),
        handledOn,
        pending: 'missing' in now.pending ? undefined : now.pending[vector],
        wasPending: before === undefined ? false : 'missing' in before.pending ? undefined : before.pending[vector],
        inFlight: stretch.inFlight?.get(vector) ?? 0,
        masked: now.entries[vector]?.masked,
        cpu: now.entries[vector]?.cpu,
        sameMessage: before !== undefined && key !== undefined && key === messageBefore,
        sharesMessageWith: shared,
        lastFiredMs: lastFired.get(vector),
        lastSentMs: key === undefined || !isCounted ? undefined : lastSent.get(key),
      };
    }),
  };
}

function lastTimes<T>(events: readonly TimedEvent<T>[] | undefined): Map<T, number> {
  return new Map(events?.map(({ what, timeMs }) => [what, timeMs]));
}

/** For each vector another that may have sent the same message: one that was masked all the time did not. */
function sharers(now: readonly ReadEntry[], before: readonly ReadEntry[] | undefined): Map<number, number> {
  const owners = new Map<string, number>();
  const sharing = new Map<number, number>();
  for (const [vector, { message, masked }] of now.entries()) {
    if (message === undefined || (masked && before?.[vector]?.masked !== false)) continue;
    const other = owners.get(message);
    if (other === undefined) {
      owners.set(message, vector);
      continue;
    }
    sharing.set(vector, other);
    if (!sharing.has(other)) sharing.set(other, vector);
  }
  return sharing;
}

const ANEW = 'it began to count anew after the mark: were the vectors allocated again?';

function less(now: Counts, before: Counts | undefined): Counts {
  if (!('counts' in now) || before === undefined || !('counts' in before)) return now;
  const counts = now.counts.map((count, index) => (count === undefined ? undefined : count - (before.counts[index] ?? 0)));
  return counts.some((count) => (count ?? 0) < 0) ? { missing: ANEW } : { counts };
}

function handledSince({ handled: now }: InterruptReading, before: InterruptReading | undefined): InterruptReading['handled'] {
  if (before === undefined || !('counts' in now) || !('counts' in before.handled)) return now;
  const { counts: earlier, cpus } = before.handled;
  const counts = now.counts.map((on, vector) => on.map((times, at) => times - (earlier[vector]?.[cpus.indexOf(now.cpus[at] ?? -1)] ?? 0)));
  return counts.some((on) => on.some((times) => times < 0)) ? { missing: ANEW } : { counts, cpus: now.cpus };
}
