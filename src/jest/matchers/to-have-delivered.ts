// toHaveDelivered: an interrupt vector was fired, sent and handled this often, as the device, the VMM and the
// guest count it. Deliveries take a moment: it looks again until the claim holds or its time is over.
import type { MatcherContext } from 'expect';
import { UsageError } from '../../errors.ts';
import { readInterrupts, type Counts, type InterruptMark, type InterruptWitnesses } from '../../machine/interrupt-witnesses.ts';
import type { PciFunction } from '../../machine/pci-function.ts';
import type { Testimony } from '../../report/witness-table.ts';
import { checkFields, functionOf, nameOf, outcome, type MatcherResult } from './format.ts';

/**
 * Counts by which a claim is made. `exactly` only of fires at least 1 ms apart, or acknowledged one by one:
 * eventfds add up what is fired closer (FACTS: MSI-X), and fewer messages than fires are then right.
 */
export interface DeliveryClaim {
  /** MSI-X vector (MSI: from 0). A virtio driver has configuration changes on 0, queue i on i + 1. */
  readonly vector: number;
  readonly exactly?: number;
  /** Default 1, when neither of the others is given. */
  readonly atLeast?: number;
  readonly atMost?: number;
  /** Count from here: `const since = await vm.mark(fn)`. Default: since the device was plugged. */
  readonly since?: InterruptMark;
  /** How long it may take to come true; default: half of what a command in this guest may take. */
  readonly timeoutMs?: number;
}

const COLUMNS = ['count', 'pending bit'] as const;

/**
 * Passes when the count of every witness that is there satisfies the claim, the guest's is there, and (where
 * deliveries are claimed) the vector's pending bit is clear. What holds at once is looked at a second time:
 * an interrupt too many may still be on its way.
 * @throws UsageError for a vector that the function does not have, or with `.not`
 */
export async function toHaveDelivered(this: MatcherContext, received: unknown, claim: DeliveryClaim): Promise<MatcherResult> {
  const fn = functionOf(received, 'toHaveDelivered');
  checkFields(claim, ['vector', 'exactly', 'atLeast', 'atMost', 'since', 'timeoutMs'], 'toHaveDelivered');
  if (this.isNot === true) {
    throw new UsageError('toHaveDelivered has no .not: a witness that is missing would make it pass', { hint: 'claim exactly: 0, or atMost: n' });
  }
  const range = rangeOf(claim);
  const { seen, rows } = await watch(fn, claim, range);
  const pass = rows.every(({ wrong }) => wrong.length === 0);
  return outcome(
    pass, this.utils.matcherHint('toHaveDelivered', 'function', 'claim'),
    `vector ${claim.vector} of ${nameOf(fn)}, ${claim.since === undefined ? 'since it was plugged' : 'since the mark'}`,
    COLUMNS, { 'count': range.text, 'pending bit': range.least > 0 ? 'clear' : undefined },
    rows.map(({ testimony }) => testimony), { wrong: rows.map(({ wrong }) => wrong) }, remark(claim, seen),
  );
}

interface Range {
  readonly least: number;
  readonly most: number;
  readonly text: string;
}

function rangeOf({ exactly, atLeast, atMost, vector }: DeliveryClaim): Range {
  for (const count of [vector, exactly, atLeast, atMost]) {
    if (count !== undefined && (!Number.isInteger(count) || count < 0)) throw new UsageError(`toHaveDelivered: ${count} is no count`);
  }
  if (exactly !== undefined) {
    if (atLeast !== undefined || atMost !== undefined) throw new UsageError('toHaveDelivered takes exactly, or atLeast and atMost, not both');
    return { least: exactly, most: exactly, text: `exactly ${exactly}` };
  }
  if (atLeast === undefined && atMost !== undefined) return { least: 0, most: atMost, text: `at most ${atMost}` };
  const least = atLeast ?? 1;
  if (atMost === undefined) return { least, most: Infinity, text: `at least ${least}` };
  return { least, most: atMost, text: `${least} to ${atMost}` };
}

interface Row {
  readonly testimony: Testimony;
  readonly wrong: string[];
}

async function watch(fn: PciFunction, claim: DeliveryClaim, range: Range): Promise<{ seen: InterruptWitnesses; rows: Row[] }> {
  const giveUpAt = performance.now() + (claim.timeoutMs ?? fn.machine.guest.defaultTimeoutMs / 2);
  for (let held = false; ;) {
    const seen = await readInterrupts(fn, claim.since);
    if (seen.mode !== 'none' && claim.vector >= seen.vectors) {
      throw new UsageError(`${nameOf(fn)} has ${seen.mode === 'msi' ? 'MSI' : 'MSI-X'} vectors 0 to ${seen.vectors - 1}; ${claim.vector} is none`);
    }
    const rows = rowsOf(seen, claim.vector, range);
    const holds = rows.every(({ wrong }) => wrong.length === 0);
    if ((holds && held) || tooMany(seen, claim.vector, range) || performance.now() > giveUpAt) return { seen, rows };
    held = holds;
  }
}

/** Counts only grow. */
function tooMany(seen: InterruptWitnesses, vector: number, { most }: Range): boolean {
  return [seen.fired, seen.sent, seen.handled, seen.probed].some((counts) => (countOf(counts, vector) ?? 0) > most);
}

function rowsOf(seen: InterruptWitnesses, vector: number, { least, most }: Range): Row[] {
  const counted: [string, Counts][] = [
    ['device: fired', seen.fired], ['VMM: apic_deliver_irq', seen.sent], ['guest: /proc/interrupts', seen.handled],
    // A second word of the guest: not worth a line where the probe is not the driver.
    ...('counts' in seen.probed ? [['guest: probe\'s handler', seen.probed] satisfies [string, Counts]] : []),
  ];
  const rows = counted.map(([witness, counts]): Row => {
    const count = countOf(counts, vector);
    if (count === undefined) {
      // Nothing is claimed by the guest's silence, except that nothing came.
      const needed = witness === 'guest: /proc/interrupts' && least > 0;
      return { testimony: { witness, says: {}, missing: 'missing' in counts ? counts.missing : 'it does not know this vector' }, wrong: needed ? ['count'] : [] };
    }
    return { testimony: { witness, says: { count: String(count) } }, wrong: count < least || count > most ? ['count'] : [] };
  });
  const pending = seen.pending?.[vector];
  rows.push(pending === undefined
    ? { testimony: { witness: 'VMM: pending bits', says: {}, missing: seen.mode === 'msi' ? 'MSI has no PBA' : 'the PBA cannot be read' }, wrong: [] }
    : { testimony: { witness: 'VMM: pending bits', says: { 'pending bit': pending ? 'set' : 'clear' } }, wrong: pending && least > 0 ? ['pending bit'] : [] });
  return rows;
}

function countOf(counts: Counts, vector: number): number | undefined {
  return 'counts' in counts ? counts.counts[vector] ?? 0 : undefined;
}

/** What else moved: a wrong vector is the commonest reason for a missing one. */
function remark({ vector }: DeliveryClaim, seen: InterruptWitnesses): string {
  const words = { fired: seen.fired, sent: seen.sent, handled: seen.handled };
  const moved = Array.from({ length: seen.vectors }, (_, other) => other).filter((other) => other !== vector).flatMap((other) => {
    const counts = Object.entries(words).flatMap(([word, one]) => (countOf(one, other) ? [`${word} ${countOf(one, other)}`] : []));
    return counts.length === 0 ? [] : [`  vector ${other}: ${counts.join(', ')}`];
  });
  return moved.length === 0 ? 'no other vector moved' : `other vectors that moved:\n${moved.slice(0, 16).join('\n')}`;
}
