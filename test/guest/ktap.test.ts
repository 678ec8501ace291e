// Texts after Documentation/dev-tools/ktap.rst and lib/kunit of 6.1: what counts as a pass, and what never does.
import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { formatKtapFailures, parseKtap } from '../../src/guest/ktap.ts';

const NESTED = `KTAP version 1
1..2
  KTAP version 1
  1..2
    KTAP version 1
    1..1
    # test_1: initializing test_1
    ok 1 test_1
  ok 1 test_2
  not ok 2 - test_3 # TIMEOUT 30 seconds
not ok 1 example
ok 2 other
`;
const KUNIT = `    KTAP version 1
    # Subtest: driver
    # module: mydrv
    1..3
    ok 1 probes
    # irq: EXPECTATION FAILED at drivers/mydrv_test.c:12
        Expected count == 1, but
            count == 0
    not ok 2 irq
        KTAP version 1
        # Subtest: sizes
        ok 1 4k
        ok 2 64k # SKIP no memory
    # sizes: pass:1 fail:0 skip:1 total:2
    ok 3 sizes
# driver: pass:2 fail:1 skip:0 total:3
# Totals: pass:2 fail:1 skip:1 total:4
not ok 1 driver
`;
const errorsOf = (text: string): string[] => parseKtap(text).errors.map(({ message }) => message);

describe('results', () => {
  test('nest, with directives and diagnostics', () => {
    const result = parseKtap(NESTED);
    expect(result).toMatchObject({
      ok: false, errors: [], counts: { passed: 2, failed: 1, skipped: 0 },
      tests: [
        { name: 'example', outcome: 'failed', subtests: [
          { name: 'test_2', outcome: 'passed', subtests: [{ name: 'test_1', outcome: 'passed', diagnostics: ['test_1: initializing test_1'] }] },
          { name: 'test_3', outcome: 'failed', directive: 'TIMEOUT', reason: '30 seconds', subtests: [] },
        ] },
        { name: 'other', outcome: 'passed', subtests: [] },
      ],
    });
    expect(formatKtapFailures(result)).toBe('not ok example > test_3 (TIMEOUT: 30 seconds)');
  });

  test('of KUnit, out of a kernel log, have their parameters as subtests and the failed expectation as diagnostics', () => {
    const log = `KTAP version 1\n1..1\n${KUNIT}`.split('\n').map((line, i) => (line === '' ? '' : `[    1.0000${String(i).padStart(2, '0')}] ${line}`)).join('\r\n');
    const result = parseKtap(`[    0.500000] Linux version 6.1\n${log}`);
    expect(result.errors).toEqual([]);
    expect(result.counts).toEqual({ passed: 2, failed: 1, skipped: 1, 'expected-failure': 0 });
    expect(result.tests[0]?.subtests.map(({ name, outcome, subtests }) => [name, outcome, subtests.length])).toEqual([['probes', 'passed', 0], ['irq', 'failed', 0], ['sizes', 'passed', 2]]);
    expect(formatKtapFailures(result)).toBe('not ok driver > irq\n  irq: EXPECTATION FAILED at drivers/mydrv_test.c:12\n  Expected count == 1, but\n  count == 0');
  });

  test.each([
    ['ok 1 a # SKIP no hardware', 'skipped', 'no hardware', true],
    ['not ok 1 a # SKIP no hardware', 'skipped', 'no hardware', true],
    ['not ok 1 a # TODO write it', 'expected-failure', 'write it', true],
    ['ok 1 a # XFAIL known', 'expected-failure', 'known', true],
    ['not ok 1 a # TIMEOUT', 'failed', '', false],
    ['ok 1 a # ERROR it broke', 'failed', 'it broke', false],
    ['not ok 1 - a', 'failed', '', false],
    ['ok 1 a', 'passed', '', true],
  ])('%s is %s', (line, outcome, reason, ok) => {
    const result = parseKtap(`KTAP version 1\n1..1\n${line}\n`);
    expect(result).toMatchObject({ ok, errors: [], tests: [{ name: 'a', outcome, reason }] });
  });

  test('a whole output that is skipped is neither wrong nor a pass', () => {
    const result = parseKtap('TAP version 13\n1..0 # SKIP no device\n');
    expect(result).toMatchObject({ ok: false, skipped: 'no device', errors: [], tests: [] });
    expect(formatKtapFailures(result)).toBe('');
  });

  test('a plan may come last, and be missing where it is not known', () => {
    expect(parseKtap('KTAP version 1\nok 1 a\nok 2 b\n1..2\n')).toMatchObject({ ok: true, errors: [] });
    expect(parseKtap('KTAP version 1\nok 1 a\nok 2 b\n')).toMatchObject({ ok: true, errors: [] });
  });
});

describe('what is never a pass', () => {
  test.each([
    ['a truncated plan', 'KTAP version 1\n1..3\nok 1 a\nok 2 b\n', 'the plan says 3, and there are 2 results'],
    ['a plan that is exceeded', 'KTAP version 1\n1..1\nok 1 a\nok 2 b\n', 'the plan says 1, and there are 2 results'],
    ['a truncated plan of subtests', 'KTAP version 1\n1..1\n  KTAP version 1\n  # Subtest: s\n  1..2\n  ok 1 a\nok 1 s\n', 'the plan of "s" says 2, and there is 1 result'],
    ['a plan with no result', 'KTAP version 1\n1..2\n', 'the plan says 2, and there are 0 results'],
    ['a number left out', 'KTAP version 1\nok 1 a\nok 3 b\n', 'result 3 comes where 2 should'],
    ['a number told twice', 'KTAP version 1\nok 1 a\nok 1 a\n', 'result 1 comes where 2 should'],
    ['an end within subtests', 'KTAP version 1\n1..1\n  1..1\n  ok 1 a\n', 'the output ends with subtests that have no result line'],
    ['an ok over a subtest that failed', 'KTAP version 1\n1..1\n  1..1\n  not ok 1 a\nok 1 s\n', '"s" is ok, and a subtest of it is not'],
    ['no output', '', 'no KTAP in it'],
    ['a version and no more', 'KTAP version 1\n', 'no result'],
    ['a log without any', '[    1.000000] hello\n', 'no KTAP in it'],
    ['a second plan', 'KTAP version 1\n1..1\nok 1 a\n1..1\n', 'a second plan'],
    ['a result without a number', 'KTAP version 1\nok a\n', 'a result without a number: ok a'],
  ])('%s', (_, text, message) => {
    const result = parseKtap(text);
    expect(result.ok).toBe(false);
    expect(errorsOf(text)).toContain(message);
    expect(formatKtapFailures(result)).toContain(message);
  });

  test('any proper beginning of a whole output that has a plan, cut at a line', () => {
    const lines = NESTED.replaceAll('not ok', 'ok').replace(/ # TIMEOUT.*/, '').split('\n').slice(0, -1);
    expect(parseKtap(lines.join('\n')).ok).toBe(true);
    for (let end = 0; end < lines.length; end++) expect([end, parseKtap(lines.slice(0, end).join('\n')).ok]).toEqual([end, false]);
  });
});

test('any text is taken without an error, and is no pass with one result "not ok" at the top', () => {
  const pieces = fc.constantFrom('KTAP version 1\n', '1..2\n', '  ', 'ok 1 a\n', 'not ok 2 b\n', '# Subtest: x\n', '# SKIP', '\n', '[    1.000000] ', 'ok', '1..');
  fc.assert(fc.property(fc.array(fc.oneof(pieces, fc.string()), { maxLength: 40 }), (texts) => {
    const result = parseKtap(`KTAP version 1\nnot ok 1 z\n${texts.join('')}`);
    expect(result.ok).toBe(false);
    expect(formatKtapFailures(result)).not.toBe('');
  }));
});

test('a deep nest and long lines take no time', () => {
  const from = performance.now();
  parseKtap(Array.from({ length: 5000 }, (_, i) => `${' '.repeat(i)}ok 1 a`).join('\n'));
  for (const piece of [' ', '# SKIP ', 'ok ', '-', '1..', '#']) parseKtap(`KTAP version 1\nok 1 ${piece.repeat(100_000 / piece.length)}x`);
  expect(performance.now() - from).toBeLessThan(2000);
});
