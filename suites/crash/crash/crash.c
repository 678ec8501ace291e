// SPDX-License-Identifier: GPL-2.0-only
/*
 * A driver that goes wrong on request: the kind is written to its parameter `go`. Each kind is one function,
 * so that a report names it. With ktap=1 its init prints the results of a small test of its own.
 */
#include <linux/delay.h>
#include <linux/interrupt.h>
#include <linux/kthread.h>
#include <linux/list.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/refcount.h>
#include <linux/sched.h>
#include <linux/slab.h>

static int *nowhere;
static DEFINE_SPINLOCK(lock);

static noinline int crash_null(void)
{
	return READ_ONCE(*nowhere);		/* line: null */
}

static noinline int crash_bug(void)
{
	BUG();					/* line: bug */
	return 0;
}

static noinline int crash_warn(void)
{
	WARN(1, "crash: %d vectors leaked\n", 3);	/* line: warn */
	return 0;
}

static noinline int crash_refcount(void)
{
	refcount_t count = REFCOUNT_INIT(1);

	refcount_set(&count, 0);
	refcount_inc(&count);			/* line: refcount */
	return refcount_read(&count) & 1;
}

static noinline int crash_list(void)
{
	LIST_HEAD(head);
	struct list_head one;

	list_add(&one, &head);
	list_del(&one);
	list_del(&one);				/* line: list */
	return 0;
}

static noinline int crash_atomic(void)
{
	preempt_disable();
	schedule();				/* line: atomic */
	/* No preempt_enable(): the kernel has set the count right when it reported (__schedule_bug). */
	return 0;
}

static noinline int crash_double_free(void)
{
	void *block = kmalloc(64, GFP_KERNEL);

	kfree(block);
	kfree(block);				/* line: double_free */
	return 0;
}

static noinline int crash_free_irq(void)
{
	free_irq(9, &nowhere);			/* line: free_irq */
	return 0;
}

static int crash_sleeper(void *unused)
{
	set_current_state(TASK_UNINTERRUPTIBLE);
	schedule();				/* line: hung */
	return 0;
}

static int crash_hung(void)
{
	return PTR_ERR_OR_ZERO(kthread_run(crash_sleeper, NULL, "crash-sleeper"));
}

static int crash_spinner(void *unused)
{
	spin_lock(&lock);
	for (;;)
		cpu_relax();			/* line: soft */
	return 0;
}

static int crash_soft(void)
{
	return PTR_ERR_OR_ZERO(kthread_run(crash_spinner, NULL, "crash-spinner"));
}

/* Two CPUs at once: their reports stand among each other's on the console. */
static atomic_t waiting;

static int crash_both_warn(void *name)
{
	atomic_dec(&waiting);
	while (atomic_read(&waiting) > 0)
		cpu_relax();
	WARN(1, "crash: both, %s\n", (char *)name);	/* line: both */
	return 0;
}

static int crash_both(void)
{
	static char *names[] = { "one", "two" };
	int cpu;

	atomic_set(&waiting, 2);
	for (cpu = 0; cpu < 2; cpu++) {
		struct task_struct *task = kthread_create(crash_both_warn, names[cpu], "crash-%s", names[cpu]);

		if (IS_ERR(task))
			return PTR_ERR(task);
		kthread_bind(task, cpu);
		wake_up_process(task);
	}
	return 0;
}

static const struct {
	const char *name;
	int (*go)(void);
} kinds[] = {
	{ "null", crash_null }, { "bug", crash_bug }, { "warn", crash_warn }, { "refcount", crash_refcount },
	{ "list", crash_list }, { "atomic", crash_atomic }, { "double_free", crash_double_free },
	{ "free_irq", crash_free_irq }, { "hung", crash_hung }, { "soft", crash_soft }, { "both", crash_both },
};

static int go(const char *value, const struct kernel_param *param)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(kinds); i++)
		if (sysfs_streq(value, kinds[i].name))
			return kinds[i].go();
	return -EINVAL;
}

static const struct kernel_param_ops go_ops = { .set = go };
module_param_cb(go, &go_ops, NULL, 0200);

static int ktap;
module_param(ktap, int, 0444);

static int __init crash_init(void)
{
	if (ktap == 0)
		return 0;
	pr_info("KTAP version 1\n");
	pr_info("1..2\n");
	pr_info("  KTAP version 1\n");
	pr_info("  # Subtest: arithmetic\n");
	pr_info("  1..%d\n", ktap == 3 ? 3 : 2);
	pr_info("  ok 1 adds\n");
	if (ktap == 2) {
		pr_info("  # expected 4, got %d\n", 2 + 3);
		pr_info("  not ok 2 multiplies\n");
	} else {
		pr_info("  ok 2 multiplies # SKIP no multiplier\n");
	}
	pr_info("%s 1 arithmetic\n", ktap == 2 ? "not ok" : "ok");
	pr_info("ok 2 - loads\n");
	return 0;
}

static void __exit crash_exit(void)
{
}

module_init(crash_init);
module_exit(crash_exit);
MODULE_DESCRIPTION("goes wrong on request");
MODULE_LICENSE("GPL");
