// The lines of a kernel stack trace, and which of its functions only report what another did: data and its
// reader. Sources: lib/vsprintf.c (%pS), arch/x86/kernel/dumpstack.c (6.1 to 6.18); the functions by the
// files that report. Not here: where in a report the trace stands (kernel-report.ts).

export interface KernelFrame {
  /** As the kernel says it: `f_init.isra.0`. */
  readonly symbol: string;
  /** Without what the compiler added (`.isra.0`, `.cold`): `f_init`. */
  readonly function: string;
  /** Bytes into the function. */
  readonly offset: number;
  /** The function's bytes; undefined where the kernel gave none. */
  readonly size: number | undefined;
  /** The module's name; undefined in the kernel itself. */
  readonly module: string | undefined;
  /** False where the unwinder found an address on the stack and no call that leads to it (`? f+0x1/0x2`). */
  readonly reliable: boolean;
  /** The address is where a call returns to, and not where the CPU was. */
  readonly returned: boolean;
}

const SYMBOL = /([A-Za-z_$][\w.$]{0,300})\+0x([0-9a-f]{1,8})\/0x([0-9a-f]{1,8})(?: \[([\w-]{1,64})(?: [0-9a-f]{1,64})?\])?/;
const IN_TRACE = new RegExp(`^ *(?:\\[<[0-9a-f]{1,16}>\\] )?(\\? )?${SYMBOL.source}`);
const HERE = new RegExp(`^${SYMBOL.source}`);
/** x86: `RIP: 0010:f+0x1/0x2`, user mode's is 0033 and has no symbol; arm64: `pc : f+0x1/0x2`. */
const AT_CPU = new RegExp(`^(?:RIP: 0010:|pc : )${SYMBOL.source}`);

/** ` ? f+0x1/0x2 [module]` in a trace. */
export function frameOf(message: string): KernelFrame | undefined {
  const match = IN_TRACE.exec(message);
  return match === null ? undefined : make(match.slice(2), match[1] === undefined, true);
}

/** `RIP: 0010:f+0x1/0x2 [module]`: where the CPU was, in kernel mode. */
export function cpuFrameOf(message: string): KernelFrame | undefined {
  const match = AT_CPU.exec(message);
  return match === null ? undefined : make(match.slice(1), true, false);
}

/** The first `f+0x1/0x2 [module]` anywhere in a line: the title of a WARN or of KASAN's. */
export function namedFrameOf(message: string): KernelFrame | undefined {
  // By its "+0x" and back: a search for a name from every character would take the square of a long line.
  for (let at = message.indexOf('+0x'); at >= 0; at = message.indexOf('+0x', at + 3)) {
    const before = /[A-Za-z_$][\w.$]*$/.exec(wordBefore(message, at));
    if (before === null) continue;
    const match = HERE.exec(message.slice(at - before[0].length, at + 100));
    if (match !== null) return make(match.slice(1), true, false);
  }
  return undefined;
}

function wordBefore(message: string, end: number): string {
  let start = end;
  while (start > 0 && end - start < 300 && /[\w.$]/.test(message.charAt(start - 1))) start -= 1;
  return message.slice(start, end);
}

/** A function by its name alone (`%ps`). */
export function functionFrame(symbol: string, module: string | undefined): KernelFrame {
  return { symbol, function: plainName(symbol), offset: 0, size: undefined, module, reliable: true, returned: false };
}

/** `f+0x47/0x60 [module]`, as the kernel says it. */
export function formatFrame({ symbol, offset, size, module }: KernelFrame): string {
  return `${symbol}${size === undefined ? '' : `+0x${offset.toString(16)}/0x${size.toString(16)}`}${module === undefined ? '' : ` [${module}]`}`;
}

function make([symbol = '', offset = '', size = '', module]: (string | undefined)[], reliable: boolean, returned: boolean): KernelFrame {
  return { symbol, function: plainName(symbol), offset: parseInt(offset, 16), size: parseInt(size, 16), module, reliable, returned };
}

function plainName(symbol: string): string {
  return symbol.replace(/(?:\.(?:isra|constprop|part|cold|llvm|lto_priv)(?:\.\d+)*)+$/, '');
}

/** The kernel's own functions that report, check or carry a fault; the guilty one called them. */
const INFRASTRUCTURE: readonly RegExp[] = [
  // Entry of a trap or interrupt, and the report of what was found (traps.c, panic.c, dump_stack.c).
  /^(?:asm_)?(?:exc|sysvec)_/, /^asm_\w*interrupt$/, /^common_interrupt$/, /^(?:handle_bug|do_error_trap|do_trap\w*|page_fault_oops|do_user_addr_fault|bad_area\w*|(?:kernelmode|search)_\w*fixup\w*)$/,
  /^(?:__)?(?:die|die_body|die_addr|oops_end|oops_exit|show_(?:regs|stack|trace_log_lvl)\w*|dump_stack\w*|dump_(?:page|backtrace)|report_bug|__report_bug)$/,
  /^(?:panic|vpanic|nmi_panic|__warn\w*|warn_slowpath\w*|check_panic_on_warn|print_modules|add_taint)$/,
  /^(?:nmi_|trigger_|arch_trigger_)\w*backtrace\w*$/, /^(?:end_repeat_nmi|default_do_nmi|nmi_handle)$/, /^(?:watchdog_timer_fn|watchdog_overflow_callback|perf_event_\w+|intel_pmu_\w+)$/,
  /^(?:rcu_(?:check_gp_kthread|dump_cpu_stacks|sched_clock_irq|pending)|print_(?:cpu_stall|other_cpu_stall|report)\w*|check_cpu_stall|update_process_times|tick_sched_\w+|(?:__)?hrtimer_\w+)$/,
  // Sanitizers (mm/kasan, mm/kfence, mm/kmsan, kernel/kcsan, lib/ubsan.c) and the copies they instrument.
  /^(?:__)?(?:kasan|kfence|kmsan|kcsan|ubsan|tsan|asan|msan|hwasan)_/, /^__?(?:asan|tsan|msan|hwasan|ubsan)_/, /^__ubsan_/, /^(?:check_(?:region_inline|memory_region)|print_address_description)/, /^ubsan_epilogue$/,
  /^_*(?:memcpy|memmove|memset|memcmp|memchr|strcpy|strncpy|strscpy|strlen|strnlen|strcmp|strncmp)(?:_erms|_orig|_fast)?$/,
  // Reference counts, lists, locks, sleeping in the wrong place (refcount.c, list_debug.c, locking/, sched/).
  /^refcount_\w+$/, /^kref_(?:get|put)\w*$/, /^__?list_(?:add|del)\w*$/, /^(?:do_raw_|_raw_|raw_|native_queued_|queued_|__pv_queued_)?(?:spin|read|write|rw)_?(?:un)?(?:try)?(?:lock|bug|dump)\w*$/,
  /^(?:native_)?queued_(?:spin|read|write)\w*$/, /^spin_(?:bug|dump)$/, /^(?:__)?mutex_\w+$/, /^(?:__)?(?:down|up|rwsem)(?:_\w+)?$/, /^(?:__)?lock_(?:acquire|release|is_held)\w*$/, /^(?:debug_check_no_locks|check_noncircular|check_prev_add|validate_chain|__bfs|print_\w*(?:bug|deadlock|usage|circular\w*|unlock\w*|backtrace))\w*$/,
  /^lockdep_\w+$/, /^(?:mark_lock\w*|mark_usage|rcu_lockdep_\w+|lock_(?:acquired|contended))$/,
  /^(?:__)?schedule(?:_\w+)?$/, /^preempt_schedule\w*$/, /^(?:io_schedule\w*|__schedule_bug|__might_(?:sleep|resched|fault)|___might_sleep|check_preemption_disabled|debug_smp_processor_id)$/,
  /^(?:__|do_)?wait_(?:for_common|for_completion|rcu_gp|on_bit\w*)\w*$/, /^(?:__wait_for_common|__wait_rcu_gp|synchronize_rcu\w*|msleep\w*|usleep_range\w*|bit_wait\w*|out_of_line_wait_on_bit\w*)$/,
  // The allocators' checks (mm/slub.c, mm/slab_common.c, mm/util.c, page_alloc.c).
  /^(?:__)?(?:kfree\w*|k[vzm]*alloc\w*|krealloc\w*|kvfree\w*|vfree|kmem_cache_\w+|slab_\w+|__slab_\w+|do_slab_free|free_to_partial_list|free_debug_processing|alloc_debug_processing|check_(?:object|slab|bytes_and_report\w*)|object_err|slab_err|print_trailer|set_freepointer|get_partial\w*|___?slab_alloc|alloc_single_from_\w+|cache_free_debugcheck|usercopy_abort|__check_(?:object_size|heap_object)|free_large_kmalloc|bad_page\w*|free_unref_page\w*)$/,
  // Interrupts and what goes with their handlers (kernel/irq, drivers/pci/msi, fs/proc, lib/kobject.c, fs/sysfs).
  /^(?:__report_bad_irq|note_interrupt|handle_\w*irq\w*|__common_interrupt|generic_handle_\w+|(?:__)?free_irq|free_desc|irq_(?:free_descs|domain_free\w*)|unregister_(?:irq|handler)_proc|(?:__)?msi_\w+|pci_msi\w*|(?:__)?pci_(?:disable_msix?|free_irq_vectors|free_msi_irqs|msix?_shutdown|msi_teardown_msi_irqs|disable_device))$/,
  /^(?:remove_proc_(?:entry|subtree)|proc_remove|proc_register|sysfs_(?:warn_dup|create_\w+|add_file\w*)|internal_create_group|kobject_(?:add\w*|create_and_add|init_and_add)|create_dir)$/,
  // Idle and entry: nobody's fault by itself.
  /^(?:native_safe_halt|default_idle\w*|arch_cpu_idle|cpuidle_\w+|cpu_idle_poll|pv_native_safe_halt|acpi_(?:idle|safe_halt)\w*|amd_e400_idle|mwait_idle\w*)$/,
];

/** Reports, checks or carries a fault and did not make it. A module's function never does: it is under test. */
export function isInfrastructure(frame: KernelFrame): boolean {
  return frame.module === undefined && INFRASTRUCTURE.some((pattern) => pattern.test(frame.function));
}
