import { describe, expect, test } from '@jest/globals';
import { ledgerTable, renderLedger, type LedgerLine } from '../../src/report/ledger-table.ts';

const line = (vector: number, more: Partial<LedgerLine> = {}): LedgerLine => ({
  vector, fired: 0, sent: 0, handled: 0, probed: undefined, handledOn: [], pending: false, masked: false, cpu: 0, sharesMessageWith: undefined, ...more,
});
const lines = (count: number, changed: Partial<Record<number, Partial<LedgerLine>>>): LedgerLine[] =>
  Array.from({ length: count }, (_, vector) => line(vector, changed[vector]));
const noProbe = { probed: 'the driver is not rootport_probe' };

describe('the ledger of a function', () => {
  test('is a table of columns and rows, the probe\'s where it is the driver', () => {
    const rows = lines(2, { 1: { fired: 2, sent: 2, handled: 2, probed: 2, handledOn: [{ cpu: 0, times: 2 }] } });
    expect(ledgerTable({ rows, missing: {} })).toEqual({
      columns: ['vector', 'fired', 'sent', 'handled', 'probe', 'pending', 'masked', 'CPU'],
      rows: [['0', '0', '0', '0', '-', 'no', 'no', '0'], ['1', '2', '2', '2', '2', 'no', 'no', '0']],
    });
    expect(ledgerTable({ rows, missing: noProbe }).columns).not.toContain('probe');
  });

  test('in a message has wrong rows marked with why, and what did not move counted', () => {
    const rows = lines(190, { 1: { fired: 1 }, 2: { sent: 1, handled: 1, handledOn: [{ cpu: 0, times: 1 }] }, 7: { fired: 3, sent: 3, handled: 3, handledOn: [{ cpu: 0, times: 1 }, { cpu: 1, times: 2 }], cpu: 1 } });
    const wrong = new Map([[1, ['claimed: exactly 1', 'fired, and never sent']], [2, ['handled, and never fired']]]);
    expect(renderLedger({ rows, missing: noProbe }, wrong, new Set([1]))).toBe([
      '     vector  fired  sent  handled                 pending  masked  CPU',
      '  x  1       1      0     0                       no       no      0    <- claimed: exactly 1; fired, and never sent',
      '  x  2       0      1     1                       no       no      0    <- handled, and never fired',
      '     7       3      3     3 (CPU 0: 1, CPU 1: 2)  no       no      1',
      '     … and 187 that did not move',
    ].join('\n'));
  });

  test('stays readable when all of 2048 vectors moved, and shows the wrong ones first', () => {
    const rows = Array.from({ length: 2048 }, (_, vector) => line(vector, { fired: 1, sent: 1, handled: vector < 2000 ? 1 : 0 }));
    const text = renderLedger({ rows, missing: noProbe }, new Map(rows.slice(2000).map(({ vector }) => [vector, ['sent, and never handled']])), new Set());
    expect(text.split('\n').length).toBeLessThan(62);
    expect(text).toContain('… and 8 more that are wrong');
    expect(text).toContain('… and 1984 more that add up');
    expect(text).toMatch(/x {2}2000 /);
  });

  test('names the witnesses that are missing, and shows a claimed vector that did not move', () => {
    const rows = lines(3, { 0: { fired: undefined }, 1: { fired: undefined }, 2: { fired: undefined, sharesMessageWith: 1, sent: undefined } });
    const text = renderLedger({ rows, missing: { ...noProbe, fired: 'QEMU\'s own model is the device' } }, new Map(), new Set([2]));
    expect(text).toMatch(/^ {5}2 +- +as 1 /m);
    expect(text).toContain('  ?  device: fired is missing: QEMU\'s own model is the device');
    expect(text).not.toContain('probe');
  });
});
