// SPDX-License-Identifier: GPL-2.0-only
/*
 * A driver that goes wrong on request: the kind is written to its parameter `go`. Each kind is one function,
 * so that a report names it. With ktap=1 its init prints the results of a small test of its own.
 */
#include <linux/delay.h>
#include <linux/interrupt.h>
#include <linux/io.h>
#include <linux/kfence.h>
#include <linux/kthread.h>
#include <linux/list.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/pci.h>
#include <linux/refcount.h>
#include <linux/sched.h>
#include <linux/slab.h>

static int *nowhere;
static DEFINE_SPINLOCK(lock);

static noinline int crash_null(void)
{
	return READ_ONCE(*nowhere);		/* line: null */
}

static noinline int crash_gpf(void)
{
	return READ_ONCE(*(int *)0xdead4ead00000000UL);	/* line: gpf */
}

static noinline int crash_panic(void)
{
	panic("crash: on purpose");		/* line: panic */
	return 0;
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

/* With slub_debug=Z, which looks at the red zone when the block is freed. */
static noinline int crash_overrun(void)
{
	char *block = kmalloc(64, GFP_KERNEL);

	if (!block)
		return -ENOMEM;
	OPTIMIZER_HIDE_VAR(block);
	block[64] = 1;
	kfree(block);				/* line: overrun */
	return 0;
}

/* With kfence.sample_interval: now and then a block is KFENCE's. */
static noinline int crash_freed(void)
{
	unsigned long end = jiffies + 10 * HZ;

	while (time_before(jiffies, end)) {
		char *block = kmalloc(64, GFP_KERNEL);
		bool sampled = is_kfence_address(block);

		kfree(block);
		if (sampled)
			return READ_ONCE(*block) & 0;	/* line: freed */
		cond_resched();
	}
	return -EAGAIN;
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

static int crash_staller(void *unused)
{
	unsigned long end = jiffies + 6 * HZ;

	preempt_disable();
	while (time_before(jiffies, end))
		cpu_relax();			/* line: stall */
	preempt_enable();
	return 0;
}

static int crash_stall(void)
{
	struct task_struct *task = kthread_run(crash_staller, NULL, "crash-staller");

	if (IS_ERR(task))
		return PTR_ERR(task);
	msleep(100);
	synchronize_rcu();
	return 0;
}

/* The first edu that is plugged. */
static struct pci_dev *crash_edu(void)
{
	struct pci_dev *pdev = pci_get_device(0x1234, 0x11e8, NULL);

	if (pdev && pci_enable_device(pdev)) {
		pci_dev_put(pdev);
		return NULL;
	}
	return pdev;
}

static irqreturn_t crash_ignores(int irq, void *cookie)
{
	return IRQ_NONE;
}

/* Its INTx line stays up, and nobody wants it. */
static noinline int crash_nobody(void)
{
	struct pci_dev *pdev = crash_edu();
	void __iomem *registers = pdev ? pci_iomap(pdev, 0, 0) : NULL;

	if (!registers || request_irq(pdev->irq, crash_ignores, IRQF_SHARED, "crash", &nowhere))
		return -ENODEV;
	writel(1, registers + 0x60);
	return 0;
}

/* The vector goes while its handler is there. */
static noinline int crash_irq_leak(void)
{
	struct pci_dev *pdev = crash_edu();

	if (!pdev || pci_alloc_irq_vectors(pdev, 1, 1, PCI_IRQ_MSI) != 1 ||
	    request_irq(pci_irq_vector(pdev, 0), crash_ignores, 0, "crash", &nowhere))
		return -ENODEV;
	pci_free_irq_vectors(pdev);		/* line: irq_leak */
	return 0;
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
	{ "gpf", crash_gpf }, { "panic", crash_panic }, { "overrun", crash_overrun }, { "freed", crash_freed },
	{ "stall", crash_stall }, { "nobody", crash_nobody }, { "irq_leak", crash_irq_leak },
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
