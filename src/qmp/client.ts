// A QMP client over any byte stream: commands with deadlines, and the events between their answers
// (events.ts). Source: QEMU docs/interop/qmp-spec.rst.
// It does not start QEMU, open sockets, pass fds, or use out-of-band commands.
import type { Duplex } from 'node:stream';
import { ProtocolError, QmpError, UsageError } from '../errors.ts';
import { sendMessage } from '../native/index.ts';
import { firstLine, type Recorder } from '../recorder.ts';
import { within } from '../wait.ts';
import { QmpEvents } from './events.ts';
import type { ExpectEventOptions, QmpEventRecord } from './events.ts';
import { LineSplitter } from './line-splitter.ts';
import { parseMessage } from './message.ts';
import type { QmpCommand, QmpEvent, QmpGreeting, QmpMessage } from './message.ts';

export interface QmpConnectOptions {
  /** For the greeting, and for every command that names no deadline of its own. */
  readonly timeoutMs: number;
  /** Aborted: connect and every later wait reject with its reason, and the stream is destroyed. */
  readonly signal?: AbortSignal | undefined;
  /** The signal ends the waits alone: the stream stays, for commands that say `afterAbort`. Default: it is destroyed. */
  readonly keepOpen?: boolean;
  /**
   * Asked once when the stream ends unasked: why (QEMU's exit code and stderr, say). Everything pending
   * rejects with the answer. Left out, or silent for two seconds: a ProtocolError that names the end.
   */
  readonly endReason?: () => Error | PromiseLike<Error>;
  /** Told of every command with its answer's time, and of every event. */
  readonly recorder?: Recorder;
}

export interface ExecuteOptions {
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal | undefined;
  /** Descriptors to pass along (`add-fd`, `getfd`). The stream must be a Unix socket of this process. */
  readonly fds?: readonly number[];
  /** Also of a client whose signal was aborted, where it was connected with `keepOpen`: QEMU may well live. */
  readonly afterAbort?: boolean;
}

interface PendingCommand {
  readonly command: QmpCommand;
  resolve(value: unknown): void;
  reject(error: Error): void;
}

const END_REASON_TIMEOUT_MS = 2000;

export class QmpClient {
  readonly #stream: Duplex;
  readonly #options: QmpConnectOptions;
  readonly #splitter = new LineSplitter();
  readonly #commands = new Map<number, PendingCommand>();
  /** Ids whose deadline passed: their answers may still come, and are dropped. */
  readonly #abandoned = new Set<number>();
  readonly #events = new QmpEvents();
  #nextId = 1;
  #greeting: QmpGreeting | undefined;
  #greeted: { resolve(greeting: QmpGreeting): void; reject(error: Error): void } | undefined;
  #failure: Error | undefined;
  /** Why the signal ended all waits, of a stream that stays. */
  #abortedWith: Error | undefined;
  #ending = false;

  /**
   * Waits for the greeting and leaves capabilities negotiation. Rejects with a DeadlineError, a
   * ProtocolError (what came was not QMP), the end's reason or the signal's; the stream is destroyed then.
   */
  static async connect(stream: Duplex, options: QmpConnectOptions): Promise<QmpClient> {
    const client = new QmpClient(stream, options);
    try {
      await client.#hello();
      return client;
    } catch (error) {
      client.fail(error as Error);
      throw error;
    }
  }

  private constructor(stream: Duplex, options: QmpConnectOptions) {
    this.#stream = stream;
    this.#options = options;
    stream.on('data', (chunk: Uint8Array | string) => this.#receive(typeof chunk === 'string' ? Buffer.from(chunk) : chunk));
    stream.on('error', (error) => this.#ended(error));
    stream.on('end', () => this.#ended());
    stream.on('close', () => this.#ended());
    const { signal } = options;
    if (signal?.aborted) this.fail(signal.reason as Error);
    else signal?.addEventListener('abort', this.#aborted, { once: true });
  }

  /** The greeting: QEMU's version and package. */
  get greeting(): QmpGreeting {
    if (this.#greeting === undefined) throw new UsageError('the QMP greeting was asked for before it came');
    return this.#greeting;
  }

  /** The last events, oldest first: at most a thousand. */
  get events(): readonly QmpEventRecord[] {
    return this.#events.record;
  }

  /** How many events are no longer in `events`. */
  get eventsDropped(): number {
    return this.#events.dropped;
  }

  /** Why nothing more can be sent; undefined while the connection is good. */
  get failure(): Error | undefined {
    return this.#abortedWith ?? this.#failure;
  }

  /**
   * Runs one command. T is the caller's word for the shape of the `return` value: it is not checked.
   * Rejects with a QmpError (QEMU refused), a DeadlineError naming the command, or the failure of the
   * connection. After a deadline the command may still happen: QMP cannot take one back.
   */
  async execute<T = unknown>(command: string, args?: Readonly<Record<string, unknown>>, options: ExecuteOptions = {}): Promise<T> {
    const failure = options.afterAbort === true ? this.#failure : this.failure;
    if (failure !== undefined) throw failure;
    options.signal?.throwIfAborted();
    const id = this.#nextId++;
    const message: QmpCommand = { execute: command, ...(args === undefined ? {} : { arguments: args }), id };
    const line = lineOf(message);
    const answer = new Promise<unknown>((resolve, reject) => {
      this.#commands.set(id, { command: message, resolve, reject });
    });
    const ended = this.#options.recorder?.begin('qmp', textOf(message));
    if (options.fds === undefined) this.#stream.write(line);
    else sendWithFds(this.#stream, line, options.fds);
    try {
      const value = (await within(answer, {
        timeoutMs: options.timeoutMs ?? this.#options.timeoutMs,
        what: `QEMU's answer to QMP ${summaryOf(message)}`,
        signal: options.signal,
      })) as T;
      ended?.();
      return value;
    } catch (error) {
      ended?.(firstLine(error));
      throw error;
    } finally {
      if (this.#commands.delete(id)) this.#abandoned.add(id);
    }
  }

  /**
   * A line of the human monitor (`info mtree -f`), and what it prints, its CR LF made LF. HMP reports
   * most errors as text: the caller must read it.
   */
  async hmp(commandLine: string, options?: ExecuteOptions): Promise<string> {
    const said = await this.execute<string>('human-monitor-command', { 'command-line': commandLine }, options);
    return said.replaceAll('\r\n', '\n');
  }

  /**
   * The first event of this name, from now on, that the predicate takes. Call it before the command
   * that causes the event and await it after: nothing between is lost, and if the command fails the
   * abandoned wait rejects unheard. Its timer lives until then; a signal ends it earlier.
   */
  expectEvent(name: string, predicate: (event: QmpEvent) => boolean, options: ExpectEventOptions): Promise<QmpEvent> {
    return this.#events.expect(name, predicate, options);
  }

  /** Calls the listener, which must not throw, for every event of this name; returns how to stop it. */
  on(name: string, listener: (event: QmpEvent) => void): () => void {
    return this.#events.on(name, listener);
  }

  /** Ends the connection: everything pending, and everything later, rejects with this error. The first one counts. */
  fail(error: Error): void {
    if (this.#failure !== undefined) return;
    this.#failure = error;
    this.#options.signal?.removeEventListener('abort', this.#aborted);
    this.#rejectAll(error);
    this.#commands.clear();
    this.#stream.destroy();
  }

  /** Closes the stream; idempotent. Whatever is pending rejects with a UsageError. */
  close(): void {
    this.fail(new UsageError('the QMP connection was closed by this process'));
  }

  async #hello(): Promise<void> {
    const { timeoutMs, signal } = this.#options;
    const greeted = new Promise<QmpGreeting>((resolve, reject) => {
      if (this.#failure !== undefined) return reject(this.#failure);
      this.#greeted = { resolve, reject };
    });
    greeted.catch(() => undefined);
    this.#greeting = await within(greeted, { timeoutMs, what: "QEMU's QMP greeting", signal });
    await this.execute('qmp_capabilities');
  }

  #receive(chunk: Uint8Array): void {
    if (this.#failure !== undefined) return;
    try {
      for (const line of this.#splitter.push(chunk)) this.#dispatch(parseMessage(line), line);
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error;
      this.fail(error);
    }
  }

  #dispatch(message: QmpMessage, line: string): void {
    if (message.kind === 'greeting') {
      if (this.#greeted === undefined) throw new ProtocolError('QMP: QEMU sent a second greeting', { received: line });
      this.#greeted.resolve(message.greeting);
      this.#greeted = undefined;
    } else if (message.kind === 'event') {
      const { event, data } = message.event;
      this.#options.recorder?.note('qmp', `event ${event}`, data === undefined ? undefined : JSON.stringify(data));
      this.#events.occurred(message.event);
    } else {
      this.#answered(message, line);
    }
  }

  #answered(message: Extract<QmpMessage, { kind: 'return' | 'error' }>, line: string): void {
    const id = typeof message.id === 'number' ? message.id : 0;
    if (this.#abandoned.delete(id)) return;
    const pending = this.#commands.get(id);
    if (pending === undefined) {
      // An error without an id says that QEMU could not read what was sent.
      const why = message.kind === 'error' ? `: ${message.description} (${message.errorClass})` : '';
      const waiting = [...this.#commands.values()].map(({ command }) => command);
      throw new ProtocolError(`QMP: an answer to no command that is pending, id ${JSON.stringify(message.id) ?? 'none'}${why}`, {
        sent: waiting,
        received: line,
      });
    }
    this.#commands.delete(id);
    if (message.kind === 'return') return pending.resolve(message.value);
    const { errorClass, description } = message;
    pending.reject(new QmpError(summaryOf(pending.command), errorClass, description, { sent: pending.command, received: line }));
  }

  readonly #aborted = (): void => {
    const reason = this.#options.signal?.reason as Error;
    if (this.#options.keepOpen !== true || this.#greeting === undefined) return this.fail(reason);
    this.#abortedWith = reason;
    this.#rejectAll(reason); // their answers still come, and are dropped
  };

  #rejectAll(error: Error): void {
    for (const { reject } of this.#commands.values()) reject(error);
    this.#greeted?.reject(error);
    this.#events.fail(error);
  }

  #ended(cause?: Error): void {
    if (this.#ending || this.#failure !== undefined) return;
    this.#ending = true;
    const rest = this.#splitter.rest.trim();
    const generic = new ProtocolError(
      `QEMU closed the QMP connection${cause === undefined ? '' : ` (${cause.message})`}${rest === '' ? '' : `, in the middle of ${JSON.stringify(rest.slice(0, 200))}`}`,
      { cause, received: rest },
    );
    const { endReason } = this.#options;
    if (endReason === undefined) return this.fail(generic);
    within(Promise.resolve().then(endReason), { timeoutMs: END_REASON_TIMEOUT_MS, what: 'the reason of the end' }).then(
      (reason) => this.fail(reason),
      () => this.fail(generic),
    );
  }
}

function lineOf(message: QmpCommand): string {
  try {
    return `${JSON.stringify(message)}\n`;
  } catch (cause) {
    throw new UsageError(`QMP ${message.execute}: its arguments cannot be written as JSON: ${(cause as Error).message}`, { cause });
  }
}

/** For messages: the command, with the line itself for HMP. */
function summaryOf({ execute, arguments: args }: QmpCommand): string {
  const line = execute === 'human-monitor-command' ? args?.['command-line'] : undefined;
  return typeof line === 'string' ? `${execute} "${line}"` : execute;
}

/** For the record: the command with its arguments. */
function textOf(message: QmpCommand): string {
  const { execute, arguments: args } = message;
  return args === undefined || execute === 'human-monitor-command' ? summaryOf(message) : `${execute} ${JSON.stringify(args)}`;
}

/** Node cannot send descriptors: written to the socket itself, after what Node has written already. */
function sendWithFds(stream: Duplex, line: string, fds: readonly number[]): void {
  const { _handle: handle } = stream as unknown as { _handle?: { fd?: number } };
  if (handle?.fd === undefined || handle.fd < 0) throw new UsageError('descriptors can be passed over a Unix socket only');
  if (stream.writableLength > 0) throw new UsageError('descriptors cannot be passed while earlier commands are still being written');
  sendMessage(handle.fd, Buffer.from(line), fds);
}
