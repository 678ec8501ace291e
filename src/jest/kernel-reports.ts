// Kernel reports of a test: what it wants (expectKernelReport) and what came unwanted, which fails it even when
// its assertions passed. Reports are those of the console, which carries every message once the guest is up.
// It neither boots nor closes a machine.
import { AssertionError } from 'node:assert';
import { DeadlineError, GuestFault, RootportError, UsageError } from '../errors.ts';
import type { KernelReport } from '../guest/kernel-log.ts';
import type { KernelReportKind } from '../guest/kernel-signs.ts';
import { formatSymbolised } from '../guest/symbolise.ts';
import type { Machine } from '../machine/machine.ts';
import { within } from '../wait.ts';
import { currentTest, type TestRecord } from './current-test.ts';
import { machinesOf, testStart } from './scene.ts';

export interface WantedReportOptions {
  readonly kind?: KernelReportKind;
  /** How long after it is asked for. Default 30 s. */
  readonly timeoutMs?: number;
}

/** A report that the test wants. Disposing waits for it: `await using wanted = expectKernelReport(/.../)`. */
export interface WantedReport extends AsyncDisposable {
  /**
   * The first report that matches, once it is whole.
   * @throws AssertionError when it does not come in time; it names what came instead
   */
  report(): Promise<KernelReport>;
}

interface Wanted {
  readonly pattern: RegExp;
  readonly kind: KernelReportKind | undefined;
}

const TIMEOUT_MS = 30_000;
/** Many reports never show a last line. */
const QUIET_MS = 500;
/** Its title, or WARN()'s place: those stand at its top. */
const TOP_LINES = 8;
const wanted = new WeakMap<TestRecord, Wanted[]>();

export function expectKernelReport(pattern: RegExp, options?: WantedReportOptions): WantedReport;
export function expectKernelReport(pattern: RegExp, action: () => Promise<unknown>, options?: WantedReportOptions): Promise<KernelReport>;
/**
 * The running test wants a kernel report whose title, or one of whose first lines, the pattern matches: reports that
 * match do not fail it, and that none comes does. With an action: runs it, waits for the report and gives it;
 * that the report ended the action (a GuestFault) is as wanted. A fatal report still costs the machine, and
 * the next test gets a new one.
 * @throws UsageError outside of a test on a machine of useMachine
 */
export function expectKernelReport(
  pattern: RegExp, second?: (() => Promise<unknown>) | WantedReportOptions, third?: WantedReportOptions,
): WantedReport | Promise<KernelReport> {
  const [action, { kind, timeoutMs = TIMEOUT_MS }] = typeof second === 'function' ? [second, third ?? {}] : [undefined, second ?? {}];
  const record = currentTest();
  if (record === undefined || machinesOf(record).length === 0) {
    throw new UsageError('expectKernelReport was called outside of a test on a machine', { hint: 'call it inside test(...), in a file that has useMachine' });
  }
  const want: Wanted = { pattern: new RegExp(pattern.source, pattern.flags.replace(/[gy]/g, '')), kind };
  wanted.set(record, [...wanted.get(record) ?? [], want]);
  let found: Promise<KernelReport> | undefined;
  const report = (): Promise<KernelReport> => (found ??= arrivalOf(record, want, timeoutMs));
  if (action === undefined) return { report, [Symbol.asyncDispose]: async () => { await report(); } };
  return (async () => {
    try {
      await action();
    } catch (error) {
      const machines = machinesOf(record);
      if (!(error instanceof RootportError) || !machines.some(({ signal }) => signal.aborted && signal.reason instanceof GuestFault)) throw error;
      if (cameFor(record, want) === undefined) throw error;
    }
    return report();
  })();
}

/** What came in the test on this machine, and which of it nobody wanted. */
export function unwantedReports(machine: Machine, record: TestRecord | undefined): KernelReport[] {
  const mine = reportsOf(machine);
  const wants = record === undefined ? [] : wanted.get(record) ?? [];
  return mine.filter((report) => !wants.some((want) => matches(want, report)));
}

/** The trouble that ended the machine is a report that the test wants. */
export function isWantedFault(machine: Machine, trouble: unknown, record: TestRecord | undefined): boolean {
  if (!(trouble instanceof GuestFault)) return false;
  return reportsOf(machine).some(({ title }) => title === trouble.title) && !unwantedReports(machine, record).some(({ title }) => title === trouble.title);
}

/**
 * @throws AssertionError for the first wanted report that never came, of a test that has not failed
 */
export function checkWanted(record: TestRecord | undefined): void {
  if (record === undefined || record.errors.length > 0) return;
  const missing = (wanted.get(record) ?? []).find((want) => cameFor(record, want) === undefined);
  if (missing !== undefined) throw absent(record, missing, 'in the test');
}

/** The error of a test under which a report appeared that nobody wanted, with the guilty place where it is known. */
export async function unwantedFault(machine: Machine, unwanted: readonly KernelReport[]): Promise<GuestFault | undefined> {
  const [first, ...more] = unwanted;
  if (first === undefined) return undefined;
  const told = more.length === 0 ? [] : [`and ${more.length} more: ${more.slice(0, 5).map(({ title }) => title).join('; ')}`];
  return new GuestFault(first.title, [...await guiltLine(machine, first), ...first.lines, ...told].join('\n'), {
    hint: 'a report that the test is about is wanted by expectKernelReport(/.../)',
  });
}

async function guiltLine(machine: Machine, report: KernelReport): Promise<string[]> {
  if (report.guilty === undefined) return [];
  const [frame] = await machine.guest.symbolise([report.guilty]);
  return frame === undefined ? [] : [`guilty: ${formatSymbolised(frame)}`];
}

function reportsOf(machine: Machine): readonly KernelReport[] {
  return machine.kernelLog.reports.slice(testStart(machine)?.reports ?? 0);
}

function cameFor(record: TestRecord, want: Wanted): { report: KernelReport; machine: Machine } | undefined {
  for (const machine of machinesOf(record)) {
    const report = reportsOf(machine).find((one) => matches(want, one));
    if (report !== undefined) return { report, machine };
  }
  return undefined;
}

function matches({ pattern, kind }: Wanted, report: KernelReport): boolean {
  return (kind === undefined || report.kind === kind) && [report.title, ...report.lines.slice(0, TOP_LINES)].some((text) => pattern.test(text));
}

async function arrivalOf(record: TestRecord, want: Wanted, timeoutMs: number): Promise<KernelReport> {
  const stops: (() => void)[] = [];
  try {
    const come = new Promise<{ report: KernelReport; machine: Machine }>((resolve) => {
      // A warning is announced before the line that says where it stands: look again when a report ends.
      const look = (): void => { const came = cameFor(record, want); if (came !== undefined) resolve(came); };
      for (const { kernelLog, signal } of machinesOf(record)) {
        stops.push(kernelLog.onStart(look), kernelLog.onReport(look));
        signal.addEventListener('abort', look);
        stops.push(() => signal.removeEventListener('abort', look));
      }
      look();
    });
    const { report, machine } = await within(come, { timeoutMs, what: 'the report' });
    if (!report.ended) {
      const whole = new Promise<void>((resolve) => {
        stops.push(machine.kernelLog.onReport((one) => { if (one === report) resolve(); }));
      });
      await within(whole, { timeoutMs: QUIET_MS, what: 'the report to end', signal: machine.signal }).catch(() => undefined);
    }
    // The machine ends with a fatal one: let that be known before the test goes on.
    if (report.fatal && !machine.signal.aborted) {
      await within(new Promise<never>(() => {}), { timeoutMs: TIMEOUT_MS, what: 'the fault to be raised', signal: machine.signal }).catch(() => undefined);
    }
    return report;
  } catch (error) {
    throw error instanceof DeadlineError ? absent(record, want, `in ${timeoutMs} ms`) : error;
  } finally {
    for (const stop of stops) stop();
  }
}

function absent(record: TestRecord, { pattern, kind }: Wanted, where: string): AssertionError {
  const came = machinesOf(record).flatMap((machine) => reportsOf(machine)).map((one) => `\n  ${one.kind}: ${one.title}`);
  return new AssertionError({
    message: `expectKernelReport: no report${kind === undefined ? '' : ` of kind ${kind}`} that matches ${String(pattern)} came ${where}; ${came.length === 0 ? 'none came at all' : `what came instead:${came.join('')}`}`,
  });
}
