// After a test: is the machine fit for the next one? Devices that the test left plugged are unplugged; a
// trouble that nobody reported becomes the test's error. It closes no machine: its caller does.
import { DeadlineError, type RootportError } from '../errors.ts';
import type { Machine } from '../machine/machine.ts';
import { within } from '../wait.ts';
import type { TestRecord } from './current-test.ts';
import { checkWanted, isWantedFault, unwantedFault, unwantedReports } from './kernel-reports.ts';
import { testStart } from './scene.ts';

/** A fault's report is quoted once the console is quiet: the abort comes this much after its first line. */
const FAULT_TIMEOUT_MS = 5000;
/** A test that failed may have left a device in any state: a new boot costs less than a long wait. */
const UNPLUG_AFTER_FAILURE_MS = 5000;

/**
 * True when the next test can use the machine; with `again: false` there is none that will, and nothing is unplugged.
 * @throws what broke the machine under the test, unless the test failed with it; the error of an unplug
 * after a test that passed
 */
export async function recover(machine: Machine, record: TestRecord | undefined, { again }: { readonly again: boolean }): Promise<boolean> {
  const failed = (record?.errors.length ?? 0) > 0;
  try {
    await settle(machine);
    const left = again ? machine.innards.plugged.filter((one) => testStart(machine)?.plugged.has(one) === false) : [];
    for (const { device } of left) await machine.unplug(device, failed ? { timeoutMs: UNPLUG_AFTER_FAILURE_MS } : {});
    if (left.length > 0) await settle(machine); // the unplug may have been what it could not bear
  } catch (error) {
    const trouble = machine.signal.aborted ? machine.signal.reason as Error : error as Error;
    if (isWantedFault(machine, trouble, record)) {
      await tellReports(machine, record);
      return false;
    }
    const news = machine.signal.aborted ? !isAmong(trouble, record?.errors ?? []) : !failed;
    if (!news) return false;
    throw trouble instanceof DeadlineError ? leftPlugged(trouble) : trouble;
  }
  await tellReports(machine, record);
  return true;
}

/**
 * Kernel reports that the test did not want, and wanted ones that did not come.
 * @throws GuestFault, AssertionError
 */
export async function tellReports(machine: Machine, record: TestRecord | undefined): Promise<void> {
  const told = (record?.errors ?? []).map((error) => (error instanceof Error ? `${error.message}\n${error.stack}` : String(error))).join('\n');
  const fault = await unwantedFault(machine, unwantedReports(machine, record).filter(({ title }) => !told.includes(title)));
  if (fault !== undefined) throw fault.on(machine.innards.trouble.context() ?? { commandLine: machine.repro, consoleTail: '', stderr: '' });
  checkWanted(record);
}

let marks = 0;

/** Let what the test caused show: the guest answers, and a fault that it printed has been raised. */
async function settle(machine: Machine): Promise<void> {
  machine.signal.throwIfAborted();
  // What the kernel printed before a mark of ours has reached the console when the mark has.
  const mark = `rootport: settled ${++marks}`;
  const from = machine.console.mark();
  await machine.guest.shell.run(`echo '${mark}' >/dev/kmsg`, { timeoutMs: FAULT_TIMEOUT_MS });
  await machine.console.waitForLine(new RegExp(`${mark}\\s*$`), { from, timeoutMs: FAULT_TIMEOUT_MS, signal: machine.signal, what: 'the guest\'s kernel log on the console' })
    .catch((error: unknown) => { if (!(error instanceof DeadlineError)) throw error; });
  const before = testStart(machine)?.reports ?? 0;
  if (!machine.kernelLog.reports.slice(before).some(({ fatal }) => fatal)) return;
  const never = new Promise<never>(() => {});
  await within(never, { timeoutMs: FAULT_TIMEOUT_MS, what: 'a kernel fault to be raised', signal: machine.signal });
}

function isAmong(trouble: Error, errors: readonly unknown[]): boolean {
  const { summary } = trouble as Partial<RootportError>;
  const text = (summary ?? trouble.message).split('\n')[0] ?? '';
  return errors.some((error) => error === trouble ||
    (error instanceof Error && (error.cause === trouble || `${error.message}\n${error.stack}`.includes(text))));
}

function leftPlugged(error: DeadlineError): DeadlineError {
  return new DeadlineError(error.waitedFor, error.timeoutMs, {
    hint: 'the test ended with a device plugged that could not be unplugged: release what its back end holds, or unplug it in the test',
    ...(error.context === undefined ? {} : { context: error.context }),
  });
}
