// SPDX-License-Identifier: GPL-2.0-only
/*
 * The function's interrupt vectors: MSI-X, MSI or INTx, allocated and freed together, counted one by
 * one, and waited for. Their masks and pending bits are in masking.c, the handler in interrupt.c.
 */
#include <linux/irq.h>
#include <linux/mm.h>
#include <linux/rcupdate.h>
#include <linux/slab.h>
#include "probe.h"

#ifndef PCI_IRQ_INTX		/* before Linux 6.9 */
#define PCI_IRQ_INTX PCI_IRQ_LEGACY
#endif

#define WAIT_MAX_MS 600000

static const char *const kind_names[] = {
	[RPP_IRQ_NONE] = "none", [RPP_IRQ_INTX] = "intx", [RPP_IRQ_MSI] = "msi", [RPP_IRQ_MSIX] = "msix",
};
static const unsigned int kind_flags[] = {
	[RPP_IRQ_INTX] = PCI_IRQ_INTX, [RPP_IRQ_MSI] = PCI_IRQ_MSI, [RPP_IRQ_MSIX] = PCI_IRQ_MSIX,
};

static int capacity(struct rpp_function *fn, enum rpp_irq_kind kind)
{
	u8 pin = 0;

	switch (kind) {
	case RPP_IRQ_MSIX:
		return pci_msix_vec_count(fn->pdev);
	case RPP_IRQ_MSI:
		return pci_msi_vec_count(fn->pdev);
	default:
		pci_read_config_byte(fn->pdev, PCI_INTERRUPT_PIN, &pin);
		return pin && pin != 0xff ? 1 : 0;
	}
}

static void free_from(struct rpp_function *fn, unsigned int requested)
{
	unsigned int i;

	if (fn->irq_kind == RPP_IRQ_INTX) {
		/* A level interrupt with no handler left would take the whole line down. */
		rpp_intx_set_masked(fn, true);
	} else {
		/*
		 * Silence all before freeing any, and let every CPU take what it has pending: a message
		 * that comes after its handler went makes the kernel log "unexpected IRQ trap" (seen in 1
		 * of 100 frees under fire without this, in 1 of 3000 with it).
		 */
		for (i = 0; i < requested; i++)
			disable_irq(fn->vectors[i].irq);
		synchronize_rcu_expedited();
	}
	for (i = 0; i < requested; i++) {
		free_irq(fn->vectors[i].irq, &fn->vectors[i]);
		if (fn->irq_kind != RPP_IRQ_INTX)
			irq_clear_status_flags(fn->vectors[i].irq, IRQ_DISABLE_UNLAZY);
	}
	pci_free_irq_vectors(fn->pdev);
	kvfree(fn->vectors);
	fn->vectors = NULL;
	fn->vector_count = 0;
	fn->irq_kind = RPP_IRQ_NONE;
}

void rpp_irqs_release(struct rpp_function *fn)
{
	if (fn->vectors)
		free_from(fn, fn->vector_count);
}

static int request(struct rpp_function *fn, unsigned int index)
{
	struct rpp_vector *vector = &fn->vectors[index];
	bool level = fn->irq_kind == RPP_IRQ_INTX;
	int ret;

	vector->irq = pci_irq_vector(fn->pdev, index);
	if (vector->irq < 0)
		return vector->irq;
	snprintf(vector->name, sizeof(vector->name), RPP_NAME "-%s-%u", pci_name(fn->pdev), index);
	/* Without it disable_irq() sets no mask bit until an interrupt comes that it must hold back. */
	if (!level)
		irq_set_status_flags(vector->irq, IRQ_DISABLE_UNLAZY);
	ret = request_irq(vector->irq, rpp_interrupt, level ? IRQF_SHARED : 0, vector->name, vector);
	if (ret && !level)
		irq_clear_status_flags(vector->irq, IRQ_DISABLE_UNLAZY);
	return ret;
}

/* irq alloc msix|msi|intx COUNT: all of them or none. */
int rpp_irq_alloc(struct rpp_function *fn, struct rpp_args *args)
{
	enum rpp_irq_kind kind;
	unsigned int i;
	int room, ret;
	u64 count;

	for (kind = RPP_IRQ_INTX; kind <= RPP_IRQ_MSIX; kind++)
		if (!strcmp(args->word[0], kind_names[kind]))
			break;
	if (kind > RPP_IRQ_MSIX)
		return rpp_fail(args, -EINVAL, "kinds are msix, msi and intx");
	ret = rpp_number(args, 1, RPP_VECTORS_MAX, "count", &count);
	if (ret)
		return ret;
	if (!count)
		return rpp_fail(args, -EINVAL, "count starts at 1");
	if (fn->vectors)
		return rpp_fail(args, -EBUSY, "%u %s vectors are allocated", fn->vector_count, kind_names[fn->irq_kind]);
	if (fn->enable_error)
		return rpp_fail(args, fn->enable_error, "the function could not be enabled");
	room = capacity(fn, kind);
	if (room <= 0)
		return rpp_fail(args, -EOPNOTSUPP, "the function has no %s", kind_names[kind]);
	if (count > room)
		return rpp_fail(args, -ENOSPC, "the function has %d %s vectors", room, kind_names[kind]);

	fn->vectors = kvcalloc(count, sizeof(*fn->vectors), GFP_KERNEL);
	if (!fn->vectors)
		return -ENOMEM;
	for (i = 0; i < count; i++) {
		fn->vectors[i].fn = fn;
		fn->vectors[i].index = i;
		fn->vectors[i].last_cpu = -1;
		spin_lock_init(&fn->vectors[i].lock);
	}
	ret = pci_alloc_irq_vectors(fn->pdev, count, count, kind_flags[kind]);
	if (ret < 0) {
		kvfree(fn->vectors);
		fn->vectors = NULL;
		return rpp_fail(args, ret, "the kernel gave no %llu %s vectors", count, kind_names[kind]);
	}
	fn->irq_kind = kind;
	fn->storm_count = 0;
	fn->unquieted = 0;
	for (i = 0; i < count; i++) {
		ret = request(fn, i);
		if (ret) {
			free_from(fn, i);
			return rpp_fail(args, ret, "no interrupt for vector %u", i);
		}
	}
	fn->vector_count = count;
	rpp_say(args, "ok %llu\n", count);
	return 0;
}

/*
 * irq beside msix|msi: ask the kernel for one vector of that kind beside those of another kind that are allocated.
 * MSI and MSI-X exclude each other, so the kernel's errno is what the answer should be; should it give one after
 * all, it is given back and the answer is ok.
 */
int rpp_irq_beside(struct rpp_function *fn, struct rpp_args *args)
{
	enum rpp_irq_kind kind = !strcmp(args->word[0], kind_names[RPP_IRQ_MSIX]) ? RPP_IRQ_MSIX : RPP_IRQ_MSI;
	int ret;

	if (strcmp(args->word[0], kind_names[kind]))
		return rpp_fail(args, -EINVAL, "kinds are msix and msi");
	if (!fn->vectors || fn->irq_kind == kind)
		return rpp_fail(args, -EINVAL, "vectors of another kind are to be allocated first");
	if (capacity(fn, kind) <= 0)
		return rpp_fail(args, -EOPNOTSUPP, "the function has no %s", kind_names[kind]);
	ret = pci_alloc_irq_vectors(fn->pdev, 1, 1, kind_flags[kind]);
	if (ret < 0)
		return rpp_fail(args, ret, "the kernel gave no %s vector beside %s", kind_names[kind], kind_names[fn->irq_kind]);
	if (kind == RPP_IRQ_MSIX)
		pci_disable_msix(fn->pdev);
	else
		pci_disable_msi(fn->pdev);
	rpp_say(args, "ok %d\n", ret);
	return 0;
}

int rpp_irq_free(struct rpp_function *fn, struct rpp_args *args)
{
	if (!fn->vectors)
		return rpp_fail(args, -ENOENT, "no vectors are allocated");
	if (fn->waiters)
		return rpp_fail(args, -EBUSY, "somebody waits for one of the vectors");
	rpp_irqs_release(fn);
	rpp_say(args, "ok\n");
	return 0;
}

int rpp_vector_find(struct rpp_function *fn, struct rpp_args *args, struct rpp_vector **vector)
{
	u64 index;
	int ret = rpp_number(args, 0, U32_MAX, "vector", &index);

	if (ret)
		return ret;
	if (!fn->vectors)
		return rpp_fail(args, -ENOENT, "no vectors are allocated");
	if (index >= fn->vector_count)
		return rpp_fail(args, -ERANGE, "vectors are 0 to %u", fn->vector_count - 1);
	*vector = &fn->vectors[index];
	return 0;
}

/* irq counts [FIRST [COUNT]]: a line a vector,
 * v VECTOR IRQ COUNT LAST_CPU LAST_NS MASKED(0|1) REFUSED LAST_STATUS
 */
int rpp_irq_counts(struct rpp_function *fn, struct rpp_args *args)
{
	u64 first = 0, count = fn->vector_count, i;
	int ret = 0;

	if (args->count > 0)
		ret = rpp_number(args, 0, U32_MAX, "first", &first);
	if (!ret && args->count > 1)
		ret = rpp_number(args, 1, U32_MAX, "count", &count);
	if (ret)
		return ret;
	if (!fn->vectors)
		return rpp_fail(args, -ENOENT, "no vectors are allocated");
	if (args->count == 1 && first < count)
		count -= first;
	ret = rpp_span(args, first, count, fn->vector_count, 1, "the list of vectors");
	if (ret)
		return rpp_fail(args, -ERANGE, "vectors are 0 to %u", fn->vector_count - 1);
	for (i = first; i < first + count; i++) {
		struct rpp_vector *vector = &fn->vectors[i], seen;
		unsigned long flags;

		spin_lock_irqsave(&vector->lock, flags);
		seen.count = vector->count;
		seen.refused = vector->refused;
		seen.last_ns = vector->last_ns;
		seen.last_cpu = vector->last_cpu;
		seen.last_status = vector->last_status;
		spin_unlock_irqrestore(&vector->lock, flags);
		rpp_say(args, "v %llu %d %llu %d %llu %d %llu 0x%llx\n", i, vector->irq, seen.count, seen.last_cpu,
			seen.last_ns, vector->masked, seen.refused, seen.last_status);
	}
	rpp_say(args, "ok\n");
	return 0;
}

static u64 count_of(struct rpp_vector *vector)
{
	unsigned long flags;
	u64 count;

	spin_lock_irqsave(&vector->lock, flags);
	count = vector->count;
	spin_unlock_irqrestore(&vector->lock, flags);
	return count;
}

/* irq wait VECTOR COUNT TIMEOUT_MS: until the vector's count is COUNT or more. Answers the count.
 * Ends with ENODEV when the function is unbound meanwhile.
 */
int rpp_irq_wait(struct rpp_function *fn, struct rpp_args *args)
{
	struct rpp_vector *vector;
	u64 count, timeout_ms;
	long left;
	int ret;

	if (mutex_lock_interruptible(&fn->lock))
		return -EINTR;
	ret = rpp_vector_find(fn, args, &vector);
	if (!ret)
		ret = rpp_number(args, 1, U64_MAX, "count", &count);
	if (!ret)
		ret = rpp_number(args, 2, WAIT_MAX_MS, "timeout", &timeout_ms);
	if (!ret)
		fn->waiters++;
	mutex_unlock(&fn->lock);
	if (ret)
		return ret;

	left = wait_event_interruptible_timeout(fn->waitq, count_of(vector) >= count || READ_ONCE(fn->gone),
						msecs_to_jiffies(timeout_ms));
	if (left < 0)
		ret = -EINTR;
	else if (count_of(vector) >= count)
		rpp_say(args, "ok %llu\n", count_of(vector));
	else if (READ_ONCE(fn->gone))
		ret = rpp_fail(args, -ENODEV, "the function was unbound");
	else
		ret = rpp_fail(args, -ETIMEDOUT, "the count is %llu", count_of(vector));

	mutex_lock(&fn->lock);
	fn->waiters--;
	mutex_unlock(&fn->lock);
	return ret;
}

/* What the function can do, and what is allocated: msix N, msi N, intx 1; irq KIND COUNT */
void rpp_irqs_describe(struct rpp_function *fn, struct rpp_args *args)
{
	enum rpp_irq_kind kind;

	for (kind = RPP_IRQ_INTX; kind <= RPP_IRQ_MSIX; kind++)
		if (capacity(fn, kind) > 0)
			rpp_say(args, "%s %d\n", kind_names[kind], capacity(fn, kind));
	rpp_say(args, "irq %s %u\n", kind_names[fn->irq_kind], fn->vector_count);
}
