// The kernel's reports of its own faults, found in console text as it comes: a panic, an oops, a WARN,
// a hung task. Pure: the caller feeds text and decides when the console has fallen quiet.
// Not here: which lines begin and end a report (kernel-signs.ts), and symbolising addresses.
import { GuestFault } from '../errors.ts';
import { CONTINUES_FAULT, CUT_HERE, UNFINISHED_CUT, signOf } from './kernel-signs.ts';
import type { KernelReportKind, KernelSign } from './kernel-signs.ts';

export type { KernelReportKind } from './kernel-signs.ts';

/** A live view: `lines` grow until `ended`. */
export interface KernelReport {
  readonly kind: KernelReportKind;
  /** Nothing after it can be trusted, or a thread never comes back. */
  readonly fatal: boolean;
  /** What happened, in the kernel's words, without time: `BUG: kernel NULL pointer dereference, address: ...`. */
  readonly title: string;
  /** As the console showed them, less CR. */
  readonly lines: readonly string[];
  /** No more lines will be added. */
  readonly ended: boolean;
  /** Its last line was seen, or it was still open when flushed or overtaken by the next report. */
  readonly complete: boolean;
}

/** What is behind the view while it grows. */
class GrowingReport implements KernelReport {
  title: string;
  readonly lines: string[] = [];
  ended = false;
  complete = false;
  /** Kind and title are known, and the listeners were told. */
  announced = false;
  /** Began with "cut here", and its WARNING or BUG line is still to come. */
  unlocated: boolean;
  sign: KernelSign;

  constructor(sign: KernelSign, title: string, line: string) {
    this.sign = sign;
    this.title = title;
    this.lines.push(line);
    this.unlocated = sign === UNFINISHED_CUT;
  }

  get kind(): KernelReportKind {
    return this.sign.kind;
  }

  get fatal(): boolean {
    return this.sign.fatal;
  }
}

type Listener = (report: KernelReport) => void;

const LINES_MAX = 400;
const LINE_CHARS_MAX = 4096;
const REPORTS_MAX = 200;
/** How many lines WARN()'s own message may have. */
const LINES_TO_LOCATE = 10;
/** The line that says where, under a message that says what. */
const LOCATES = /^(?:WARNING: |kernel BUG at |UBSAN: )/;
/** The time, and the thread or CPU of CONFIG_PRINTK_CALLER. */
const TIME = /\[ *\d{1,10}\.\d{6}\](?:\[ *[TC]\d+\])? ?/;
const LEVEL = /^<\d{1,4}>/;

export class KernelLog {
  readonly #reports: KernelReport[] = [];
  #reportsDropped = 0;
  #open: GrowingReport | undefined;
  #partial = '';
  /** The kernel prints times: what has none is from user space and begins no report. */
  #timed = false;
  readonly #startListeners = new Set<Listener>();
  readonly #endListeners = new Set<Listener>();

  /** The announced reports in order, the unfinished one last; at most the first two hundred. */
  get reports(): readonly KernelReport[] {
    return this.#reports;
  }

  get reportsDropped(): number {
    return this.#reportsDropped;
  }

  /** The report that is still growing. */
  get open(): KernelReport | undefined {
    return this.#open?.announced === true ? this.#open : undefined;
  }

  /** Called as soon as a report's kind and title are known; returns how to stop it. */
  onStart(listener: Listener): () => void {
    this.#startListeners.add(listener);
    return () => void this.#startListeners.delete(listener);
  }

  /** Called when a report has ended; returns how to stop it. */
  onReport(listener: Listener): () => void {
    this.#endListeners.add(listener);
    return () => void this.#endListeners.delete(listener);
  }

  /** Any piece of console text; only whole lines are looked at. */
  push(text: string): void {
    const lines = (this.#partial + text).split('\n');
    this.#partial = (lines.pop() ?? '').slice(0, LINE_CHARS_MAX);
    for (const line of lines) this.line(line);
  }

  /** One whole line, with or without its CR. */
  line(raw: string): void {
    const text = raw.replace(/\r+$/, '').slice(0, LINE_CHARS_MAX);
    const message = this.#messageOf(text);
    const sign = message === undefined ? undefined : signOf(message);
    const open = this.#open;
    if (open === undefined) {
      if (sign !== undefined && message !== undefined) this.#begin(sign, message, text);
      else if (message !== undefined && CUT_HERE.test(message)) this.#begin(UNFINISHED_CUT, '', text);
      return;
    }
    if (open.unlocated && message !== undefined) {
      this.#locate(open, sign, message, text);
    } else if (message !== undefined && sign !== undefined && !belongs(open, message)) {
      this.#close(false);
      this.#begin(sign, message, text);
    } else if (message !== undefined && CUT_HERE.test(message)) {
      this.#close(false);
      this.#begin(UNFINISHED_CUT, '', text);
    } else {
      open.lines.push(text);
      if (message !== undefined && open.sign.end.test(message)) this.#close(true);
      else if (open.lines.length >= LINES_MAX) this.#close(false);
    }
  }

  /** The console has been quiet, or has ended: an unfinished report is all that will come. */
  flush(): void {
    if (this.#partial !== '') this.line(this.#partial);
    this.#partial = '';
    this.#close(false);
  }

  /** The kernel's message in a line; undefined for user space's. A prompt may stand before the time. */
  #messageOf(text: string): string | undefined {
    const time = TIME.exec(text);
    if (time !== null) {
      this.#timed = true;
      return text.slice(time.index + time[0].length);
    }
    return this.#timed ? undefined : text.replace(LEVEL, '');
  }

  /** The lines between "cut here" and the line that says which kind: WARN()'s own message. */
  #locate(open: GrowingReport, sign: KernelSign | undefined, message: string, text: string): void {
    open.lines.push(text);
    if (open.title === '') open.title = message;
    // WARN()'s message may itself name the kind (irq-leak): the WARNING line then only locates it.
    if (sign !== undefined && open.sign === UNFINISHED_CUT) open.sign = sign;
    if (LOCATES.test(message) || sign?.fatal === true || open.lines.length > LINES_TO_LOCATE) open.unlocated = false;
    if (sign !== undefined || !open.unlocated) this.#announce(open);
  }

  #begin(sign: KernelSign, title: string, text: string): void {
    const open = new GrowingReport(sign, title, text);
    this.#open = open;
    if (!open.unlocated) this.#announce(open);
  }

  #announce(open: GrowingReport): void {
    if (open.announced) return;
    open.announced = true;
    if (this.#reports.length < REPORTS_MAX) this.#reports.push(open);
    else this.#reportsDropped += 1;
    for (const listener of this.#startListeners) listener(open);
  }

  #close(complete: boolean): void {
    const open = this.#open;
    if (open === undefined) return;
    this.#open = undefined;
    open.ended = true;
    open.complete = complete;
    if (open.title === '') open.title = open.lines[0] ?? '';
    this.#announce(open);
    for (const listener of this.#endListeners) listener(open);
  }
}

function belongs(open: GrowingReport, message: string): boolean {
  const { kind } = open;
  return (kind === 'oops' || kind === 'bug') && (CONTINUES_FAULT.test(message) || /^invalid opcode/.test(message));
}

/** The error that ends a wait on the guest. */
export function faultOf(report: KernelReport): GuestFault {
  return new GuestFault(report.title, report.lines.join('\n'));
}
