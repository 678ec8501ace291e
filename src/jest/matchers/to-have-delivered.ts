// toHaveDelivered: interrupt vectors were fired, sent and handled this often, and the rest of the function's ledger adds
// up: as the device, the VMM and the guest count it. Deliveries take a moment: it looks again until that holds or
// its time is over.
import type { MatcherContext } from 'expect';
import { UsageError } from '../../errors.ts';
import { BareFunction } from '../../machine/bare-function.ts';
import type { InterruptLedger, InterruptMark } from '../../machine/interrupt-ledger.ts';
import { readBareStretch } from '../../machine/interrupt-bare.ts';
import { readStretch } from '../../machine/interrupt-stretch.ts';
import { bareTimeline, readTimeline, type InterruptTimeline } from '../../machine/interrupt-timeline.ts';
import type { PciFunction } from '../../machine/pci-function.ts';
import { renderLedger } from '../../report/ledger-table.ts';
import { anyFunctionOf, checkFields, nameOf, type MatcherResult } from './format.ts';
import { findWrong, type CountRange, type Finding, type OthersClaim } from './ledger-verdict.ts';
import { writeTimeline } from './timeline-file.ts';

/**
 * Counts by which a claim is made. `exactly` only of fires at least 1 ms apart, or acknowledged one by one:
 * eventfds add up what is fired closer (FACTS: MSI-X), and fewer messages than fires are then right.
 */
export interface VectorClaim {
  /** MSI-X vector (MSI: from 0). A virtio driver has configuration changes on 0, queue i on i + 1. */
  readonly vector: number;
  readonly exactly?: number;
  /** Default 1, when neither of the others is given. */
  readonly atLeast?: number;
  readonly atMost?: number;
}

export interface DeliveryOptions {
  /** Count from here: `const since = await vm.mark(fn)`. Default: since the device was plugged. */
  readonly since?: InterruptMark;
  /**
   * Vectors that no claim names. `'accounted'` (default): what they fired was delivered, once and to the right handler.
   * `'none'`: moreover they did not move at all. `'any'`: they are not looked at, nor whether the claimed ones add up.
   */
  readonly others?: OthersClaim;
  /** How long it may take to come true; default: half of what a command in this guest may take. */
  readonly timeoutMs?: number;
}

export interface DeliveryClaim extends VectorClaim, DeliveryOptions {}

const CLAIM_FIELDS = ['vector', 'exactly', 'atLeast', 'atMost'];
const OPTION_FIELDS = ['since', 'others', 'timeoutMs'];
const OTHERS = ['accounted', 'none', 'any'];

/**
 * Passes when the count of every witness that is there satisfies every claim, the guest's is there (on the bare tier
 * guest RAM's), where deliveries are claimed no pending bit is set, and the vectors' counts do not contradict
 * each other. What holds at once is looked at a second time: an interrupt too many may still be on its way.
 * @throws UsageError for a vector that the function does not have, or with `.not`
 */
export async function toHaveDelivered(
  this: MatcherContext, received: unknown, claim: DeliveryClaim | readonly VectorClaim[], options: DeliveryOptions = {},
): Promise<MatcherResult> {
  const fn = anyFunctionOf(received, 'toHaveDelivered');
  if (this.isNot === true) {
    throw new UsageError('toHaveDelivered has no .not: a witness that is missing would make it pass', { hint: 'claim exactly: 0, or atMost: n' });
  }
  const list = Array.isArray(claim) ? claim as readonly VectorClaim[] : [claim as DeliveryClaim];
  const given: DeliveryOptions = Array.isArray(claim) ? options : { ...options, ...claim as DeliveryClaim };
  for (const one of list) checkFields(one, Array.isArray(claim) ? CLAIM_FIELDS : [...CLAIM_FIELDS, ...OPTION_FIELDS], 'toHaveDelivered');
  checkFields(options, OPTION_FIELDS, 'toHaveDelivered');
  const { others = 'accounted' } = given;
  if (!OTHERS.includes(others)) throw new UsageError(`toHaveDelivered: others: ${JSON.stringify(others)}`, { hint: `it is one of ${OTHERS.join(', ')}` });
  const ranges = list.map(rangeOf);
  const { ledger, timeline, findings } = await watch(fn, ranges, others, given);
  const wrong = new Map<number, string[]>();
  for (const { vector, why } of findings) wrong.set(vector, [...wrong.get(vector) ?? [], why]);
  const drawing = findings.length === 0 ? [] : [await writeTimeline(fn, nameOf(fn), timeline, wrong)];
  return {
    pass: findings.length === 0,
    message: () => [
      `${this.utils.matcherHint('toHaveDelivered', 'function', 'claim')}\n`,
      `${headline(ranges)} of ${nameOf(fn)}, since ${given.since !== undefined ? 'the mark' : fn instanceof BareFunction ? 'it was there' : 'it was plugged'}`,
      renderLedger(ledger, wrong, new Set(ranges.map(({ vector }) => vector))),
      ...remarks(ledger, others),
      ...drawing,
    ].join('\n'),
  };
}

function headline(ranges: readonly CountRange[]): string {
  return ranges.length === 0 ? 'all vectors' : ranges.map(({ vector, text }) => `vector ${vector} ${text}`).join(', ');
}

function remarks({ tier, interrupted }: InterruptLedger, others: OthersClaim): string[] {
  return [
    ...(tier === 'bare' ? ['no guest handles them here: the claim rests on the device and on the messages in guest RAM, which tell that one came, not how often'] : []),
    ...(interrupted !== undefined && others !== 'any' ? [`not checked: whether the other vectors add up (${interrupted})`] : []),
  ];
}

function rangeOf({ exactly, atLeast, atMost, vector }: VectorClaim): CountRange {
  for (const count of [vector, exactly, atLeast, atMost]) {
    if (count !== undefined && (!Number.isInteger(count) || count < 0)) throw new UsageError(`toHaveDelivered: ${count} is no count`);
  }
  if (exactly !== undefined) {
    if (atLeast !== undefined || atMost !== undefined) throw new UsageError('toHaveDelivered takes exactly, or atLeast and atMost, not both');
    return { vector, least: exactly, most: exactly, text: `exactly ${exactly}` };
  }
  if (atLeast === undefined && atMost !== undefined) return { vector, least: 0, most: atMost, text: `at most ${atMost}` };
  const least = atLeast ?? 1;
  if (atMost === undefined) return { vector, least, most: Infinity, text: `at least ${least}` };
  return { vector, least, most: atMost, text: `${least} to ${atMost}` };
}

interface Look {
  readonly ledger: InterruptLedger;
  /** What happened when. */
  readonly timeline: () => Promise<InterruptTimeline>;
  readonly findings: readonly Finding[];
}

async function look(fn: PciFunction | BareFunction, since: InterruptMark | undefined): Promise<Omit<Look, 'findings'>> {
  if (fn instanceof BareFunction) {
    const { ledger, events } = await fn.machine.scene(() => readBareStretch(fn, since));
    return { ledger, timeline: () => Promise.resolve(bareTimeline(events)) };
  }
  const { ledger, events } = await readStretch(fn, since);
  return { ledger, timeline: () => readTimeline(fn, since, events) };
}

async function watch(fn: PciFunction | BareFunction, ranges: readonly CountRange[], others: OthersClaim, { since, timeoutMs }: DeliveryOptions): Promise<Look> {
  const giveUpAt = performance.now() + (timeoutMs ?? (fn instanceof BareFunction ? fn.machine.innards.timeoutMs : fn.machine.guest.defaultTimeoutMs) / 2);
  for (let held = false; ;) {
    const { ledger, timeline } = await look(fn, since);
    const beyond = ranges.find(({ vector }) => vector >= ledger.vectors);
    if (ledger.mode !== 'none' && beyond !== undefined) {
      throw new UsageError(`${nameOf(fn)} has ${ledger.mode === 'msi' ? 'MSI' : 'MSI-X'} vectors 0 to ${ledger.vectors - 1}; ${beyond.vector} is none`);
    }
    const findings = findWrong(ledger, ranges, others);
    const holds = findings.length === 0;
    if ((holds && held) || findings.some(({ final }) => final) || performance.now() > giveUpAt) return { ledger, timeline, findings };
    held = holds;
  }
}
