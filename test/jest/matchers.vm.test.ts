// The matchers, seen to pass and to fail: fixtures/true-claims.suite.ts is true; each claim of
// fixtures/false-claims.suite.ts must fail, and tell why.
import { beforeAll, expect, test } from '@jest/globals';
import { runJest, type ChildRun } from './child-jest.ts';

let run: ChildRun;
beforeAll(async () => {
  run = await runJest('false-claims');
}, 180_000);

/** Rows of witnesses, with their marks, in what a test failed with. */
function table(title: string): string[] {
  const [text = ''] = run.failures.get(title) ?? [];
  return text.split('\n').filter((line) => /^ {2}(x| |\?) {2}(device|VMM|guest|expected)/.test(line)).map((line) => line.replace(/0x[0-9a-f]{8}\b/g, 'ADDRESS').trimEnd());
}

test('every false claim fails, and the run with it', () => {
  expect(run.exitCode).toBe(1);
  expect([...run.failures].filter(([, failures]) => failures.length === 0)).toEqual([]);
  expect(run.record.counts).toEqual({ passed: 0, failed: 9, errored: 4, flaky: 0, skipped: 0 });
});

test('a size that is claimed wrongly is contradicted by all who know it', () => {
  expect(table('a BAR of another size')).toEqual([
    '     expected                  mem32  (any)         0x2000    (any)',
    '     guest: config space       mem32  no            -         ADDRESS',
    '  x  guest: kernel\'s resource  mem32  no            0x100000  ADDRESS  <- size',
    '  x  VMM: query-pci            mem32  no            0x100000  ADDRESS  <- size',
    '  x  VMM: info mtree           -      -             0x100000  ADDRESS  <- size (edu-mmio)',
  ]);
});

test('a BAR that nobody shows is no BAR, and every witness is said to be missing', () => {
  expect(table('a BAR that is not there').slice(1).every((row) => row.startsWith('  ?'))).toBe(true);
  expect(run.failures.get('a BAR that is not there')?.[0]).toContain('nobody shows such a BAR');
});

test('an address and a shape of MSI-X that are claimed wrongly are contradicted by every witness', () => {
  for (const title of ['a BAR at another address', 'another number of vectors']) {
    expect(table(title).length).toBeGreaterThan(3);
    expect(table(title).slice(1).every((row) => row.startsWith('  x'))).toBe(true);
  }
});

/** The rows of a ledger, single-spaced, with their marks. */
function ledger(title: string): string[] {
  const [text = ''] = run.failures.get(title) ?? [];
  const rows = /, since the mark\n([^]*?)\n\n/.exec(text)?.[1] ?? '';
  return rows.split('\n').map((line) => line.trim().replace(/ +/g, ' ').replace(/-\d+-\d+\.svg$/, '-N.svg'));
}

const LEDGER_COLUMNS = 'vector fired sent handled probe pending masked CPU';
const drawn = (title: string): string => `drawn in time: rootport-report/ledger-${title.replaceAll(' ', '-')}-0000-02-00.0-N.svg`;

test('a delivery that did not happen shows what the device, the VMM and the guest count, and which vector moved instead', () => {
  expect(ledger('a delivery on another vector')).toEqual([
    LEDGER_COLUMNS, 'x 2 0 0 0 0 no no 0 <- claimed: at least 1', '3 1 1 1 1 no no 0', '… and 2 that did not move',
    drawn('a delivery on another vector'),
  ]);
  expect(ledger('a delivery too many')).toEqual([LEDGER_COLUMNS, 'x 1 1 1 1 1 no no 0 <- claimed: exactly 2', '… and 3 that did not move', drawn('a delivery too many')]);
});

test('a delivery that a mask holds back was fired, not sent, and is pending', () => {
  expect(ledger('a delivery that was masked')).toEqual([
    LEDGER_COLUMNS, 'x 0 1 0 0 0 yes yes 0 <- claimed: exactly 1; it is still pending', '… and 3 that did not move',
    drawn('a delivery that was masked'),
  ]);
});

test('what an unplug left behind is listed beside what is gone', () => {
  const rows = table('an unplug that left something').map((row) => row.replace(/ +/g, ' ').replace(/\d+ ms/, 'n ms').trim());
  expect(rows).toEqual([
    'expected gone', 'VMM: DEVICE_DELETED gone (after n ms)', 'VMM: query-pci gone (it shows no such device)',
    'x guest: driver\'s remove() did not return <- verdict (mine)', 'x guest: /proc/interrupts left behind <- verdict (40: 0 PCI-MSI mine)',
  ]);
});

test('a log with a warning is shown with the warning', () => {
  expect(table('a clean log with a warning in it')[1]).toMatch(/x {2}guest: dmesg {2}1 .*WARNING: CPU: 0 PID: 77 at drivers\/mine\.c:5/);
});

test('a failure carries the machine, its kernel log and the line that reproduces it', () => {
  const [text = ''] = run.failures.get('a clean log with a warning in it') ?? [];
  expect(text).toMatch(/\nmachine: q35, QEMU .*\nkernel log of this test:\n {2}\[.*WARNING: CPU: 0 PID: 77/);
  expect(text).toMatch(/\nrepro: .*qemu-system-x86_64/);
});

test.each([
  ['a vector that is not there', /MSI-X vectors 0 to 3; 4 is none/],
  ['no delivery, the other way round', /has no \.not.*\n {2}hint: claim exactly: 0/],
  ['a claim with a misspelt field', /knows no "size"\n {2}hint: it takes bar, sizeBytes/],
  ['a promise that was not awaited', /got a promise\n {2}hint: await it/],
])('a claim that makes no sense is the test\'s error, with what to do: %s', (title, message) => {
  const [text = ''] = run.failures.get(title) ?? [];
  expect(text).toMatch(/^UsageError: /);
  expect(text).toMatch(message);
  expect(text).not.toContain('repro:');
});

test.each([
  ['the default QEMU and kernel', {}],
  // Another spelling of MSI-X in /proc/interrupts, and of the trace.
  ['QEMU 7.2 and Linux 6.12', { ROOTPORT_QEMU: '7.2', ROOTPORT_KERNEL: '6.12', ROOTPORT_ACCEL: 'tcg' }],
])('claims that are true pass, with %s', async (_, env) => {
  const { failures, exitCode, text } = await runJest('true-claims', env);
  expect([...failures].filter(([, texts]) => texts.length > 0)).toEqual([]);
  expect(failures.size).toBe(6);
  expect(exitCode).toBe(0);
  expect(text).toMatch(/^rootport: QEMU .*, Linux .*, tcg: /m);
}, 300_000);
