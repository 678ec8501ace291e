// After a test: is the machine fit for the next one? Devices that the test left plugged are unplugged; a
// trouble that nobody reported becomes the test's error. It closes no machine: its caller does.
import { DeadlineError, type RootportError } from '../errors.ts';
import type { Machine } from '../machine/machine.ts';
import { within } from '../wait.ts';
import type { TestRecord } from './current-test.ts';
import { testStart } from './scene.ts';

/** A fault's report is quoted once the console is quiet: the abort comes this much after its first line. */
const FAULT_TIMEOUT_MS = 5000;
/** A test that failed may have left a device in any state: a new boot costs less than a long wait. */
const UNPLUG_AFTER_FAILURE_MS = 5000;

/**
 * True when the next test can use the machine.
 * @throws what broke the machine under the test, unless the test failed with it; the error of an unplug
 * after a test that passed
 */
export async function recover(machine: Machine, record: TestRecord | undefined): Promise<boolean> {
  const failed = (record?.errors.length ?? 0) > 0;
  try {
    await settle(machine);
    for (const plugged of machine.innards.plugged.filter((one) => testStart(machine)?.plugged.has(one) === false)) {
      await machine.unplug(plugged.device, failed ? { timeoutMs: UNPLUG_AFTER_FAILURE_MS } : {});
    }
    await settle(machine); // the unplug may have been what it could not bear
    return true;
  } catch (error) {
    const trouble = machine.signal.aborted ? machine.signal.reason as Error : error as Error;
    const news = machine.signal.aborted ? !isAmong(trouble, record?.errors ?? []) : !failed;
    if (!news) return false;
    throw trouble instanceof DeadlineError ? leftPlugged(trouble) : trouble;
  }
}

/** Let what the test caused show: the guest answers, and a fault that it printed has been raised. */
async function settle(machine: Machine): Promise<void> {
  machine.signal.throwIfAborted();
  await machine.guest.shell.run(':', { timeoutMs: FAULT_TIMEOUT_MS });
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
