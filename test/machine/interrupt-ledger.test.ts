// What a ledger is made of: differences between two readings, whether messages were on all the time between them, and
// the guest's own trace. Readings are made here; a guest's are in suites/msix and test/failing.
import { describe, expect, test } from '@jest/globals';
import { EventLog, type TimedEvent } from '../../src/machine/event-log.ts';
import { parseHandlers } from '../../src/machine/interrupt-guest-trace.ts';
import { ledgerOf, type InterruptReading, type Stretch } from '../../src/machine/interrupt-ledger.ts';
import { enablingOf, sentIn } from '../../src/machine/interrupt-stretch.ts';
import type { ConfigWrite } from '../../src/machine/trace-line.ts';
import { destinationOf } from '../../src/machine/interrupt-witnesses.ts';

function reading(more: Partial<InterruptReading> = {}): InterruptReading {
  return {
    mode: 'msix', mastering: true, allocated: 2, vectors: 2, functionMasked: false, requestVector: undefined,
    fired: { counts: [0, 0] }, sent: { counts: [] }, probed: { missing: 'no probe' }, handled: { counts: [[0, 0], [0, 0]], cpus: [0, 1] },
    pending: [false, false], entries: [{ masked: false, message: 'a', cpu: 0 }, { masked: false, message: 'b', cpu: 1 }],
    trace: new Map(), position: { messages: 0, configWrites: 0 }, fires: 0, ...more,
  };
}

const stretch = (now: InterruptReading, before: InterruptReading): Stretch => ({
  bdf: '0000:01:00.0', tier: 'guest', since: 'mark', sent: sentIn(now, before.trace, before), interrupted: undefined,
  enabledAtMs: -Infinity, inFlight: undefined, fires: undefined, messages: undefined,
});
const between = (before: InterruptReading, now: InterruptReading) => ledgerOf(before, now, stretch(now, before));

describe('the ledger between two readings', () => {
  test('counts what came since, by CPU', () => {
    const before = reading({ fired: { counts: [5, 1] }, handled: { counts: [[5, 0], [0, 1]], cpus: [0, 1] }, trace: new Map([['a', 5], ['b', 1]]) });
    const now = reading({ fired: { counts: [8, 1] }, handled: { counts: [[8, 0], [0, 1]], cpus: [0, 1] }, trace: new Map([['a', 8], ['b', 1]]) });
    const { rows } = between(before, now);
    expect(rows[0]).toMatchObject({ fired: 3, sent: 3, handled: 3, handledOn: [{ cpu: 0, times: 3 }], sameMessage: true });
    expect(rows[1]).toMatchObject({ fired: 0, sent: 0, handled: 0, handledOn: [] });
  });

  test('has a CPU that came online since, and one that went', () => {
    const before = reading({ handled: { counts: [[5, 3], [0, 0]], cpus: [0, 1] } });
    const { rows } = between(before, reading({ handled: { counts: [[6, 4], [0, 0]], cpus: [0, 2] } }));
    expect(rows[0]?.handledOn).toEqual([{ cpu: 0, times: 1 }, { cpu: 2, times: 4 }]);
  });

  test('does not subtract across counts that began anew', () => {
    const { missing, rows } = between(reading({ handled: { counts: [[5, 0], [0, 0]], cpus: [0, 1] } }), reading({ handled: { counts: [[1, 0], [0, 0]], cpus: [0, 1] } }));
    expect(missing.handled).toMatch(/anew/);
    expect(rows[0]?.handled).toBeUndefined();
  });

  test('adds up a vector\'s messages before and after it moved, and tells no other\'s', () => {
    const moved = reading({ entries: [{ masked: false, message: 'c', cpu: 1 }, { masked: false, message: 'b', cpu: 1 }], trace: new Map([['a', 2], ['b', 7], ['c', 3]]) });
    expect(between(reading(), moved).rows.map(({ sent, sameMessage }) => [sent, sameMessage])).toEqual([[5, false], [7, true]]);
    // What vector 0 said before is vector 1's now.
    const swapped = reading({ entries: [{ masked: false, message: 'c', cpu: 1 }, { masked: false, message: 'a', cpu: 1 }], trace: new Map([['a', 2], ['c', 3]]) });
    expect(between(reading(), swapped).rows[0]?.sent).toBe(3);
  });

  test('tells nothing of messages that two vectors share, unless one was masked all the time', () => {
    const same = (masked: boolean) => [{ masked: false, message: 'a', cpu: 0 }, { masked, message: 'a', cpu: 0 }];
    const trace = new Map([['a', 2]]);
    expect(between(reading(), reading({ entries: same(false), trace })).rows.map(({ sent, sharesMessageWith }) => [sent, sharesMessageWith])).toEqual([[undefined, 1], [undefined, 0]]);
    expect(between(reading({ entries: same(true) }), reading({ entries: same(true), trace })).rows[0]).toMatchObject({ sent: 2, sharesMessageWith: undefined });
    expect(between(reading({ entries: same(false) }), reading({ entries: same(true), trace })).rows[0]?.sharesMessageWith).toBe(1);
  });

  test('knows not how often a vector was sent that was handled where neither reading has it: it moved there and back', () => {
    const before = reading({ trace: new Map([['a', 0]]) });
    const now = reading({ fired: { counts: [2, 0] }, handled: { counts: [[1, 1], [0, 0]], cpus: [0, 1] }, trace: new Map([['a', 1], ['x', 1]]) });
    expect(between(before, now).rows[0]).toMatchObject({ fired: 2, sent: undefined, handled: 2, sameMessage: true, lastSentMs: undefined });
    // Where one of them has it, all its messages are known.
    const moved = { ...now, entries: [{ masked: false, message: 'x', cpu: 1 }, { masked: false, message: 'b', cpu: 1 }] };
    expect(between(before, moved).rows[0]).toMatchObject({ sent: 2 });
  });

  test('knows no messages of an entry that goes elsewhere, rather than none', () => {
    const elsewhere = [{ masked: false, message: undefined, cpu: undefined }, { masked: false, message: 'b', cpu: 1 }];
    expect(between(reading({ entries: elsewhere }), reading({ entries: elsewhere })).rows.map(({ sent }) => sent)).toEqual([undefined, 0]);
  });

  test('does not count fires from before it was known whose they are', () => {
    expect(between(reading({ fired: { missing: 'no vectors yet' } }), reading({ fired: { counts: [4, 0] } })).missing.fired).toMatch(/at the mark it was not known: no vectors yet/);
  });
});

describe('whether messages were on', () => {
  const CAPABILITY = 0x40;
  const write = (offset: number, value: number, slot = '01:00.0'): TimedEvent<ConfigWrite> => ({ timeMs: 7, what: { slot, offset, value } });
  const now = { mode: 'msix', mastering: true, capabilityOffset: CAPABILITY } as const;
  const off = { mode: 'none', mastering: false } as const;
  const of = (before: Parameters<typeof enablingOf>[1], ...writes: TimedEvent<ConfigWrite>[]) => enablingOf(now, before, writes, '01:00.0');

  test('all the time: Function Mask and other registers turn nothing off', () => {
    expect(of(now)).toEqual({ interrupted: undefined, enabledAtMs: -Infinity });
    expect(of(now, write(CAPABILITY + 2, 0xc000), write(CAPABILITY + 2, 0x8000), write(0x04, 0x407), write(0x10, 0), write(CAPABILITY + 2, 0, '02:00.0')))
      .toEqual({ interrupted: undefined, enabledAtMs: -Infinity });
  });

  test.each([
    ['MSI-X', CAPABILITY + 2, 0x0000, 0x8000], ['MSI-X by a write of 32 bits', CAPABILITY, 0x00010011, 0x80010011],
    ['MSI-X by a byte', CAPABILITY + 3, 0x00, 0x80], ['bus mastering', 0x04, 0x3, 0x7],
  ])('%s off and on again is an interruption', (_, offset, offValue, onValue) => {
    expect(of(now, write(offset, offValue), write(offset, onValue)).interrupted).toMatch(/was off meanwhile/);
  });

  test('turned on once is a beginning, twice is none', () => {
    const on = [write(0x04, 0x7), write(CAPABILITY + 2, 0xc000), write(CAPABILITY + 2, 0x8000)];
    expect(of(off, ...on)).toEqual({ interrupted: undefined, enabledAtMs: 7 });
    expect(of(undefined, ...on)).toEqual({ interrupted: undefined, enabledAtMs: 7 });
    expect(of(off, ...on, write(CAPABILITY + 2, 0), ...on).interrupted).toMatch(/meanwhile/);
  });

  test('that is not seen is not claimed', () => {
    expect(enablingOf(now, now, undefined, '01:00.0').interrupted).toMatch(/not known/);
    expect(of(off).interrupted).toMatch(/was not seen/);
    expect(enablingOf({ ...now, mode: 'none' }, now, [], '01:00.0').interrupted).toMatch(/is off/);
  });
});

test('a message goes to a CPU by its number or by its bit; a remapped one, and RAM, are nobody\'s', () => {
  expect(destinationOf(0xfee01000n, 0x4021)).toEqual({ message: '1/0/33', cpu: 1 });
  expect(destinationOf(0xfee0400cn, 0x25)).toEqual({ message: '4/1/37', cpu: 2 });
  expect(destinationOf(0xfee0300cn, 0x25)).toEqual({ message: '3/1/37', cpu: undefined });
  for (const address of [0xfee00010n, 0x1000n, 0x1_fee01000n]) expect(destinationOf(address, 0x25)).toEqual({ message: undefined, cpu: undefined });
});

test('the guest\'s trace is read by CPU, time and interrupt, and what is not an entry is left out', () => {
  expect(parseHandlers([
    '# tracer: nop', '              sh-118     [001] d.H1.     4.031086: irq_handler_entry: irq=29 name=virtio0-input.0',
    '          <idle>-0       [000] dNH1.     4.033131: irq_handler_entry: irq=30 name=virtio0-output.0', '              sh-118     [000] .....     4.1: tracing_mark_write: rootport-clock-1-0',
  ].join('\n'))).toEqual([{ cpu: 1, guestMs: expect.closeTo(4031.086, 6), irq: 29 }, { cpu: 0, guestMs: expect.closeTo(4033.131, 6), irq: 30 }]);
});

test('an event log keeps the newest, and says so when older ones are asked for', () => {
  const log = new EventLog<string>(3);
  for (const [at, what] of ['a', 'b', 'c', 'd'].entries()) log.add(at, what);
  expect(log.count).toBe(4);
  expect(log.since(2)?.map(({ what }) => what)).toEqual(['c', 'd']);
  expect(log.since(1)?.map(({ what }) => what)).toEqual(['b', 'c', 'd']);
  expect(log.since(0)).toBeUndefined();
  expect(log.since(4)).toEqual([]);
  expect(log.after(1).map(({ what }) => what)).toEqual(['c', 'd']);
});
