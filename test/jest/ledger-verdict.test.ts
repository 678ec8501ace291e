// The verdict on an interrupt ledger: what adds up passes, whatever may merge, wait or be lost as it should; a
// delivery that was lost, doubled or sent astray is found, on its own row. Ledgers are made here, at random from seeds.
import { describe, expect, test } from '@jest/globals';
import { findWrong, type CountRange } from '../../src/jest/matchers/ledger-verdict.ts';
import type { InterruptLedger, LedgerRow } from '../../src/machine/interrupt-ledger.ts';

const CPUS = 4;

function row(vector: number, counts: Partial<LedgerRow> = {}): LedgerRow {
  const { handled = 0, cpu = vector % CPUS } = counts;
  return {
    vector, fired: 0, sent: 0, handled, probed: undefined, handledOn: handled === 0 ? [] : [{ cpu: cpu, times: handled }],
    pending: false, wasPending: false, inFlight: 0, masked: false, cpu, sameMessage: true, sharesMessageWith: undefined,
    lastFiredMs: undefined, lastSentMs: undefined, ...counts,
  };
}

/** Each fire sent once and handled once. */
const delivered = (vector: number, times: number): LedgerRow =>
  row(vector, { fired: times, sent: times, handled: times, ...(times === 0 ? {} : { lastFiredMs: 10 * times, lastSentMs: 10 * times + 1 }) });

function ledger(rows: readonly LedgerRow[], more: Partial<InterruptLedger> = {}): InterruptLedger {
  return {
    bdf: '0000:01:00.0', tier: 'guest', mode: 'msix', since: 'mark', allocated: rows.length, vectors: rows.length, functionMasked: false,
    missing: {}, requestVector: undefined, interrupted: undefined, enabledAtMs: -Infinity, rows, ...more,
  };
}

const exactly = (vector: number, times: number): CountRange => ({ vector, least: times, most: times, text: `exactly ${times}` });
const wrongRows = (of: InterruptLedger, claims: readonly CountRange[] = [], others: 'accounted' | 'none' | 'any' = 'accounted'): number[] =>
  [...new Set(findWrong(of, claims, others).map(({ vector }) => vector))];

/** xorshift32: the same cases every time. */
function random(seed: number): (below: number) => number {
  let state = seed * 2654435761 | 1;
  return (below) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % below;
  };
}

const SEEDS = Array.from({ length: 300 }, (_, seed) => seed + 1);

describe('deliveries that add up', () => {
  test('each fire handled once: right, and so is every exact claim', () => {
    for (const seed of SEEDS) {
      const below = random(seed);
      const rows = Array.from({ length: 1 + below(40) }, (_, vector) => delivered(vector, below(3) === 0 ? below(9) : 0));
      expect(findWrong(ledger(rows), rows.map(({ vector, fired = 0 }) => exactly(vector, fired)), 'none')).toEqual([]);
    }
  });

  test('what may differ is no fault: merged, masked and pending, in flight at the mark, moved, without a witness', () => {
    const legitimate: ((below: (n: number) => number) => Partial<LedgerRow>)[] = [
      () => ({}),
      // An eventfd adds up what comes before it is read; the APIC's request register merges messages.
      (below) => ({ fired: 5, sent: 2 + below(4), handled: 1 + below(2), lastFiredMs: 50, lastSentMs: 51 }),
      () => ({ fired: 3, sent: 1, handled: 1, pending: true, masked: true, lastFiredMs: 50, lastSentMs: 20 }),
      () => ({ fired: 2, pending: true, masked: true }),
      // Unmasked with a bit that was set before.
      () => ({ fired: 0, sent: 1, handled: 1, wasPending: true }),
      () => ({ fired: 0, sent: 0, handled: 1, inFlight: 1 }),
      () => ({ fired: 4, sent: 1, handled: 4, sameMessage: false, handledOn: [{ cpu: 0, times: 2 }, { cpu: 1, times: 2 }], lastFiredMs: 50, lastSentMs: 20 }),
      () => ({ fired: 2, sent: 0, handled: 2, handledOn: [{ cpu: 3, times: 2 }], cpu: 1 }),
      () => ({ fired: 2, sent: undefined, handled: 2, sharesMessageWith: 7 }),
      () => ({ fired: undefined, sent: 3, handled: 3 }),
      () => ({ fired: 3, sent: undefined, handled: 3 }),
      () => ({ fired: 3, sent: 3, handled: undefined, handledOn: [] }),
      () => ({ fired: undefined, sent: undefined, handled: undefined, pending: undefined, masked: undefined, handledOn: [] }),
      // disable_irq() without a mask: the first is sent, not counted, and masks.
      () => ({ fired: 1, sent: 1, handled: 0, masked: true }),
    ];
    for (const seed of SEEDS) {
      const below = random(seed);
      const rows = Array.from({ length: 1 + below(40) }, (_, vector) => row(vector, (legitimate[below(legitimate.length)] as (typeof legitimate)[number])(below)));
      expect(findWrong(ledger(rows), [], 'accounted')).toEqual([]);
    }
  });

  test('virtio\'s configuration changes are asked of QEMU, which interrupts as it sees fit', () => {
    for (const counts of [{ fired: 2 }, { sent: 1, handled: 1 }]) expect(wrongRows(ledger([row(0, counts)], { requestVector: 0 }))).toEqual([]);
  });

  test('fires before messages were on are lost as they should be, and later ones are not', () => {
    const plugged = { since: 'plug', enabledAtMs: 100 } as const;
    expect(wrongRows(ledger([row(0, { fired: 3, lastFiredMs: 50, sameMessage: false })], plugged))).toEqual([]);
    expect(wrongRows(ledger([row(0, { fired: 3, lastFiredMs: undefined, sameMessage: false })], plugged))).toEqual([]);
    expect(wrongRows(ledger([row(0, { fired: 3, lastFiredMs: 150, sameMessage: false })], plugged))).toEqual([0]);
  });

  test('with interrupts off meanwhile nothing is said but of the claims', () => {
    const rows = [row(0, { fired: 3 }), row(1, { handled: 2 })];
    expect(wrongRows(ledger(rows, { interrupted: 'off' }))).toEqual([]);
    expect(wrongRows(ledger(rows, { interrupted: 'off' }), [exactly(0, 3)])).toEqual([0]);
  });
});

describe('one delivery that does not add up', () => {
  const faults: Record<string, { rows: (times: number) => Partial<LedgerRow>; why: RegExp }> = {
    'fired and never sent': { rows: (times) => ({ fired: times, sent: 0, handled: 0, handledOn: [] }), why: /fired, and never sent/ },
    'sent and never handled': { rows: (times) => ({ fired: times, sent: times, handled: 0, handledOn: [] }), why: /fired, and never handled|sent, and never handled/ },
    'sent and handled though never fired': { rows: () => ({ fired: 0, sent: 1, handled: 1 }), why: /handled, and never fired/ },
    'handled once more than fired and sent': { rows: (times) => ({ handled: times + 1, handledOn: [{ cpu: 0, times: times + 1 }], cpu: 0 }), why: /handled more often than fired/ },
    'sent twice, merged in the guest': { rows: (times) => ({ sent: times + 1 }), why: /sent more often than fired/ },
    'handled once more than sent, by a device that does not count': {
      rows: (times) => ({ fired: undefined, handled: times + 1, handledOn: [{ cpu: 0, times: times + 1 }], cpu: 0 }), why: /handled more often than sent/,
    },
    'the last one not sent': { rows: (times) => ({ lastSentMs: 10 * times - 5 }), why: /the last fire was never sent/ },
    'pending for ever, and not masked': { rows: () => ({ pending: true }), why: /pending, and not masked/ },
  };

  test.each(Object.entries(faults))('%s is found on its row, and on no other, claimed or not', (_, { rows: mutate, why }) => {
    for (const seed of SEEDS) {
      const below = random(seed);
      const rows = Array.from({ length: 1 + below(40) }, (__, vector) => delivered(vector, below(3) === 0 ? below(9) : 0));
      const victim = below(rows.length);
      const times = 1 + below(8);
      const sound = delivered(victim, times);
      const broken = ledger(rows.with(victim, { ...sound, ...mutate(times) }));
      const found = findWrong(broken, [], 'accounted');
      expect([...new Set(found.map(({ vector }) => vector))]).toEqual([victim]);
      expect(found.map((one) => one.why).join()).toMatch(why);
      const other = rows.find(({ vector }) => vector !== victim);
      // The claim of a vector that was delivered does not hide it.
      if (other !== undefined) expect(wrongRows(broken, [exactly(other.vector, other.fired ?? 0)])).toEqual([victim]);
      expect(wrongRows(broken, other === undefined ? [] : [exactly(other.vector, other.fired ?? 0)], 'any')).toEqual([]);
    }
  });

  test('on the wrong vector marks both: the one that was fired and the one that was handled', () => {
    const rows = [delivered(0, 0), row(1, { fired: 1 }), row(2, { sent: 1, handled: 1 }), delivered(3, 4)];
    expect(wrongRows(ledger(rows), [exactly(3, 4)])).toEqual([1, 2]);
  });

  test('too many of anything is final, too few is not: that may still come', () => {
    const final = (counts: Partial<LedgerRow>): boolean[] => findWrong(ledger([row(0, counts)]), [], 'accounted').map((one) => one.final);
    expect(final({ fired: 1, sent: 2, handled: 2 })).toContain(true);
    expect(final({ fired: 1 })).toEqual([false]);
    expect(final({ fired: 1, sent: 1 })).toEqual([false, false]);
  });
});

describe('claims', () => {
  test('are held against every witness that is there, and the guest must be', () => {
    expect(findWrong(ledger([row(0, { fired: 2, sent: 2, handled: 1, probed: 1 })]), [exactly(0, 2)], 'any'))
      .toEqual([{ vector: 0, columns: ['handled', 'probed'], why: 'claimed: exactly 2', final: false }]);
    expect(findWrong(ledger([row(0, { fired: 2, sent: 2, handled: undefined })]), [exactly(0, 2)], 'any')[0]?.why).toMatch(/the guest does not tell/);
    expect(wrongRows(ledger([row(0, { fired: undefined, sent: undefined, handled: 2 })]), [exactly(0, 2)])).toEqual([]);
  });

  test('of others: none, are broken by a delivery that adds up', () => {
    const rows = [delivered(0, 0), delivered(1, 2), delivered(2, 1)];
    expect(wrongRows(ledger(rows), [exactly(1, 2)], 'none')).toEqual([2]);
    expect(wrongRows(ledger(rows), [exactly(1, 2), exactly(2, 1)], 'none')).toEqual([]);
  });

  test('on the bare tier rest on RAM, which tells that a message came: one is enough, none is not', () => {
    const bare = (counts: Partial<LedgerRow>): number[] => wrongRows(ledger([row(0, { handled: undefined, ...counts })], { tier: 'bare' }), [exactly(0, 3)]);
    expect(bare({ fired: 3, sent: 1 })).toEqual([]);
    expect(bare({ fired: 3, sent: 0 })).toEqual([0]);
    expect(bare({ fired: 2, sent: 2 })).toEqual([0]);
    expect(bare({ fired: 3, sent: undefined })).toEqual([0]);
  });
});
