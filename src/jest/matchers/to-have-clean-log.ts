// toHaveCleanLog: since the test began, the guest's kernel has reported no fault of its own: no WARN, BUG,
// oops, hung task, sanitizer's report. Seen in its ring buffer and on the console: a dying kernel has only
// the second.
import type { MatcherContext } from 'expect';
import { UsageError } from '../../errors.ts';
import { KernelLog, type KernelReport } from '../../guest/kernel-log.ts';
import type { Machine } from '../../machine/machine.ts';
import { compareWitnesses, type Testimony } from '../../report/witness-table.ts';
import { kernelLogSince, machineOf, testStart } from '../scene.ts';
import { checkFields, outcome, type MatcherResult } from './format.ts';

export interface CleanLogClaim {
  /** `'test'` (default): since the running test began on this machine. `'boot'`: since it booted. */
  readonly since?: 'test' | 'boot';
  /** Reports whose title this matches are allowed. */
  readonly except?: RegExp;
}

const COLUMNS = ['reports'] as const;

export async function toHaveCleanLog(this: MatcherContext, received: unknown, claim: CleanLogClaim = {}): Promise<MatcherResult> {
  const machine = machineOf(received);
  if (machine === undefined) {
    throw new UsageError('toHaveCleanLog takes a machine or its guest', { hint: 'expect(vm).toHaveCleanLog(), of a machine of useMachine or boot' });
  }
  checkFields(claim, ['since', 'except'], 'toHaveCleanLog');
  const since = claim.since ?? 'test';
  const ring = await fromRing(machine, since);
  const console = machine.kernelLog.reports.slice(since === 'boot' ? 0 : testStart(machine)?.reports ?? 0);
  const unallowed = (reports: readonly KernelReport[]): KernelReport[] => reports.filter(({ title }) => claim.except?.test(title) !== true);
  const ringReports = ring === undefined ? undefined : unallowed(ring);
  const consoleReports = unallowed(console);
  const testimonies: Testimony[] = [
    ringReports === undefined ? { witness: 'guest: dmesg', says: {}, missing: 'the guest does not answer' } : tell('guest: dmesg', ringReports),
    // The console shows what the kernel's console level lets through: that it is clean says little.
    consoleReports.length === 0 && ringReports !== undefined ? { witness: 'VMM: console', says: {}, note: 'shows none' } : tell('VMM: console', consoleReports),
  ];
  const expected = { reports: '0' };
  const comparison = compareWitnesses(COLUMNS, expected, testimonies);
  const [first] = ringReports?.length ? ringReports : consoleReports;
  return outcome(
    comparison.agreed, this.utils.matcherHint('toHaveCleanLog', 'machine', '', { isNot: this.isNot === true }),
    `kernel reports since the ${since === 'boot' ? 'machine booted' : 'test began'}`, COLUMNS, expected, testimonies, comparison,
    first === undefined ? '' : `the first report:\n${first.lines.slice(0, 40).map((line) => `  ${line}`).join('\n')}`,
  );
}

function tell(witness: string, reports: readonly KernelReport[]): Testimony {
  const titles = reports.map(({ title }) => title).slice(0, 3).join('; ');
  return { witness, says: { reports: String(reports.length) }, ...(titles === '' ? {} : { note: titles }) };
}

async function fromRing(machine: Machine, since: 'test' | 'boot'): Promise<readonly KernelReport[] | undefined> {
  const lines = await kernelLogSince(machine, since);
  if (lines === undefined) return undefined;
  const log = new KernelLog();
  for (const line of lines) log.line(line);
  log.flush();
  return log.reports;
}
