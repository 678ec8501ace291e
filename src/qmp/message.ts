// The messages of the QEMU Machine Protocol: their shapes, and one line of text -> one message.
// Source: QEMU docs/interop/qmp-spec.rst, section 2. Not here: what the commands mean
// (docs/interop/qemu-qmp-ref), and out-of-band execution, which this client does not ask for.
import { ProtocolError } from '../errors.ts';

export interface QemuVersion {
  readonly major: number;
  readonly minor: number;
  readonly micro: number;
  /** The distribution's own name of the build: `Debian 1:7.2+dfsg-7+deb12u22`; may be empty. */
  readonly package: string;
}

/** The first message of a connection. */
export interface QmpGreeting {
  readonly version: QemuVersion;
  /** What the server offers, such as `oob`. */
  readonly capabilities: readonly string[];
}

/** Something happened in QEMU that no command of ours waits for. */
export interface QmpEvent {
  /** DEVICE_DELETED, RESUME, SHUTDOWN ... */
  readonly event: string;
  /** Empty when the event has none. */
  readonly data: Readonly<Record<string, unknown>>;
  /** When QEMU sent it, milliseconds since the Unix epoch by the host's clock; NaN if QEMU could not tell. */
  readonly timestampMs: number;
}

/** An answer's id: ours are integers from 1 on. Undefined when the answer has none. */
export type QmpId = unknown;

export type QmpMessage =
  | { readonly kind: 'greeting'; readonly greeting: QmpGreeting }
  | { readonly kind: 'event'; readonly event: QmpEvent }
  | { readonly kind: 'return'; readonly id: QmpId; readonly value: unknown }
  | { readonly kind: 'error'; readonly id: QmpId; readonly errorClass: string; readonly description: string };

/** What is sent: one JSON object on a line of its own. */
export interface QmpCommand {
  readonly execute: string;
  readonly arguments?: Readonly<Record<string, unknown>>;
  readonly id: number;
}

/**
 * One line from QEMU. Numbers come as JavaScript numbers: 64-bit values over 2^53 are rounded.
 * Throws a ProtocolError that quotes the line when it is not a message of QMP.
 */
export function parseMessage(line: string): QmpMessage {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch (cause) {
    throw garbage('text that is not JSON', line, cause);
  }
  if (!isRecord(value)) throw garbage('JSON that is not an object', line);
  if ('QMP' in value) return { kind: 'greeting', greeting: greetingOf(value.QMP, line) };
  if ('event' in value) return { kind: 'event', event: eventOf(value, line) };
  if ('return' in value) return { kind: 'return', id: value.id, value: value.return };
  if ('error' in value) {
    const { error } = value;
    if (!isRecord(error) || typeof error.class !== 'string' || typeof error.desc !== 'string') {
      throw garbage('an error without class and desc', line);
    }
    return { kind: 'error', id: value.id, errorClass: error.class, description: error.desc };
  }
  throw garbage('an object that is neither greeting, event, return nor error', line);
}

function greetingOf(value: unknown, line: string): QmpGreeting {
  const version = isRecord(value) ? value.version : undefined;
  const qemu = isRecord(version) ? version.qemu : undefined;
  if (!isRecord(value) || !isRecord(version) || !isRecord(qemu)) throw garbage('a greeting without a version', line);
  const { major, minor, micro } = qemu;
  if (typeof major !== 'number' || typeof minor !== 'number' || typeof micro !== 'number') {
    throw garbage('a greeting without a version', line);
  }
  const capabilities = Array.isArray(value.capabilities) ? value.capabilities.filter((item) => typeof item === 'string') : [];
  return { version: { major, minor, micro, package: typeof version.package === 'string' ? version.package : '' }, capabilities };
}

function eventOf(value: Record<string, unknown>, line: string): QmpEvent {
  if (typeof value.event !== 'string') throw garbage('an event without a name', line);
  const { seconds, microseconds } = isRecord(value.timestamp) ? value.timestamp : {};
  // QEMU gives -1 when the host's clock could not be read.
  const timed = typeof seconds === 'number' && typeof microseconds === 'number' && seconds >= 0;
  return {
    event: value.event,
    data: isRecord(value.data) ? value.data : {},
    timestampMs: timed ? seconds * 1000 + microseconds / 1000 : Number.NaN,
  };
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function garbage(what: string, line: string, cause?: unknown): ProtocolError {
  const quoted = line.length > 200 ? `${line.slice(0, 200)}... (${line.length} characters)` : line;
  return new ProtocolError(`QMP: QEMU sent ${what}: ${JSON.stringify(quoted)}`, { received: line, cause });
}
