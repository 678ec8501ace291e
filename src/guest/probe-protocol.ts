// The text protocol of rootport_probe's ctl file (images/probe/control.c), formatted and parsed. Pure.
// One command a line; its answer is lines of data, then `ok [VALUE]` or `err ERRNO NAME REASON`.
import { ProtocolError, UsageError, type RootportError } from '../errors.ts';

export const PROBE_DRIVER = 'rootport_probe';
export const PROBE_DEBUGFS = `/sys/kernel/debug/${PROBE_DRIVER}`;
/** Bytes that one `dma write` line holds with room to spare (RPP_LINE_MAX is 8192 characters). */
export const DMA_WRITE_BYTES = 3072;

export type VectorKind = 'msix' | 'msi' | 'intx';

/** What the guest's handler counted on one vector since it was allocated. */
export interface VectorCount {
  readonly vector: number;
  /** Linux's interrupt number, as in /proc/irq. */
  readonly irq: number;
  /** Interrupts handled. */
  readonly count: number;
  /** The CPU that handled the last; undefined before the first. */
  readonly lastCpu: number | undefined;
  /** When, on the guest's CLOCK_MONOTONIC, in nanoseconds; undefined before the first. */
  readonly lastTimeNs: bigint | undefined;
  /** By maskVector, or (INTx without an acknowledge rule) by the handler itself. */
  readonly masked: boolean;
  /** Calls of the handler that found nothing of this function (a shared INTx line). */
  readonly refused: number;
  /** The status register of the acknowledge rule at the last interrupt; 0 without a rule. */
  readonly lastStatus: bigint;
}

/** One thing that the guest's PCI core asked of the probe module. */
export interface ProbeEvent {
  /** From 1 when the module was loaded; the newest 1024 are kept. */
  readonly sequence: number;
  /** The guest's CLOCK_MONOTONIC, in nanoseconds. */
  readonly timeNs: bigint;
  /** `probe`, `remove` (began), `removed` (ended), `storm`, and the AER callbacks by their names. */
  readonly kind: string;
  readonly bdf: string;
  readonly vendorId: number;
  readonly deviceId: number;
  /** probe: its errno, 0 for success; remove: `present` or `absent` (surprise); error_detected: the channel's state. */
  readonly detail: string;
}

export interface ProbeAnswer {
  readonly lines: readonly string[];
  /** What follows `ok`. */
  readonly value: string;
}

/** How the module refused: the `cause` of the error that a refusal becomes. */
export interface ProbeRefusal {
  readonly errno: number;
  /** `ERANGE` */
  readonly errnoName: string;
  readonly reason: string;
}

/** Refusals that a caller mends by asking for something else. */
const USAGE_ERRNOS: ReadonlySet<string> = new Set(['EINVAL', 'ERANGE', 'ENXIO', 'ENOENT', 'EBUSY', 'EOPNOTSUPP', 'E2BIG']);

/** `0000:01:00.0`, checked, so that it can stand in a path. */
export function checkBdf(bdf: string): string {
  if (!/^[0-9a-f]{4,8}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7]$/.test(bdf)) {
    throw new UsageError(`${JSON.stringify(bdf)} is no PCI function`, { hint: 'a function is written 0000:01:00.0' });
  }
  return bdf;
}

/** A non-negative integer as the module reads it. */
export function formatNumber(value: number | bigint, what: string): string {
  if (typeof value === 'number' ? !Number.isSafeInteger(value) || value < 0 : value < 0n) {
    throw new UsageError(`${what} is ${value}, and must be a non-negative integer`);
  }
  return `0x${value.toString(16)}`;
}

/** How long an answer is due: what reads it quickest. */
export type AnswerLength = 'one line' | 'some lines' | 'many lines';

/** The shell reads some lines itself, a byte a call: a `cat` costs ten times as much, until there are hundreds. */
const READ_ANSWER: Readonly<Record<AnswerLength, string>> = {
  'one line': 'read -r a <&3 && echo "$a"',
  'some lines': 'l=; while read -r a <&3; do l=$a; echo "$a"; done; case $l in ok*|err*) ;; *) false ;; esac',
  'many lines': 'cat <&3',
};

/** The shell line that asks one command. An answer that unplugging cut short is none: it ends with ENODEV. */
export function askScript(bdf: string, command: string, answer: AnswerLength): string {
  return `{ echo '${command}' >&3; ${READ_ANSWER[answer]}; } 2>/dev/null 3<>${PROBE_DEBUGFS}/${checkBdf(bdf)}/ctl || echo 'err 19 ENODEV the probe is not bound to it'`;
}

/**
 * @throws UsageError when the module refused what a caller can mend, else ProtocolError; both have the
 * refusal as their cause
 */
export function parseAnswer(bdf: string, command: string, text: string): ProbeAnswer {
  const lines = text.split('\n').filter((line) => line !== '');
  const last = lines.pop() ?? '';
  if (last === 'ok' || last.startsWith('ok ')) return { lines, value: last.slice(3) };
  const [, errno, errnoName, reason] = /^err (\d+) (\S+) ?(.*)$/.exec(lines.find((line) => line.startsWith('err ')) ?? last) ?? [];
  if (errno === undefined || errnoName === undefined) {
    throw new ProtocolError(`${PROBE_DRIVER} gave no answer to ${JSON.stringify(command)} on ${bdf}`, { sent: command, received: text });
  }
  throw refusal(bdf, command, { errno: Number(errno), errnoName, reason: reason ?? '' });
}

function refusal(bdf: string, command: string, cause: ProbeRefusal): RootportError {
  const { errno, errnoName, reason } = cause;
  const shown = command.length > 80 ? `${command.slice(0, 80)}...` : command;
  const message = `${PROBE_DRIVER} refused ${JSON.stringify(shown)} on ${bdf}: ${errnoName} (${errno})${reason === '' ? '' : `, ${reason}`}`;
  if (USAGE_ERRNOS.has(errnoName)) return new UsageError(message, { cause });
  return new ProtocolError(message, { cause, sent: command, received: cause });
}

/** `ERANGE` out of an error that a probe call rejected with, or undefined. */
export function errnoNameOf(error: unknown): string | undefined {
  const cause = error instanceof Error ? error.cause : undefined;
  return typeof cause === 'object' && cause !== null && 'errnoName' in cause && typeof cause.errnoName === 'string'
    ? cause.errnoName : undefined;
}

/** The data lines of `irq counts`. */
export function parseCounts(lines: readonly string[]): VectorCount[] {
  return lines.map((line) => {
    const [mark, vector, irq, count, cpu, timeNs, masked, refused, status, ...more] = line.split(' ');
    if (mark !== 'v' || status === undefined || more.length > 0) throw unexpected('irq counts', line);
    const never = cpu === '-1';
    return {
      vector: Number(vector), irq: Number(irq), count: Number(count),
      lastCpu: never ? undefined : Number(cpu), lastTimeNs: never ? undefined : BigInt(timeNs ?? ''),
      masked: masked === '1', refused: Number(refused), lastStatus: BigInt(status),
    };
  });
}

/** The value of `irq pending`: bit k is vector k. */
export function parsePending(value: string): bigint {
  const words = value.split(' ').map((word) => BigInt(word));
  return words.reduceRight((bits, word) => bits << 64n | word, 0n);
}

/** The text of the module's `events` file. */
export function parseEvents(text: string): ProbeEvent[] {
  return text.split('\n').filter((line) => line !== '').map((line) => {
    const match = /^(\d+) (\d+) (\S+) (\S+) ([0-9a-f]{4}):([0-9a-f]{4})(?: (.*))?$/.exec(line);
    if (match === null) throw unexpected('events', line);
    const [, sequence = '', timeNs = '', kind = '', bdf = '', vendor = '', device = '', detail = ''] = match;
    return { sequence: Number(sequence), timeNs: BigInt(timeNs), kind, bdf, vendorId: parseInt(vendor, 16), deviceId: parseInt(device, 16), detail };
  });
}

export function unexpected(command: string, received: string): ProtocolError {
  return new ProtocolError(`${PROBE_DRIVER} answered ${JSON.stringify(command)} with ${JSON.stringify(received)}`, { sent: command, received });
}
