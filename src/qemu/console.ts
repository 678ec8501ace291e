// The guest's serial console: every line from the first byte, waits for a line, a bounded memory.
// It knows nothing of what the lines say: src/guest/kernel-log.ts is fed from onLine by the machine.
import type { Readable } from 'node:stream';
import { StringDecoder } from 'node:string_decoder';
import { MachineExitError } from '../errors.ts';
import { within } from '../wait.ts';

export interface ConsoleLine {
  /** Counts from 0 at QEMU's start, over dropped lines too. */
  readonly number: number;
  /** Without line end and terminal escapes; cut at 64 Ki characters into several lines. */
  readonly text: string;
  /** When it came, on this process's performance.now() clock. */
  readonly receivedAtMs: number;
}

export interface ConsoleOptions {
  /** What is kept, in characters; the oldest lines are dropped first. Default 4 Mi. */
  readonly keptCharsMax?: number;
  /**
   * Asked once when the stream ends: why (QEMU's exit). Pending waits reject with the answer. Left out,
   * or silent for two seconds: a MachineExitError that says that the console ended.
   */
  readonly endReason?: () => Error | PromiseLike<Error>;
}

export interface WaitForLineOptions {
  readonly timeoutMs: number;
  /** Completes "waited 5 s for ..."; the pattern when left out. */
  readonly what?: string;
  /** Ends the wait with its reason: an exit of QEMU, a fault of the guest. */
  readonly signal?: AbortSignal | undefined;
  /** The first line looked at, a `mark()` of before; 0, all that is kept, when left out. */
  readonly from?: number;
}

const KEPT_CHARS_MAX = 4 * 2 ** 20;
const LINE_CHARS_MAX = 64 * 2 ** 10;
const END_REASON_TIMEOUT_MS = 2000;
/** ECMA-48 control sequences and the two-character escapes; firmware clears its screen with them. */
const TERMINAL_ESCAPES = /\x1b(?:\[[0-?]*[ -/]*[@-~]|[@-Z\\-_c])/g;

export class Console {
  readonly #options: ConsoleOptions;
  readonly #decoder = new StringDecoder('utf8');
  /** The lines kept begin at #first: dropped ones are cut off in batches, since a shift each is quadratic. */
  #lines: ConsoleLine[] = [];
  #first = 0;
  #keptChars = 0;
  #droppedChars = 0;
  #nextNumber = 0;
  #partial = '';
  #failure: Error | undefined;
  #ended = false;
  readonly #listeners = new Set<(line: ConsoleLine) => void>();
  readonly #waits = new Set<{ see(line: ConsoleLine): void; reject(error: Error): void }>();

  constructor(stream: Readable, options: ConsoleOptions = {}) {
    this.#options = options;
    stream.on('data', (chunk: Buffer | string) => this.#receive(typeof chunk === 'string' ? chunk : this.#decoder.write(chunk)));
    stream.on('error', () => this.#end());
    stream.on('end', () => this.#end());
    stream.on('close', () => this.#end());
  }

  /** All that is kept, the unfinished last line too; begins with a note when older text was dropped. */
  get text(): string {
    const note = this.#droppedChars === 0 ? '' : `... ${this.#droppedChars} characters of console dropped ...\n`;
    return note + this.#lines.slice(this.#first).map(({ text }) => `${text}\n`).join('') + plain(this.#partial);
  }

  get lines(): readonly ConsoleLine[] {
    return this.#lines.slice(this.#first);
  }

  /** How much of the oldest text is no longer kept. */
  get droppedChars(): number {
    return this.#droppedChars;
  }

  /** The last lines, the unfinished one among them. */
  tail(lineCount = 40): string {
    const lines = this.#lines.slice(Math.max(this.#first, this.#lines.length - lineCount)).map(({ text }) => text);
    const partial = plain(this.#partial);
    if (partial !== '') lines.push(partial);
    return lines.slice(-lineCount).join('\n');
  }

  /** The number that the next line will have: give it to waitForLine as `from`. */
  mark(): number {
    return this.#nextNumber;
  }

  /** Calls the listener, which must not throw, for every whole line from now on; returns how to stop it. */
  onLine(listener: (line: ConsoleLine) => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  /**
   * The first whole line that holds the text or matches the pattern: one that came already, or the
   * next. Rejects with a DeadlineError, the signal's reason, or the reason of the console's end.
   */
  waitForLine(pattern: RegExp | string, options: WaitForLineOptions): Promise<ConsoleLine> {
    const matches = matcherOf(pattern);
    const from = options.from ?? 0;
    const seen = this.#lines.find(({ number, text }, index) => index >= this.#first && number >= from && matches(text));
    if (seen !== undefined) return Promise.resolve(seen);
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    let wait: { see(line: ConsoleLine): void; reject(error: Error): void } | undefined;
    const work = new Promise<ConsoleLine>((resolve, reject) => {
      wait = { see: (line) => line.number >= from && matches(line.text) && resolve(line), reject };
      this.#waits.add(wait);
    });
    work.catch(() => undefined);
    const outcome = within(work, {
      timeoutMs: options.timeoutMs,
      what: options.what ?? `a console line with ${String(pattern)}`,
      signal: options.signal,
    }).finally(() => wait !== undefined && this.#waits.delete(wait));
    // Heard here too: a wait may be armed before the action that causes the line, and the action fail.
    outcome.catch(() => undefined);
    return outcome;
  }

  #receive(text: string): void {
    let start = 0;
    for (let end = text.indexOf('\n'); end >= 0; end = text.indexOf('\n', start)) {
      this.#append(this.#partial + text.slice(start, end));
      this.#partial = '';
      start = end + 1;
    }
    this.#partial += text.slice(start);
    for (; this.#partial.length > LINE_CHARS_MAX; this.#partial = this.#partial.slice(LINE_CHARS_MAX)) {
      this.#append(this.#partial.slice(0, LINE_CHARS_MAX));
    }
  }

  #append(raw: string): void {
    const line: ConsoleLine = { number: this.#nextNumber++, text: plain(raw), receivedAtMs: performance.now() };
    this.#lines.push(line);
    this.#keptChars += line.text.length + 1;
    this.#drop();
    for (const wait of this.#waits) wait.see(line);
    for (const listener of this.#listeners) listener(line);
  }

  #drop(): void {
    const max = this.#options.keptCharsMax ?? KEPT_CHARS_MAX;
    while (this.#keptChars > max && this.#first < this.#lines.length - 1) {
      const chars = (this.#lines[this.#first]?.text.length ?? 0) + 1;
      this.#first += 1;
      this.#keptChars -= chars;
      this.#droppedChars += chars;
    }
    if (this.#first > 1000 && this.#first > this.#lines.length / 2) {
      this.#lines = this.#lines.slice(this.#first);
      this.#first = 0;
    }
  }

  #end(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#receive(this.#decoder.end());
    if (this.#partial !== '') this.#append(this.#partial);
    this.#partial = '';
    const generic = new MachineExitError('the serial console ended', undefined, undefined);
    const { endReason } = this.#options;
    if (endReason === undefined) return this.#fail(generic);
    within(Promise.resolve().then(endReason), { timeoutMs: END_REASON_TIMEOUT_MS, what: 'the reason of the end' }).then(
      (reason) => this.#fail(reason),
      () => this.#fail(generic),
    );
  }

  #fail(error: Error): void {
    this.#failure = error;
    for (const { reject } of this.#waits) reject(error);
    this.#waits.clear();
  }
}

function plain(raw: string): string {
  return raw.replace(/\r+$/, '').replace(TERMINAL_ESCAPES, '');
}

function matcherOf(pattern: RegExp | string): (text: string) => boolean {
  if (typeof pattern === 'string') return (text) => text.includes(pattern);
  // A global or sticky pattern remembers where it stopped; a copy without those flags does not.
  const stateless = new RegExp(pattern.source, pattern.flags.replace(/[gy]/g, ''));
  return (text) => stateless.test(text);
}
