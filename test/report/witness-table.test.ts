import { describe, expect, test } from '@jest/globals';
import { compareWitnesses, renderWitnesses, type Testimony } from '../../src/report/witness-table.ts';

const columns = ['type', 'size'];
const says = (witness: string, type?: string, size?: string): Testimony => ({ witness, says: { type, size } });

describe('witnesses', () => {
  test('that say what is expected, or nothing, agree', () => {
    const verdict = compareWitnesses(columns, { type: 'mem32' }, [says('a', 'mem32', '0x10'), says('b', undefined, '0x10'), { witness: 'c', says: {}, missing: 'gone' }]);
    expect(verdict).toEqual({ agreed: true, present: 2, wrong: [[], [], []] });
  });

  test('that contradict the expectation are named with the column, even when all agree', () => {
    const { agreed, wrong } = compareWitnesses(columns, { size: '0x20' }, [says('a', 'mem32', '0x10'), says('b', 'mem32', '0x10')]);
    expect(agreed).toBe(false);
    expect(wrong).toEqual([['size'], ['size']]);
  });

  test('that nobody has an expectation of are held against what most say', () => {
    expect(compareWitnesses(columns, {}, [says('a', 'x'), says('b', 'y'), says('c', 'y')]).wrong).toEqual([['type'], [], []]);
  });

  test('of equally many minds are held against the first', () => {
    expect(compareWitnesses(columns, {}, [says('a', 'x'), says('b', 'y')]).wrong).toEqual([[], ['type']]);
  });
});

test('the table marks who disagrees and in what, and says why a witness is missing', () => {
  const testimonies: Testimony[] = [
    says('config', 'mem32'), { ...says('query-pci', 'mem64', '0x1000'), note: 'behind rp1' }, { witness: 'trace', says: {}, missing: 'KVM' },
  ];
  const expected = { type: 'mem32' };
  expect(renderWitnesses(columns, expected, testimonies, compareWitnesses(columns, expected, testimonies).wrong)).toBe([
    '     witness    type   size',
    '     expected   mem32  (any)',
    '     config     mem32  -',
    '  x  query-pci  mem64  0x1000  <- type (behind rp1)',
    '  ?  trace      missing: KVM',
  ].join('\n'));
});
