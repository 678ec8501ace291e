// What is wrong in an interrupt ledger: claims that do not hold, and deliveries that do not add up although nobody
// claimed them. Pure. An accusation is made only where nothing legitimate explains the counts: eventfds and the
// APIC merge what comes close together, masks hold back, MSI-X that is off loses (PCI Local Bus 3.0, 6.8; FACTS: MSI-X).
import type { InterruptLedger, LedgerRow, LedgerWitness } from '../../machine/interrupt-ledger.ts';

/** How often a vector's interrupt is to have come, by every witness. */
export interface CountRange {
  readonly vector: number;
  readonly least: number;
  readonly most: number;
  /** `exactly 1` */
  readonly text: string;
}

/** What is asked of the vectors that no claim names. */
export type OthersClaim = 'accounted' | 'none' | 'any';

export interface Finding {
  readonly vector: number;
  /** The columns in which it shows. */
  readonly columns: readonly (LedgerWitness | 'pending')[];
  readonly why: string;
  /** Counts only grow: waiting does not mend it. */
  readonly final: boolean;
}

/** Clocks of two processes on one host: closer than this, which came first is not known. */
const CLOCK_MS = 2;

export function findWrong(ledger: InterruptLedger, claims: readonly CountRange[], others: OthersClaim): Finding[] {
  const claimed = new Set(claims.map(({ vector }) => vector));
  return [
    ...claims.flatMap((claim) => brokenClaims(ledger, claim)),
    ...(others !== 'any' ? ledger.rows.flatMap((row) => unaccounted(ledger, row)) : []),
    ...(others === 'none' ? ledger.rows.filter(({ vector }) => !claimed.has(vector)).flatMap((row) => moved(row)) : []),
  ];
}

/** Every witness that is there counts what is claimed, and one that interrupts end with is there. */
function brokenClaims(ledger: InterruptLedger, { vector, least, most, text }: CountRange): Finding[] {
  const row = ledger.rows[vector];
  const needed = ledger.tier === 'guest' ? 'handled' : 'sent';
  const finding = (columns: Finding['columns'], why: string, final: boolean): Finding => ({ vector, columns, why, final });
  const counts = (['fired', 'sent', 'handled', 'probed'] as const).map((name) => ({ name, count: row?.[name] }));
  const found: Finding[] = [];
  // RAM tells that a message came, not how often.
  const enough = (name: LedgerWitness): number => (ledger.tier === 'bare' && name === 'sent' ? Math.min(1, least) : least);
  const wrong = counts.filter(({ name, count }) => count !== undefined && (count < enough(name) || count > most));
  if (wrong.length > 0) found.push(finding(wrong.map(({ name }) => name), `claimed: ${text}`, wrong.some(({ count = 0 }) => count > most)));
  if (row?.[needed] === undefined && least > 0) found.push(finding([needed], `claimed: ${text}, and ${needed === 'handled' ? 'the guest' : 'the VMM'} does not tell`, false));
  if (row?.pending === true && least > 0) found.push(finding(['pending'], 'it is still pending', false));
  return found;
}

/** What a vector's counts say against each other. */
function unaccounted(ledger: InterruptLedger, row: LedgerRow): Finding[] {
  // Counts that began at different times, or fires that were lost as they should be, say nothing.
  if (ledger.interrupted !== undefined) return [];
  const { vector, fired, sent, handled, pending, masked } = row;
  const found: Finding[] = [];
  const find = (columns: Finding['columns'], why: string, final = false): void => void found.push({ vector, columns, why, final });
  const requested = vector === ledger.requestVector;
  const came = handled ?? sent;
  const where = handled === undefined ? 'sent' : 'handled';
  const untold = row.inFlight + (row.wasPending === false ? 0 : 1);

  if (fired !== undefined && came !== undefined && !requested) {
    const due = dueFires(ledger, row);
    // An interrupt that Linux has disabled is sent once, not counted, and masked from then on (handle_edge_irq).
    const held = masked === true && (sent ?? 1) > 0;
    if (due && came === 0 && pending !== true && !held) {
      find(sent === undefined || where === 'sent' ? ['fired', where] : ['fired', 'sent', 'handled'], `fired, and never ${sent === 0 ? 'sent' : where}`);
    } else if (due && pending !== true && lostTheLast(row)) find(['sent'], 'the last fire was never sent');
    if (came > fired + untold) {
      find(['fired', where], fired === 0 ? `${where}, and never fired` : `${where} more often than fired`, true);
    } else if (sent !== undefined && sent > fired + untold && row.sameMessage) {
      find(['fired', 'sent'], fired === 0 ? 'sent, and never fired' : 'sent more often than fired', true);
    }
  }
  if (sent !== undefined && handled !== undefined && row.sameMessage && row.sharesMessageWith === undefined) {
    if (sent > 0 && handled === 0 && masked !== true) find(['sent', 'handled'], 'sent, and never handled');
    // Sent before the mark and handled after it: at most what was in flight.
    const elsewhere = row.handledOn.some(({ cpu }) => cpu !== row.cpu);
    if (handled > sent + row.inFlight && !elsewhere) find(['sent', 'handled'], sent === 0 ? 'handled, and never sent' : 'handled more often than sent', true);
  }
  if (pending === true && masked === false && ledger.functionMasked === false) find(['pending'], 'pending, and not masked');
  return found;
}

/** Some fire was neither before interrupts were on, nor held back since. */
function dueFires(ledger: InterruptLedger, { fired = 0, lastFiredMs }: LedgerRow): boolean {
  if (fired === 0) return false;
  return ledger.enabledAtMs === -Infinity || (lastFiredMs !== undefined && lastFiredMs > ledger.enabledAtMs + CLOCK_MS);
}

/** A message that follows a fire is sent after it: merged are only those before. */
function lostTheLast({ sent, sameMessage, lastFiredMs, lastSentMs }: LedgerRow): boolean {
  return sent !== undefined && sent > 0 && sameMessage && lastFiredMs !== undefined && lastSentMs !== undefined && lastSentMs < lastFiredMs - CLOCK_MS;
}

function moved(row: LedgerRow): Finding[] {
  const columns = (['fired', 'sent', 'handled', 'probed'] as const).filter((name) => (row[name] ?? 0) > 0);
  return columns.length === 0 ? [] : [{ vector: row.vector, columns, why: 'claimed: no other vector moves', final: true }];
}
