// The order in which a report's lines come, as data: with it the lines of two reports that CPUs print at once
// are told apart where the kernel does not say whose a line is (no CONFIG_PRINTK_CALLER, as Debian's).
// Sources: arch/x86/kernel/dumpstack.c, process_64.c (__show_regs), kernel/panic.c (6.1 to 6.18).
// What it cannot do: two stack traces at once differ by nothing; their frames may be swapped.
import { cpuFrameOf, formatFrame, namedFrameOf } from './kernel-frames.ts';
import { taskIn } from './kernel-report.ts';

type Token =
  | 'title' | 'detail' | 'modules' | 'cpu' | 'tainted' | 'hardware' | 'rip' | 'code' | 'rsp' | 'rax' | 'rdx' | 'rbp' | 'r10' | 'r13'
  | 'fs' | 'cs' | 'cr2' | 'pkru' | 'trace' | 'context' | 'frame' | 'end-context' | 'end-task' | 'end-trace';

const TOKENS: readonly [Token, RegExp][] = [
  ['detail', /^(?:#PF: |PGD |Oops: |invalid opcode)/],
  ['modules', /^Modules linked in:/],
  ['cpu', /^CPU: \d/],
  ['tainted', /^Tainted: \[/],
  ['hardware', /^(?:Hardware name|Workqueue): /],
  ['rip', /^RIP: /],
  ['code', /^Code: /],
  ['rsp', /^RSP: /],
  ['rax', /^RAX: /],
  ['rdx', /^RDX: /],
  ['rbp', /^RBP: /],
  ['r10', /^R10: /],
  ['r13', /^R13: /],
  ['fs', /^FS: /],
  ['cs', /^CS: /],
  ['cr2', /^CR2: /],
  ['pkru', /^(?:PKRU|DR0|DR3): /],
  ['trace', /^Call Trace:/],
  ['context', /^ *<(?:TASK|IRQ|NMI|#DF)>/],
  ['end-task', /^ *<\/TASK>/],
  ['end-context', /^ *<\/(?:IRQ|NMI)>/],
  ['frame', /^ *(?:\? )?(?:[A-Za-z_$][\w.$]{0,300}\+0x|0x[0-9a-f]{1,16}$)/],
  ['end-trace', /^---\[ end trace/],
];

/** What a line of this kind comes right after. */
const AFTER: Readonly<Record<Token, readonly Token[]>> = {
  title: [],
  detail: ['title', 'detail'],
  modules: ['title', 'end-task'],
  cpu: ['title', 'modules', 'detail'],
  tainted: ['cpu'],
  hardware: ['cpu', 'tainted', 'hardware'],
  rip: ['hardware', 'frame', 'context'],
  code: ['rip'],
  rsp: ['code', 'rip'],
  rax: ['rsp'],
  rdx: ['rax'],
  rbp: ['rdx'],
  r10: ['rbp'],
  r13: ['r10'],
  fs: ['r13'],
  cs: ['fs'],
  cr2: ['cs', 'modules'],
  pkru: ['cr2', 'pkru'],
  trace: ['pkru', 'cr2', 'hardware', 'r13'],
  context: ['trace', 'end-context'],
  frame: ['context', 'frame', 'trace', 'r13'],
  'end-context': ['frame', 'r13'],
  'end-task': ['frame', 'r13'],
  'end-trace': ['end-task', 'modules', 'cr2'],
};

/** How far a report's lines have come. */
export interface Progress {
  last: Token;
  cpu: number | undefined;
  pid: number | undefined;
  /** Where its title says that it happened: `f+0x1/0x2 [module]`. */
  place: string | undefined;
  /** In user mode's registers, at the end of its trace. */
  inUserMode: boolean;
}

export function progressAt(title: string): Progress {
  const task = taskIn(title);
  return { last: 'title', cpu: task?.cpu, pid: task?.pid, place: placeIn(title), inUserMode: false };
}

/** How well the line goes on with a report that has come this far: 0 is not at all, below 0 it is another's. */
export function fitOf(progress: Progress, message: string): number {
  const token = tokenOf(message);
  if (token === undefined) return 0;
  let fit = AFTER[token].includes(progress.last) ? 2 : -1;
  if (token === 'cpu') {
    const task = taskIn(message);
    if (task !== undefined && progress.pid !== undefined) fit += task.pid === progress.pid && (progress.cpu === undefined || task.cpu === progress.cpu) ? 4 : -4;
  } else if (token === 'rip') {
    const frame = cpuFrameOf(message);
    if (progress.last !== 'frame' && progress.place !== undefined) fit += frame !== undefined && formatFrame(frame) === progress.place ? 4 : -4;
    // User mode's registers come at the end of a trace only.
    if (frame === undefined && progress.last !== 'frame') fit -= 4;
  } else if (token === 'rsp' && message.startsWith('RSP: 00')) {
    if (message.startsWith('RSP: 002b') !== progress.inUserMode) fit -= 4;
  } else if (token === 'end-task' || token === 'fs') {
    if ((token === 'end-task') !== progress.inUserMode && progress.last === 'r13') fit -= 4;
  }
  return fit;
}

/** A line that every report has, in one order: none of a WARN()'s own message. */
export function isStructural(message: string): boolean {
  return tokenOf(message) !== undefined;
}

/** The report takes the line. */
export function advance(progress: Progress, message: string): void {
  const task = taskIn(message);
  progress.cpu ??= task?.cpu;
  progress.pid ??= task?.pid;
  const token = tokenOf(message);
  if (token === undefined) {
    // A message of WARN()'s own, and the line that says where it stands.
    if (progress.last === 'title') progress.place ??= placeIn(message);
    return;
  }
  if (token === 'rip') progress.inUserMode = message.startsWith('RIP: 0033');
  progress.last = token;
}

function placeIn(message: string): string | undefined {
  const frame = namedFrameOf(message);
  return frame === undefined ? undefined : formatFrame(frame);
}

function tokenOf(message: string): Token | undefined {
  return TOKENS.find(([, pattern]) => pattern.test(message))?.[0];
}
