// The whole error tree of rootport.
//
//   RootportError                what went wrong, `hint`: what to do about it, `context`: the machine
//   ├── UsageError               the caller's to fix: unknown device, port, kernel, option
//   ├── EnvironmentError         the host lacks something; the hint is the command that mends it
//   │   └── SystemCallError      a system call of the native addon failed; `code` is EMFILE, EPIPE, ...
//   ├── BootError                the guest did not come up, or a module did not build or load
//   ├── DeadlineError            a wait ended without its event; says what it waited for
//   ├── MachineExitError         QEMU exited under a wait, asked to or not
//   ├── ProtocolError            a peer (QMP, qtest, vhost-user, virtqueue, probe) broke its protocol;
//   │   ├── QmpError             carries what was sent and what came back
//   │   └── QtestError           QEMU refused a qtest command
//   ├── GuestCommandError        a command in the guest exited non-zero, or was killed
//   └── GuestFault               panic, oops, BUG, hung task: the driver under test's fault
//
// An assertion or a GuestFault is a *failed* test; every other error is an *errored* one.

/** What a running machine attaches to every error it is the scene of. */
export interface MachineContext {
  /** The QEMU command line, quoted for a shell. */
  readonly commandLine: string;
  /** The last lines of the serial console. */
  readonly consoleTail: string;
  /** QEMU's own standard error, its tail. */
  readonly stderr: string;
}

export interface ErrorOptions {
  readonly hint?: string;
  readonly cause?: unknown;
  readonly context?: MachineContext;
}

export abstract class RootportError extends Error {
  /** What to do about it, in one or two sentences; may name a command. */
  readonly hint: string | undefined;
  readonly summary: string;
  readonly #frames: string;
  #context: MachineContext | undefined;

  constructor(message: string, options: ErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    // V8 wrote the header with the name and message of this moment.
    this.#frames = (this.stack ?? '').slice((this.stack ?? '').indexOf(message) + message.length);
    this.name = new.target.name;
    this.summary = message;
    this.hint = options.hint;
    this.#context = options.context;
    this.#compose();
  }

  get context(): MachineContext | undefined {
    return this.#context;
  }

  /** Add the machine that this happened on, once; returns itself for `throw error.on(context)`. */
  on(context: MachineContext): this {
    if (this.#context === undefined) {
      this.#context = context;
      this.#compose();
    }
    return this;
  }

  #compose(): void {
    let message = this.summary;
    if (this.hint !== undefined) message += `\n  hint: ${this.hint}`;
    if (this.#context !== undefined) {
      const { commandLine, consoleTail, stderr } = this.#context;
      message += `\n  repro: ${commandLine}`;
      message += `\n  QEMU's stderr:${stderr.trim() === '' ? ' (empty)' : `\n${indent(stderr.trimEnd())}`}`;
      message += `\n  console tail:${consoleTail.trim() === '' ? ' (empty)' : `\n${indent(consoleTail.trimEnd())}`}`;
    }
    this.message = message;
    this.stack = `${this.name}: ${message}${this.#frames}`; // what Jest and Node print
  }
}

function indent(text: string): string {
  return text.split('\n').map((line) => `    ${line}`).join('\n');
}

export class UsageError extends RootportError {}
export class EnvironmentError extends RootportError {}

export class SystemCallError extends EnvironmentError {
  constructor(
    /** The call and what it was on: `bind /run/x.sock`. */
    readonly call: string,
    /** The errno's name: EADDRINUSE. */
    readonly code: string,
    description: string,
    options: ErrorOptions = {},
  ) {
    super(`${call}: ${code} (${description})`, options);
  }
}
export class BootError extends RootportError {}

export class DeadlineError extends RootportError {
  constructor(readonly waitedFor: string, readonly timeoutMs: number, options: ErrorOptions = {}) {
    super(`waited ${formatMs(timeoutMs)} for ${waitedFor}, and it did not happen`, options);
  }
}

function formatMs(ms: number): string {
  return ms < 1000 ? `${ms} ms` : `${Math.round(ms / 100) / 10} s`;
}

export class MachineExitError extends RootportError {
  constructor(
    message: string,
    readonly exitCode: number | undefined,
    readonly signal: string | undefined,
    options: ErrorOptions = {},
  ) {
    super(message, options);
  }
}

export class ProtocolError extends RootportError {
  readonly sent: unknown;
  readonly received: unknown;
  constructor(message: string, options: ErrorOptions & { sent?: unknown; received?: unknown } = {}) {
    super(message, options);
    this.sent = options.sent;
    this.received = options.received;
  }
}

/** QEMU answered a QMP command with an error object. */
export class QmpError extends ProtocolError {
  constructor(
    readonly command: string,
    /** QEMU's `error.class`, such as GenericError, CommandNotFound, DeviceNotFound. */
    readonly errorClass: string,
    readonly description: string,
    options: ErrorOptions & { sent?: unknown; received?: unknown } = {},
  ) {
    super(`QMP ${command}: ${description} (${errorClass})`, options);
  }
}

/** QEMU answered a qtest command with FAIL or ERR. */
export class QtestError extends ProtocolError {
  constructor(
    readonly command: string,
    readonly description: string,
    options: ErrorOptions & { sent?: unknown; received?: unknown } = {},
  ) {
    super(`qtest ${command}: ${description}`, options);
  }
}

export class GuestCommandError extends RootportError {
  constructor(
    readonly command: string,
    readonly exitCode: number | undefined,
    readonly signal: string | undefined,
    readonly stdout: string,
    readonly stderr: string,
    options: ErrorOptions = {},
  ) {
    const how = signal !== undefined ? `was killed by ${signal}` : `exited with ${exitCode}`;
    const said = stderr.trim() !== '' ? stderr.trim() : stdout.trim();
    super(`in the guest, ${JSON.stringify(command)} ${how}${said === '' ? '' : `:\n${said}`}`, options);
  }
}

export class GuestFault extends RootportError {
  constructor(
    /** The report's title: `BUG: kernel NULL pointer dereference, address: 0000000000000000`. */
    readonly title: string,
    /** The report's lines as the console showed them. */
    readonly report: string,
    options: ErrorOptions = {},
  ) {
    super(`the guest kernel reported: ${title}\n${report}`, options);
  }
}
