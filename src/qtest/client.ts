// A client of QEMU's qtest protocol over any byte stream: I/O ports, physical memory and interrupt lines as
// the machine's own CPU sees them, without a CPU that runs. Source: QEMU system/qtest.c.
// It does not start QEMU; there is no clock control (that is -accel qtest's, which distributions leave out).
import type { Duplex } from 'node:stream';
import { DeadlineError, ProtocolError, QtestError, UsageError } from '../errors.ts';
import type { AccessWidth, ConfigWidth } from '../pci/access.ts';
import { LineSplitter } from '../qmp/line-splitter.ts';
import type { Recorder } from '../recorder.ts';
import { within } from '../wait.ts';
import {
  formatBlockRead, formatBlockWrite, formatFill, formatIntercept, formatIoRead, formatIoWrite, formatMemoryRead,
  formatMemoryWrite, parseLine, valueOf,
} from './message.ts';

export interface QtestOptions {
  /** How long QEMU may say nothing while a command waits for its answer. */
  readonly timeoutMs: number;
  /** Aborted: everything pending, and everything later, rejects with its reason. */
  readonly signal?: AbortSignal | undefined;
  /** Asked once when the stream ends unasked: why. Silent for two seconds: a ProtocolError that names the end. */
  readonly endReason?: () => Error | PromiseLike<Error>;
  /** Told of every change of an interrupt line. Accesses are too many to be told. */
  readonly recorder?: Recorder;
}

export interface IrqEvent {
  readonly line: number;
  readonly level: 0 | 1;
}

interface IrqWait {
  matches(event: IrqEvent): boolean;
  resolve(event: IrqEvent): void;
  reject(error: Error): void;
}

interface Pending {
  readonly command: string;
  resolve(words: readonly string[]): void;
  reject(error: Error): void;
}

const END_REASON_TIMEOUT_MS = 2000;
/** Events that are kept; a level-triggered line that nobody lowers makes one, so this is far away. */
const EVENTS_MAX = 10_000;
/** One command's block; larger ones are several commands. QEMU holds a command line in memory whole. */
const BLOCK_BYTES_MAX = 2 ** 20;

export class QtestClient {
  readonly #stream: Duplex;
  readonly #options: QtestOptions;
  readonly #splitter = new LineSplitter();
  /** Answers come in the order of the commands. */
  readonly #pending: Pending[] = [];
  /** Commands whose deadline passed: that many answers may still come, and are dropped. */
  #abandoned = 0;
  #silence: NodeJS.Timeout | undefined;
  readonly #levels = new Map<number, 0 | 1>();
  readonly #events: IrqEvent[] = [];
  readonly #irqWaits = new Set<IrqWait>();
  #failure: Error | undefined;
  #ending = false;

  constructor(stream: Duplex, options: QtestOptions) {
    this.#stream = stream;
    this.#options = options;
    stream.on('data', (chunk: Uint8Array) => this.#receive(chunk));
    stream.on('error', (error) => this.#ended(error));
    stream.on('end', () => this.#ended());
    stream.on('close', () => this.#ended());
    const { signal } = options;
    if (signal?.aborted) this.fail(signal.reason as Error);
    else signal?.addEventListener('abort', this.#aborted, { once: true });
  }

  /** `inb`, `inw`, `inl`. */
  async ioRead(port: number, width: ConfigWidth): Promise<number> {
    return Number(await this.#read(formatIoRead(port, width)));
  }

  /** `outb`, `outw`, `outl`. */
  async ioWrite(port: number, width: ConfigWidth, value: number): Promise<void> {
    await this.#execute(formatIoWrite(port, width, value));
  }

  /** `readb` to `readq`, of a physical address. */
  memoryRead(address: bigint, width: AccessWidth): Promise<bigint> {
    return this.#read(formatMemoryRead(address, width));
  }

  /** `writeb` to `writeq`. */
  async memoryWrite(address: bigint, width: AccessWidth, value: bigint): Promise<void> {
    await this.#execute(formatMemoryWrite(address, width, value));
  }

  /** Bytes of RAM. Of a device's memory take memoryRead: QEMU chooses the widths here. */
  async read(address: bigint, lengthBytes: number): Promise<Uint8Array> {
    const bytes = new Uint8Array(lengthBytes);
    for (let at = 0; at < lengthBytes; at += BLOCK_BYTES_MAX) {
      const part = Math.min(BLOCK_BYTES_MAX, lengthBytes - at);
      const command = formatBlockRead(address + BigInt(at), part);
      const [text = ''] = await this.#execute(command);
      const got = Buffer.from(text, 'base64');
      if (got.length !== part) throw new ProtocolError(`qtest ${command}: ${got.length} bytes came`, { sent: command, received: text.slice(0, 200) });
      bytes.set(got, at);
    }
    return bytes;
  }

  async write(address: bigint, bytes: Uint8Array): Promise<void> {
    for (let at = 0; at < bytes.length; at += BLOCK_BYTES_MAX) {
      await this.#execute(formatBlockWrite(address + BigInt(at), bytes.subarray(at, at + BLOCK_BYTES_MAX)));
    }
  }

  /** `memset` */
  async fill(address: bigint, lengthBytes: number, byte: number): Promise<void> {
    await this.#execute(formatFill(address, lengthBytes, byte));
  }

  /**
   * From now on the lines into this device come here and no longer reach it; one device a machine, for its whole
   * life. `ioapic` has the INTx lines of q35 at 16 to 23. QtestError when there is no such device.
   */
  async interceptIn(path: string): Promise<void> {
    await this.#execute(formatIntercept('in', path));
  }

  /** The same of the lines out of a device. */
  async interceptOut(path: string): Promise<void> {
    await this.#execute(formatIntercept('out', path));
  }

  /**
   * Resolves when QEMU's main loop has handled everything that was ready before the call: an eventfd that was
   * signalled, say. Two round trips: descriptors that are ready at the same time are handled in one turn of the
   * loop, in any order, so that after the first the other may still come; after the second it has.
   */
  async settle(): Promise<void> {
    await this.ioRead(0x80, 1);
    await this.ioRead(0x80, 1);
  }

  /** The level of an intercepted line, as far as it is known here: `await settle()` before. */
  irqLevel(line: number): 0 | 1 {
    return this.#levels.get(line) ?? 0;
  }

  /** Intercepted lines that are raised, ascending. */
  get irqsRaised(): readonly number[] {
    return [...this.#levels].filter(([, level]) => level === 1).map(([line]) => line).sort((a, b) => a - b);
  }

  /** Every move of an intercepted line, oldest first, at most the last ten thousand. */
  get irqEvents(): readonly IrqEvent[] {
    return this.#events;
  }

  /** Resolves when the line has this level; at once when it has it already. DeadlineError otherwise. */
  async waitForIrq(line: number, level: 0 | 1, { timeoutMs = this.#options.timeoutMs }: { timeoutMs?: number } = {}): Promise<void> {
    if (this.irqLevel(line) === level) return;
    if (this.#failure !== undefined) throw this.#failure;
    let wait: IrqWait | undefined;
    const seen = new Promise<IrqEvent>((resolve, reject) => {
      wait = { matches: (event) => event.line === line && event.level === level, resolve, reject };
      this.#irqWaits.add(wait);
    });
    try {
      await within(seen, { timeoutMs, what: `interrupt line ${line} to be ${level === 1 ? 'raised' : 'lowered'}`, signal: this.#options.signal });
    } finally {
      if (wait !== undefined) this.#irqWaits.delete(wait);
    }
  }

  /** Why nothing more can be sent; undefined while the connection is good. */
  get failure(): Error | undefined {
    return this.#failure;
  }

  /** Ends the connection: everything pending, and everything later, rejects with this error. The first one counts. */
  fail(error: Error): void {
    if (this.#failure !== undefined) return;
    this.#failure = error;
    clearTimeout(this.#silence);
    this.#options.signal?.removeEventListener('abort', this.#aborted);
    for (const { reject } of [...this.#pending.splice(0), ...this.#irqWaits]) reject(error);
    this.#irqWaits.clear();
    this.#stream.destroy();
  }

  /** Closes the stream; idempotent. */
  close(): void {
    this.fail(new UsageError('the qtest connection was closed by this process'));
  }

  async #read(command: string): Promise<bigint> {
    return valueOf(await this.#execute(command), command);
  }

  async #execute(command: string): Promise<readonly string[]> {
    if (this.#failure !== undefined) throw this.#failure;
    if (this.#pending.length === 0) this.#watch();
    const answer = new Promise<readonly string[]>((resolve, reject) => {
      this.#pending.push({ command, resolve, reject });
    });
    this.#stream.write(`${command}\n`);
    return answer;
  }

  /**
   * One timer for all commands: a deadline each, with its error made beforehand, would take longer than the command.
   * It begins again with every line that comes, so that ten thousand commands sent at once have time.
   */
  #watch(): void {
    this.#silence ??= setTimeout(() => {
      const [oldest] = this.#pending;
      if (oldest === undefined) return;
      const late = new DeadlineError(`QEMU's answer to qtest ${oldest.command.slice(0, 60)}`, this.#options.timeoutMs);
      this.#abandoned += this.#pending.length;
      for (const { reject } of this.#pending.splice(0)) reject(late);
    }, this.#options.timeoutMs).unref();
    this.#silence.refresh();
  }

  #receive(chunk: Uint8Array): void {
    if (this.#failure !== undefined) return;
    try {
      for (const line of this.#splitter.push(chunk)) this.#dispatch(line);
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error;
      this.fail(error);
    }
  }

  #dispatch(text: string): void {
    const line = parseLine(text);
    if (line.kind === 'irq') return this.#irq(line);
    if (this.#abandoned > 0) {
      this.#abandoned -= 1;
      return;
    }
    this.#silence?.refresh();
    const pending = this.#pending.shift();
    if (pending === undefined) throw new ProtocolError('qtest: an answer to no command', { received: text });
    if (line.kind === 'answer') pending.resolve(line.words);
    else pending.reject(new QtestError(pending.command.slice(0, 200), line.description, { sent: pending.command, received: text }));
  }

  #irq({ line, level }: IrqEvent): void {
    this.#options.recorder?.note('interrupt', `line ${line} ${level === 1 ? 'raised' : 'lowered'}`);
    this.#levels.set(line, level);
    const event = { line, level };
    this.#events.push(event);
    if (this.#events.length > EVENTS_MAX) this.#events.shift();
    for (const wait of [...this.#irqWaits]) if (wait.matches(event)) wait.resolve(event);
  }

  readonly #aborted = (): void => this.fail(this.#options.signal?.reason as Error);

  #ended(cause?: Error): void {
    if (this.#ending || this.#failure !== undefined) return;
    this.#ending = true;
    const generic = new ProtocolError(`QEMU closed the qtest connection${cause === undefined ? '' : ` (${cause.message})`}`, {
      cause, sent: this.#pending.map(({ command }) => command), received: this.#splitter.rest,
    });
    const { endReason } = this.#options;
    if (endReason === undefined) return this.fail(generic);
    within(Promise.resolve().then(endReason), { timeoutMs: END_REASON_TIMEOUT_MS, what: 'the reason of the end' }).then(
      (reason) => this.fail(reason),
      () => this.fail(generic),
    );
  }
}
