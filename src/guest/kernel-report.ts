// What a kernel report says: the guilty function, its module, the CPU and the task, the place in the source.
// Pure: it reads the lines that kernel-log.ts gathered. Formats: arch/x86/kernel/dumpstack.c, lib/dump_stack.c,
// kernel/panic.c, hung_task.c, watchdog.c, irq/spurious.c, mm/kasan/report.c, mm/kfence/report.c,
// kernel/kcsan/report.c (6.1 to 6.18). Not here: file and line of an address (symbolise.ts).
import { cpuFrameOf, frameOf, functionFrame, isInfrastructure, namedFrameOf, type KernelFrame } from './kernel-frames.ts';
import type { KernelReportKind } from './kernel-signs.ts';

export interface ReportDetails {
  /** The call stack, innermost first: where the CPU was, if the report says it, then its trace. */
  readonly frames: readonly KernelFrame[];
  /**
   * The first frame that does not merely report, check or carry the fault: `kfree`'s caller for a double free,
   * a handler for an interrupt that nobody cared for. Undefined for a report without any frame.
   */
  readonly guilty: KernelFrame | undefined;
  /** The guilty frame's module, else the first module on the stack; undefined when there is none. */
  readonly module: string | undefined;
  readonly cpu: number | undefined;
  readonly pid: number | undefined;
  readonly comm: string | undefined;
  /** Where WARN() or BUG() stands, by the kernel's own word. */
  readonly source: { readonly file: string; readonly line: number } | undefined;
  /** The report says that freed memory was used: KASAN's and KFENCE's use-after-free, SLUB's poison, a dead reference count. */
  readonly useAfterFree: boolean;
}

/** Their stacks stand right under the title, without "Call Trace:". */
const BARE_TRACE: ReadonlySet<KernelReportKind> = new Set(['kfence', 'kmsan', 'kcsan']);
const TRACE_BEGINS = /^(?:Call [Tt]race:|stack backtrace:)/;
/** What else has stacks of its own, under the one that counts. */
const TRACE_ENDS = /^(?: ?<\/TASK>|Allocated (?:by|in) |Freed (?:by|in) |allocated by |freed by |Uninit was |Local variable |The buggy address |Last potentially |Modules linked in|---\[ end|Reported by |kfence-#)/;
/** KCSAN's second access, KFENCE's owner: the stack of the other one. */
const OTHER_STACK = /^(?:race at |(?:read|write|read-write)(?: \(\w+\))? to |value changed|kfence-#|CPU: )/;

export function detailsOf(kind: KernelReportKind, title: string, messages: readonly string[]): ReportDetails {
  const frames = stackOf(kind, messages);
  const guilty = guiltyOf(kind, title, messages, frames);
  const module = guilty?.module ?? frames.find((frame) => frame.module !== undefined)?.module;
  return { frames, guilty, module, ...taskOf(title, messages), source: sourceOf(messages), useAfterFree: usesFreed(kind, title, messages) };
}

function stackOf(kind: KernelReportKind, messages: readonly string[]): KernelFrame[] {
  const frames: KernelFrame[] = [];
  let inTrace = BARE_TRACE.has(kind);
  for (const message of messages) {
    if (!inTrace) {
      if (TRACE_BEGINS.test(message)) inTrace = true;
      else {
        // Registers above the trace. The oops' second copy stands under it.
        const at = cpuFrameOf(message);
        if (at !== undefined) frames.push(at);
      }
      continue;
    }
    if (TRACE_ENDS.test(message) && frames.length > 0) break;
    if (BARE_TRACE.has(kind) && OTHER_STACK.test(message) && frames.some(({ returned }) => returned)) break;
    const frame = frameOf(message) ?? cpuFrameOf(message);
    if (frame !== undefined) frames.push(frame);
  }
  return frames;
}

function guiltyOf(kind: KernelReportKind, title: string, messages: readonly string[], frames: readonly KernelFrame[]): KernelFrame | undefined {
  if (kind === 'irq-nobody-cared') {
    const handler = handlerOf(messages);
    if (handler !== undefined) return handler;
  }
  const located = messages.find((message) => /^(?:WARNING: |BUG: K[A-Z]SAN: |BUG: K\w+: )/.test(message)) ?? title;
  const named = namedFrameOf(located) ?? racing(located);
  const candidates = [...(named === undefined ? [] : [named]), ...frames];
  const reliable = candidates.filter((frame) => frame.reliable);
  return reliable.find((frame) => !isInfrastructure(frame)) ?? candidates.find((frame) => !isInfrastructure(frame)) ?? reliable[0] ?? candidates[0];
}

/** `BUG: KCSAN: data-race in f / g`: names without offsets. */
function racing(title: string): KernelFrame | undefined {
  const match = /^BUG: K\w{1,6}: [\w -]{1,60} in ([A-Za-z_][\w.]{0,200})(?: \[([\w-]{1,64})\])?/.exec(title);
  return match === null ? undefined : functionFrame(match[1] ?? '', match[2]);
}

/** The first of `handlers:` that is in a module, else the first: `[<00000000c19336d4>] none [faults]`. */
function handlerOf(messages: readonly string[]): KernelFrame | undefined {
  const from = messages.findIndex((message) => message.startsWith('handlers:'));
  if (from < 0) return undefined;
  const handlers = messages.slice(from + 1).flatMap((message) => {
    const match = /^\[<[0-9a-f]{1,16}>\] ([A-Za-z_][\w.]{0,200})(?: \[([\w-]{1,64})(?: [0-9a-f]{1,64})?\])?/.exec(message);
    return match === null ? [] : [functionFrame(match[1] ?? '', match[2])];
  });
  return handlers.find(({ module }) => module !== undefined) ?? handlers[0];
}

const HEADER = /^CPU: (\d{1,5}) (?:UID: \d{1,10} )?PID: (\d{1,10}) Comm: (.{1,64}?) (?:Not tainted|Tainted|Kdump)/;
/** Of those that say it in the title; each: what the groups are. */
const TASK_TITLES: readonly [RegExp, readonly ('cpu' | 'pid' | 'comm')[]][] = [
  [/soft lockup - CPU#(\d{1,5}) stuck for .{1,20}! \[(.{1,64}):(\d{1,10})\]/, ['cpu', 'comm', 'pid']],
  [/hard LOCKUP on cpu (\d{1,5})/i, ['cpu']],
  [/^INFO: task (.{1,64}):(\d{1,10}) blocked/, ['comm', 'pid']],
  [/^BUG: scheduling while atomic: (.{1,64})\/(\d{1,10})\/0x/, ['comm', 'pid']],
  [/^WARNING: CPU: (\d{1,5}) PID: (\d{1,10}) /, ['cpu', 'pid']],
  [/^WARNING: .{1,300}, CPU#(\d{1,5}): (.{1,64})\/(\d{1,10})$/, ['cpu', 'comm', 'pid']],
  [/ at addr [0-9a-f]{1,20} by task (.{1,64})\/(\d{1,10})$/, ['comm', 'pid']],
  [/ by task (\d{1,10}) on cpu (\d{1,5}):$/, ['pid', 'cpu']],
];

export interface ReportTask {
  readonly cpu: number | undefined;
  readonly pid: number | undefined;
  readonly comm: string | undefined;
}

/** What one line says of CPU and task. */
export function taskIn(message: string): ReportTask | undefined {
  const header = HEADER.exec(message);
  if (header !== null) return { cpu: Number(header[1]), pid: Number(header[2]), comm: header[3] };
  for (const [pattern, names] of TASK_TITLES) {
    const match = pattern.exec(message);
    if (match === null) continue;
    const value = (name: 'cpu' | 'pid' | 'comm'): string | undefined => (names.includes(name) ? match[names.indexOf(name) + 1] : undefined);
    const cpu = value('cpu'), pid = value('pid');
    return { cpu: cpu === undefined ? undefined : Number(cpu), pid: pid === undefined ? undefined : Number(pid), comm: value('comm') };
  }
  return undefined;
}

function taskOf(title: string, messages: readonly string[]): ReportTask {
  const said = [title, ...messages].flatMap((message) => taskIn(message) ?? []);
  // What the title says of a task is what the report is about: khungtaskd's own header is not.
  const first = said[0];
  const same = said.filter(({ pid }) => pid === undefined || first?.pid === undefined || pid === first.pid);
  return {
    cpu: same.find(({ cpu }) => cpu !== undefined)?.cpu,
    pid: same.find(({ pid }) => pid !== undefined)?.pid,
    comm: same.find(({ comm }) => comm !== undefined)?.comm,
  };
}

function sourceOf(messages: readonly string[]): { file: string; line: number } | undefined {
  for (const message of messages) {
    const match = /^(?:WARNING: (?:CPU: \d{1,5} PID: \d{1,10} at )?|kernel BUG at |UBSAN: .{1,80} in )(\S{1,1000}?):(\d{1,7})(?::\d{1,5})?(?:!$| |$)/.exec(message);
    if (match !== null) return { file: match[1] ?? '', line: Number(match[2]) };
  }
  return undefined;
}

function usesFreed(kind: KernelReportKind, title: string, messages: readonly string[]): boolean {
  if (/use-after-free|Poison overwritten|LIST_POISON/.test(title)) return true;
  if (kind === 'list-corruption') return /poison/i.test(title);
  // A pointer out of freed memory: slab poison (0x6b), the list's poison values (include/linux/poison.h).
  return kind === 'oops' && (/0x[0-9a-f]{0,8}(?:6b){6,8}|0xdead0000000001[02]\w/.test(title) || messages.slice(0, 30).some((message) => /^R[0-9A-DS][XIP0-9]: .{0,60}(?:6b){7}/.test(message)));
}
