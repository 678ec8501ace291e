// The scene of a test on a machine: where its logs stood when the test began, and, when it failed, what the
// machine did since, put into the error's text where every reporter shows it.
import { RootportError } from '../errors.ts';
import type { Machine } from '../machine/machine.ts';
import type { Plugged } from '../machine/plugged.ts';
import type { TestRecord } from './current-test.ts';

export interface TestStart {
  /** What was plugged already: it belongs to the file, not to the test. */
  readonly plugged: ReadonlySet<Plugged>;
  /** The message in the guest's kernel log that the test's own lines come after. */
  readonly mark: string;
  readonly consoleLine: number;
  readonly deviceLogLines: number;
  /** Kernel reports (WARN, BUG, oops) seen before. */
  readonly reports: number;
}

const LOG_LINES_MAX = 60;
const starts = new WeakMap<Machine, TestStart>();
let marks = 0;

/** A test begins on this machine. */
export async function beginTest(machine: Machine, name: string): Promise<void> {
  const mark = `rootport: test ${++marks}: ${name.replace(/[^\x20-\x7e]/g, '?').replaceAll('\'', '').slice(0, 160)}`;
  await machine.guest.shell.run(`echo '${mark}' >/dev/kmsg`);
  starts.set(machine, {
    plugged: new Set(machine.innards.plugged),
    mark,
    consoleLine: machine.console.mark(),
    deviceLogLines: machine.deviceLog.length,
    reports: machine.kernelLog.reports.length,
  });
}

/** Where the running test began on this machine; undefined when none did. */
export function testStart(machine: Machine): TestStart | undefined {
  return starts.get(machine);
}

/**
 * The kernel's messages since the test began: its ring buffer, or, when the guest no longer answers, the
 * lines that reached the console.
 */
export async function kernelLogOfTest(machine: Machine): Promise<string[]> {
  const start = starts.get(machine);
  if (!machine.signal.aborted) {
    try {
      const { stdout } = await machine.guest.shell.run('dmesg', { timeoutMs: 5000 });
      const lines = stdout.trimEnd().split('\n');
      const at = start === undefined ? -1 : lines.findLastIndex((line) => line.endsWith(start.mark));
      return lines.slice(at + 1);
    } catch {
      // The console is what there is.
    }
  }
  return machine.console.lines.filter(({ number }) => number >= (start?.consoleLine ?? 0)).map(({ text }) => text);
}

/** Put the machine's side of a failed test into its errors. Nothing for a test without errors. */
export async function tellScene(machine: Machine, record: TestRecord | undefined): Promise<void> {
  const errors = (record?.errors ?? []).filter((error) => error instanceof Error);
  const [first] = errors;
  if (first === undefined) return;
  const withContext = first instanceof RootportError && first.context !== undefined;
  const device = machine.deviceLog.slice(starts.get(machine)?.deviceLogLines ?? 0);
  const parts = [
    `machine: ${machine.description}`,
    ...(withContext ? [] : [`repro: ${machine.repro}`]),
    ...section('kernel log of this test', await kernelLogOfTest(machine)),
    ...section('log of the devices\' back ends', device),
    ...(withContext ? [] : section('QEMU\'s stderr', machine.innards.process.stderr.split('\n').filter((line) => !isTrace(line)))),
  ];
  addToStack(first, `\n\n${parts.join('\n')}`);
}

/** A line of QEMU's trace log, which the interrupt witness reads and nobody else wants to. */
function isTrace(line: string): boolean {
  return line === '' || /^(?:\d+@\d+\.\d+:)?apic_deliver_irq /.test(line);
}

function section(title: string, lines: readonly string[]): string[] {
  if (lines.length === 0) return [`${title}: (empty)`];
  const cut = lines.length > LOG_LINES_MAX ? [`... ${lines.length - LOG_LINES_MAX} lines before ...`] : [];
  return [`${title}:`, ...[...cut, ...lines.slice(-LOG_LINES_MAX)].map((line) => `  ${line}`)];
}

/** Between an error's message and its frames: Jest prints the stack. */
function addToStack(error: Error, text: string): void {
  const stack = error.stack ?? `${error.name}: ${error.message}`;
  const frames = stack.search(/\n {4}at /);
  error.stack = frames < 0 ? stack + text : stack.slice(0, frames) + text + stack.slice(frames);
}
