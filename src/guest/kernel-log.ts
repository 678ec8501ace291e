// The kernel's reports of its own faults, found in console text as it comes: a panic, an oops, a WARN,
// a hung task. Reports that several CPUs print at once, and one inside another, are kept apart: by the caller
// that CONFIG_PRINTK_CALLER names, else by the order of a report's lines (kernel-line-order.ts).
// Pure: the caller feeds text and decides when the console has fallen quiet.
// Not here: which lines begin and end a report (kernel-signs.ts), what it says (kernel-report.ts), and
// symbolising addresses (symbolise.ts).
import type { KernelFrame } from './kernel-frames.ts';
import { advance, fitOf, isStructural, progressAt, type Progress } from './kernel-line-order.ts';
import { detailsOf, type ReportDetails } from './kernel-report.ts';
import { CONTINUES_FAULT, CUT_HERE, UNFINISHED_CUT, signOf } from './kernel-signs.ts';
import type { KernelReportKind, KernelSign } from './kernel-signs.ts';

export type { KernelReportKind } from './kernel-signs.ts';

/** A live view: `lines` grow until `ended`, and what is read from them with it. */
export interface KernelReport extends ReportDetails {
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
  /** Another report's lines stood among its own, with no word of whose they were: single frames may be the other's. */
  readonly entangled: boolean;
}

/** What is behind the view while it grows. */
class GrowingReport implements KernelReport {
  title: string;
  readonly lines: string[] = [];
  /** The lines without time and level. */
  readonly messages: string[] = [];
  ended = false;
  complete = false;
  entangled = false;
  /** Kind and title are known, and the listeners were told. */
  announced = false;
  /** Began with "cut here", and its WARNING or BUG line is still to come. */
  unlocated: boolean;
  sign: KernelSign;
  /** The thread or CPU of CONFIG_PRINTK_CALLER. */
  readonly caller: string | undefined;
  readonly progress: Progress;
  /** The kernel's clock at its last line. */
  seconds: number;
  #details: { readonly of: number; readonly title: string; readonly value: ReportDetails } | undefined;

  constructor(sign: KernelSign, title: string, line: Line) {
    this.sign = sign;
    this.title = title;
    this.caller = line.caller;
    this.seconds = line.seconds;
    this.progress = progressAt(title);
    this.unlocated = sign === UNFINISHED_CUT;
    this.add(line);
  }

  get kind(): KernelReportKind { return this.sign.kind; }
  get fatal(): boolean { return this.sign.fatal; }
  get frames(): readonly KernelFrame[] { return this.#read().frames; }
  get guilty(): KernelFrame | undefined { return this.#read().guilty; }
  get module(): string | undefined { return this.#read().module; }
  get cpu(): number | undefined { return this.#read().cpu; }
  get pid(): number | undefined { return this.#read().pid; }
  get comm(): string | undefined { return this.#read().comm; }
  get source(): ReportDetails['source'] { return this.#read().source; }
  get useAfterFree(): boolean { return this.#read().useAfterFree; }

  add({ text, message, seconds }: Line): void {
    this.lines.push(text);
    if (message === undefined) return;
    this.messages.push(message);
    this.seconds = seconds;
    advance(this.progress, message);
  }

  #read(): ReportDetails {
    if (this.#details?.of !== this.messages.length || this.#details.title !== this.title) {
      this.#details = { of: this.messages.length, title: this.title, value: detailsOf(this.kind, this.title, this.messages) };
    }
    return this.#details.value;
  }
}

/** A line of the console, taken apart. */
interface Line {
  readonly text: string;
  /** The kernel's message; undefined for user space's. A prompt may stand before the time. */
  readonly message: string | undefined;
  readonly caller: string | undefined;
  /** The kernel's clock; 0 without. */
  readonly seconds: number;
}

type Listener = (report: KernelReport) => void;

const LINES_MAX = 400;
const LINE_CHARS_MAX = 4096;
const REPORTS_MAX = 200;
/** Reports that grow at once. */
const OPEN_MAX = 8;
/** A report that another overtook, and that got no line for this long by the kernel's clock, got its last. */
const OVERTAKEN_SECONDS = 2;
/** How many lines WARN()'s own message may have. */
const LINES_TO_LOCATE = 10;
/** The line that says where, under a message that says what. */
const LOCATES = /^(?:WARNING: |kernel BUG at |UBSAN: )/;
/** The time, and the thread or CPU of CONFIG_PRINTK_CALLER. */
const TIME = /\[ *(\d{1,10}\.\d{6})\](?:\[ *([TC]\d{1,10})\])? ?/;
const LEVEL = /^<\d{1,4}>/;

export class KernelLog {
  readonly #reports: KernelReport[] = [];
  #reportsDropped = 0;
  /** The one that had a line last stands last. */
  readonly #open: GrowingReport[] = [];
  #partial = '';
  /** The kernel prints times: what has none is from user space and begins no report. */
  #timed = false;
  /** The caller that answers a report's request for a backtrace. */
  #answering: string | undefined;
  readonly #startListeners = new Set<Listener>();
  readonly #endListeners = new Set<Listener>();

  /** The announced reports in order, the unfinished one last; at most the first two hundred. */
  get reports(): readonly KernelReport[] {
    return this.#reports;
  }

  get reportsDropped(): number {
    return this.#reportsDropped;
  }

  /** The report that is still growing; of several the one that grew last. */
  get open(): KernelReport | undefined {
    return this.#open.findLast(({ announced }) => announced);
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
    const line = this.#read(raw.replace(/\r+$/, '').slice(0, LINE_CHARS_MAX));
    const { message } = line;
    if (message === undefined) return this.#give(this.#open.at(-1), line);
    const mine = this.#closeOvertaken(line);
    const sign = signOf(message);
    const unlocated = headOf(mine.filter((report) => report.unlocated), message);
    if (CUT_HERE.test(message)) {
      // list_add corruption's BUG() stands under its message.
      const cause = mine.at(-1);
      if (cause?.sign.kind === 'list-corruption' && cause.lines.length < 2) return this.#give(cause, line);
      return this.#begin(UNFINISHED_CUT, '', line);
    }
    if (unlocated !== undefined && (sign !== undefined || mine.length === 1 || !isStructural(message))) {
      return this.#locate(unlocated, sign, message, line);
    }
    if (sign !== undefined) {
      const own = mine.findLast((report) => belongs(report, message));
      if (own !== undefined) return this.#give(own, line);
      if (sign.kind === 'panic' || SEQUENTIAL.has(sign.kind)) {
        for (const report of mine) if (sign.kind === 'panic' || report.kind === sign.kind) this.#close(report, false);
      }
      return this.#begin(sign, message, line);
    }
    if (mine.length === 0) {
      // What another CPU was asked to show belongs to the report that asked.
      return line.caller !== undefined && this.#open.length > 0 && this.#asked(line, message) ? this.#give(this.#open.at(-1), line) : undefined;
    }
    this.#give(bestOf(mine, message), line);
  }

  /** The console has been quiet, or has ended: an unfinished report is all that will come. */
  flush(): void {
    if (this.#partial !== '') this.line(this.#partial);
    this.#partial = '';
    for (const report of [...this.#open]) this.#close(report, false);
  }

  #read(text: string): Line {
    const time = TIME.exec(text);
    if (time !== null) {
      this.#timed = true;
      return { text, message: text.slice(time.index + time[0].length), caller: time[2], seconds: Number(time[1]) };
    }
    return { text, message: this.#timed ? undefined : text.replace(LEVEL, ''), caller: undefined, seconds: 0 };
  }

  /** The CPU whose backtrace a report asked for (NMI) speaks for itself: its lines until the trace's end. */
  #asked({ caller }: Line, message: string): boolean {
    if (/^NMI backtrace for cpu \d/.test(message)) this.#answering = caller;
    const answers = this.#answering === caller;
    if (answers && /^ *<\/TASK>/.test(message)) this.#answering = undefined;
    return answers;
  }

  /** The caller's reports that may get the line. */
  #closeOvertaken({ caller, seconds }: Line): GrowingReport[] {
    const mine = this.#open.filter((report) => report.caller === caller);
    const over = mine.slice(0, -1).filter((report) => seconds - report.seconds > OVERTAKEN_SECONDS);
    for (const report of over) this.#close(report, false);
    return over.length === 0 ? mine : mine.filter((report) => !over.includes(report));
  }

  #give(report: GrowingReport | undefined, line: Line): void {
    if (report === undefined) return;
    report.add(line);
    const at = this.#open.indexOf(report);
    if (at !== this.#open.length - 1) {
      this.#open.splice(at, 1);
      this.#open.push(report);
    }
    if (line.message !== undefined && report.sign.end.test(line.message) && !report.unlocated) this.#close(report, true);
    else if (report.lines.length >= LINES_MAX) this.#close(report, false);
  }

  /** The lines between "cut here" and the line that says which kind: WARN()'s own message. */
  #locate(open: GrowingReport, sign: KernelSign | undefined, message: string, line: Line): void {
    if (open.title === '') open.title = message;
    // WARN()'s message may itself name the kind (irq-leak): the WARNING line then only locates it.
    if (sign !== undefined && open.sign === UNFINISHED_CUT) open.sign = sign;
    if (LOCATES.test(message) || sign?.fatal === true || open.lines.length >= LINES_TO_LOCATE) open.unlocated = false;
    this.#give(open, line);
    if (sign !== undefined || !open.unlocated) this.#announce(open);
  }

  #begin(sign: KernelSign, title: string, line: Line): void {
    const open = new GrowingReport(sign, title, line);
    const others = this.#open.filter(({ caller }) => caller === line.caller);
    if (others.length > 0) for (const one of [...others, open]) one.entangled = true;
    this.#open.push(open);
    if (!open.unlocated) this.#announce(open);
    const [oldest] = this.#open;
    if (this.#open.length > OPEN_MAX && oldest !== undefined) this.#close(oldest, false);
  }

  #announce(open: GrowingReport): void {
    if (open.announced) return;
    open.announced = true;
    if (this.#reports.length < REPORTS_MAX) this.#reports.push(open);
    else this.#reportsDropped += 1;
    for (const listener of this.#startListeners) listener(open);
  }

  #close(open: GrowingReport, complete: boolean): void {
    const at = this.#open.indexOf(open);
    if (at < 0) return;
    this.#open.splice(at, 1);
    open.ended = true;
    open.complete = complete;
    if (open.title === '') open.title = open.lines[0] ?? '';
    this.#announce(open);
    for (const listener of this.#endListeners) listener(open);
  }
}

/** One thread of the kernel prints them, one after the other. */
const SEQUENTIAL: ReadonlySet<KernelReportKind> = new Set(['hung-task', 'rcu-stall']);

/** The line is a second one of the fault that is being reported. */
function belongs({ kind, lines }: GrowingReport, message: string): boolean {
  if (kind === 'list-corruption') return /^(?:kernel BUG at |WARNING: )/.test(message) && lines.length < LINES_TO_LOCATE || CONTINUES_FAULT.test(message);
  return (kind === 'oops' || kind === 'bug') && (CONTINUES_FAULT.test(message) || /^invalid opcode/.test(message));
}

/**
 * Of two heads at once, "cut here" of one before the WARNING of the other: whose line it is. Who has its message waits
 * for the line that locates it, who has none for a message; first come, first served.
 */
function headOf(unlocated: readonly GrowingReport[], message: string): GrowingReport | undefined {
  const wanted = LOCATES.test(message);
  return unlocated.find(({ title }) => (title !== '') === wanted) ?? (wanted ? unlocated[0] : unlocated.at(-1));
}

/** Of those that one caller, or no caller that is named, prints: whose line it is. The last one's when nothing tells. */
function bestOf(reports: readonly GrowingReport[], message: string): GrowingReport | undefined {
  // Registers and traces come after the head.
  const located = reports.filter(({ unlocated }) => !unlocated);
  const candidates = located.length === 0 ? reports : located;
  let best = candidates.at(-1);
  if (candidates.length < 2 || best === undefined) return best;
  let most = fitOf(best.progress, message);
  for (const report of candidates.slice(0, -1).reverse()) {
    const fit = fitOf(report.progress, message);
    if (fit > most) { best = report; most = fit; }
  }
  return best;
}
