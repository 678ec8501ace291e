// How the kernel's own reports begin and end on the console, as data. Sources: lib/bug.c, panic.c,
// lib/dump_stack.c, arch/x86/kernel/dumpstack.c and traps.c, arch/x86/mm/fault.c, kernel/hung_task.c,
// watchdog.c, rcu/tree_stall.h, irq/spurious.c, locking/lockdep.c, mm/slub.c, mm/kasan/report.c,
// fs/proc/generic.c, fs/sysfs/dir.c, lib/refcount.c, lib/list_debug.c (6.1 to 6.18).
// Not here: how lines are gathered (kernel-log.ts), and what they say (kernel-report.ts).

export type KernelReportKind =
  | 'panic'
  /** A fault of the CPU in kernel mode: a bad pointer, a general protection fault. */
  | 'oops'
  /** BUG() and the kernel's other `BUG:` lines. */
  | 'bug'
  | 'warning'
  /** Scheduling while atomic, a sleeping function called where none may sleep. */
  | 'atomic-sleep'
  /** refcount_t: an underflow, an increment from zero, a saturation. */
  | 'refcount'
  /** A list's links contradict each other (CONFIG_DEBUG_LIST). */
  | 'list-corruption'
  | 'hung-task'
  | 'soft-lockup'
  | 'hard-lockup'
  | 'rcu-stall'
  | 'kasan'
  | 'kfence'
  | 'kmsan'
  | 'kcsan'
  | 'ubsan'
  /** SLUB's checks: double free, overrun, objects left in a cache. */
  | 'slab'
  | 'lockdep'
  | 'irq-nobody-cared'
  /** An interrupt's handler or descriptor is still there while its device or module goes away. */
  | 'irq-leak';

export interface KernelSign {
  readonly kind: KernelReportKind;
  /**
   * Nothing after it can be trusted, or the thread never comes back: a wait on the guest ends. An RCU
   * stall is not: a guest starved by its host shows one and recovers.
   */
  readonly fatal: boolean;
  /** On the message, without time and level. */
  readonly begin: RegExp;
  /** The report's last line. Many reports never show it: the caller's quiet period ends those. */
  readonly end: RegExp;
}

const END_TRACE = /^---\[ end trace/;
const END_TASK = /^\s*<\/TASK>/;
const RULE = /^={20,}$/;
/** Nothing: the report ends when the console falls quiet. */
const NEVER = /^(?!)/;

/** The line above a WARN() or BUG(); the kind is in one of the next lines. */
export const CUT_HERE = /^-+\[ cut here \]-+$/;

/** A second line of the fault that is being reported: `Oops: 0000 [#1]` under `BUG: kernel NULL ...`. */
export const CONTINUES_FAULT = /^(?:Oops: |Internal error: |.*: [0-9a-f]{4,16} \[#\d+\])/;

/** In order: the first that matches names the report. */
export const KERNEL_SIGNS: readonly KernelSign[] = [
  { kind: 'panic', fatal: true, begin: /^Kernel panic - not syncing/, end: /^---\[ end Kernel panic/ },
  { kind: 'kasan', fatal: true, begin: /^BUG: KASAN: /, end: RULE },
  { kind: 'kfence', fatal: true, begin: /^BUG: KFENCE: /, end: RULE },
  { kind: 'kmsan', fatal: true, begin: /^BUG: KMSAN: /, end: RULE },
  { kind: 'kcsan', fatal: false, begin: /^BUG: KCSAN: /, end: RULE },
  { kind: 'ubsan', fatal: false, begin: /^UBSAN: /, end: /^(?:---\[ end trace|={20,}$)/ },
  // CONFIG_BUG_ON_DATA_CORRUPTION says it and then BUG()s, else WARN() does: its own lines follow or precede.
  { kind: 'list-corruption', fatal: true, begin: /^(?:list_(?:add|del) (?:corruption|double add)|list_\w+ corruption)/, end: END_TRACE },
  { kind: 'refcount', fatal: false, begin: /^refcount_t: /, end: END_TRACE },
  { kind: 'soft-lockup', fatal: true, begin: /^(?:watchdog: )?BUG: soft lockup - /, end: END_TASK },
  { kind: 'hard-lockup', fatal: true, begin: /^(?:NMI )?watchdog: (?:CPU\d+: )?Watchdog detected hard LOCKUP/i, end: END_TASK },
  { kind: 'hung-task', fatal: true, begin: /^INFO: task .+ blocked (?:in I\/O wait )?for more than \d+ seconds/, end: END_TASK },
  { kind: 'rcu-stall', fatal: false, begin: /^(?:rcu: )?INFO: rcu\S* .*(?:self-)?detected (?:expedited )?stalls? on/, end: END_TASK },
  { kind: 'irq-nobody-cared', fatal: false, begin: /^irq \d+: nobody cared/, end: /^Disabling IRQ #/ },
  { kind: 'irq-leak', fatal: false, begin: /^remove_proc_entry: removing non-empty directory '(?:\/proc\/)?irq\/.*leaking at least/, end: END_TRACE },
  { kind: 'irq-leak', fatal: false, begin: /^WARNING: .{0,200}\b(?:msi_device_data_release|free_msi_irqs|msi_free_msi_descs\w*)\+/, end: END_TRACE },
  { kind: 'lockdep', fatal: false, begin: /^WARNING: (?:possible |suspicious |inconsistent |bad unlock |bad contention |held lock|lock held|Nested lock|locking bug)/, end: END_TASK },
  { kind: 'warning', fatal: false, begin: /^WARNING: (?:CPU: \d+ |\S+:\d+ at |.*\bCPU#\d+)/, end: END_TRACE },
  { kind: 'warning', fatal: false, begin: /^remove_proc_entry: removing non-empty directory/, end: END_TRACE },
  { kind: 'warning', fatal: false, begin: /^sysfs: cannot create duplicate filename/, end: END_TASK },
  { kind: 'slab', fatal: true, begin: /^BUG \S+ \((?:Not tainted|Tainted)[^)]*\): /, end: END_TASK },
  { kind: 'oops', fatal: true, begin: /^BUG: (?:kernel NULL pointer dereference|unable to handle )/, end: END_TRACE },
  { kind: 'oops', fatal: true, begin: /^Unable to handle kernel /, end: END_TRACE },
  { kind: 'oops', fatal: true, begin: /^(?:general protection fault|PANIC: double fault|double fault|divide error|stack segment|invalid opcode)\b.*/, end: END_TRACE },
  { kind: 'oops', fatal: true, begin: CONTINUES_FAULT, end: END_TRACE },
  { kind: 'bug', fatal: true, begin: /^kernel BUG at /, end: END_TRACE },
  { kind: 'atomic-sleep', fatal: false, begin: /^BUG: (?:scheduling while atomic|sleeping function called|using \w+\(\) in preemptible)/, end: END_TASK },
  { kind: 'bug', fatal: false, begin: /^BUG: workqueue (?:lockup|leaked)/, end: END_TASK },
  // What the kernel thinks worth the word and this table does not know: bad page state, bad spinlock magic.
  { kind: 'bug', fatal: true, begin: /^BUG: /, end: END_TASK },
];

/** The report that a WARN() or BUG() turns out to be when its second line never comes. */
export const UNFINISHED_CUT: KernelSign = { kind: 'warning', fatal: false, begin: NEVER, end: END_TRACE };

export function signOf(message: string): KernelSign | undefined {
  return KERNEL_SIGNS.find(({ begin }) => begin.test(message));
}
