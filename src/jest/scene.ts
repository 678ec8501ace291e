// The scene of a test on a machine: where its logs stood when the test began, and, when it failed, what the
// machine did since, put into the error's text where every reporter shows it.
import { RootportError, UsageError } from '../errors.ts';
import { Machine } from '../machine/machine.ts';
import type { Plugged } from '../machine/plugged.ts';
import { currentTest, type TestRecord } from './current-test.ts';
import type { MachineEvidence } from './evidence.ts';
import { evidenceOf, look } from './machine-evidence.ts';

export interface TestStart {
  /** What was plugged already: it belongs to the file, not to the test. */
  readonly plugged: ReadonlySet<Plugged>;
  /** The message in the guest's kernel log that the test's own lines come after. */
  readonly mark: string;
  readonly consoleLine: number;
  readonly deviceLogLines: number;
  /** Kernel reports (WARN, BUG, oops) seen before. */
  readonly reports: number;
  readonly evidence: MachineEvidence;
}

const LOG_LINES_MAX = 60;
/** By its innards: `vm` of useMachine stands for a machine and is not the same object. */
const starts = new WeakMap<object, TestStart>();
const machines = new WeakMap<object, Machine>();
const ofTest = new WeakMap<TestRecord, Machine[]>();
let marks = 0;

/** A test begins on this machine. */
export async function beginTest(machine: Machine, name: string): Promise<void> {
  const mark = `rootport: test ${++marks}: ${name.replace(/[^\x20-\x7e]/g, '?').replaceAll('\'', '').slice(0, 160)}`;
  await machine.guest.shell.run(`echo '${mark}' >/dev/kmsg`);
  machines.set(machine.guest, machine);
  const record = currentTest();
  const [consoleLine, deviceLogLines] = [machine.console.mark(), machine.deviceLog.length];
  const evidence = evidenceOf(machine, consoleLine, deviceLogLines);
  if (record !== undefined) {
    ofTest.set(record, [...ofTest.get(record) ?? [], machine]);
    record.evidence.machines.push(evidence);
  }
  starts.set(machine.innards, {
    plugged: new Set(machine.innards.plugged), mark, consoleLine, deviceLogLines,
    reports: machine.kernelLog.reports.length, evidence,
  });
}

/** Where the running test began on this machine; undefined when none did. */
export function testStart(machine: Machine): TestStart | undefined {
  return starts.get(machine.innards);
}

/** The machines on which the test began. */
export function machinesOf(record: TestRecord): readonly Machine[] {
  return ofTest.get(record) ?? [];
}

/** The machine of a Machine, of what useMachine returned, or of a guest on which a test began. */
export function machineOf(received: unknown): Machine | undefined {
  if (received instanceof Machine) return received;
  return typeof received === 'object' && received !== null ? machines.get(received) : undefined;
}

/** The kernel's ring buffer since the test began, or whole; undefined when the guest no longer answers. */
export async function kernelLogSince(machine: Machine, since: 'test' | 'boot'): Promise<string[] | undefined> {
  if (machine.signal.aborted) return undefined;
  try {
    const { stdout } = await machine.guest.shell.run('dmesg', { timeoutMs: 5000 });
    const lines = stdout.trimEnd().split('\n');
    const mark = since === 'test' ? testStart(machine)?.mark : undefined;
    return mark === undefined ? lines : lines.slice(lines.findLastIndex((line) => line.endsWith(mark)) + 1);
  } catch (error) {
    if (error instanceof RootportError) return undefined;
    throw error;
  }
}

/** The ring buffer, or, when the guest does not answer, the lines that reached the console. */
async function kernelLogOfTest(machine: Machine): Promise<string[]> {
  const from = testStart(machine)?.consoleLine ?? 0;
  return await kernelLogSince(machine, 'test') ??
    machine.console.lines.filter(({ number }) => number >= from).map(({ text }) => text);
}

/**
 * Look at the machine once more for the report; and put its side of a failed test into the test's first error. No error
 * gets it in a test without any, nor a UsageError: no machine had a part in it.
 */
export async function tellScene(machine: Machine, record: TestRecord | undefined): Promise<void> {
  const start = testStart(machine);
  if (start !== undefined) await look(machine, start.evidence);
  const errors = (record?.errors ?? []).filter((error) => error instanceof Error);
  const [first] = errors;
  if (first === undefined || first instanceof UsageError) return;
  const withContext = first instanceof RootportError && first.context !== undefined;
  const device = machine.deviceLog.slice(start?.deviceLogLines ?? 0);
  const kernelLog = await kernelLogOfTest(machine);
  if (start !== undefined) start.evidence.kernelLog = kernelLog;
  const parts = [
    `machine: ${machine.description}`,
    ...section('kernel log of this test', kernelLog),
    ...section('log of the devices\' back ends', device),
    ...(withContext ? [] : [
      ...section('QEMU\'s stderr', machine.innards.process.stderr.split('\n').filter((line) => line !== '')),
      `repro: ${machine.repro}`,
    ]),
  ];
  addToStack(first, `\n\n${parts.join('\n')}`);
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
