// SPDX-License-Identifier: GPL-2.0-only
/*
 * The interrupt handler, and how it quiets a level interrupt without knowing the device: by the
 * acknowledge rule that the host gave (`irq ack`), or, without one, by masking INTx at the
 * function's COMMAND register (PCI 2.3): one interrupt is then counted, and `irq unmask 0` lets the
 * next one through.
 */
#include <linux/ktime.h>
#include <linux/smp.h>
#include "probe.h"

/*
 * A rule that does not quiet the device would keep the CPU in the handler for good. The signs: that
 * many INTx in a row after whose acknowledgement the status still stood, or in one second.
 */
#define STORM_UNQUIETED 1000
#define STORM_PER_SECOND 5000

void rpp_intx_set_masked(struct rpp_function *fn, bool masked)
{
	unsigned long flags;

	spin_lock_irqsave(&fn->irq_lock, flags);
	pci_intx(fn->pdev, !masked);
	if (fn->irq_kind == RPP_IRQ_INTX)
		fn->vectors[0].masked = masked;
	fn->storm_count = 0;
	fn->unquieted = 0;
	spin_unlock_irqrestore(&fn->irq_lock, flags);
}

static void guard_against_storm(struct rpp_function *fn, struct rpp_vector *vector, u64 status)
{
	bool stands = fn->ack.ack && (rpp_register_read(fn->ack.status, fn->ack.width) & status) == status;

	if (time_after(jiffies, fn->storm_since + HZ)) {
		fn->storm_since = jiffies;
		fn->storm_count = 0;
	}
	fn->storm_count++;
	fn->unquieted = stands ? fn->unquieted + 1 : 0;
	if (fn->storm_count <= STORM_PER_SECOND && fn->unquieted <= STORM_UNQUIETED)
		return;
	if (!pci_check_and_mask_intx(fn->pdev))
		return;
	rpp_event(fn->pdev, "storm", "masked after %u", fn->storm_count);
	vector->masked = true;
	fn->storm_count = 0;
	fn->unquieted = 0;
}

/* Under irq_lock. True: the rule found our device's interrupt, and quieted it. */
static bool acknowledge(struct rpp_function *fn, u64 *status)
{
	u64 ones = U64_MAX >> (64 - fn->ack.width);
	u16 vendor = 0;

	*status = rpp_register_read(fn->ack.status, fn->ack.width);
	if (*status == ones) {	/* everything at once, or nobody there */
		pci_read_config_word(fn->pdev, PCI_VENDOR_ID, &vendor);
		if (vendor == 0xffff)
			*status = 0;
	}
	if (*status && fn->ack.ack)
		rpp_register_write(fn->ack.ack, fn->ack.width, *status);
	return *status;
}

irqreturn_t rpp_interrupt(int irq, void *data)
{
	struct rpp_vector *vector = data;
	struct rpp_function *fn = vector->fn;
	bool level = fn->irq_kind == RPP_IRQ_INTX;
	bool ours = true;
	u64 status = 0;
	unsigned long flags;

	if (level || READ_ONCE(fn->ack.status)) {
		spin_lock_irqsave(&fn->irq_lock, flags);
		if (fn->ack.status) {
			ours = acknowledge(fn, &status);
			if (level && ours)
				guard_against_storm(fn, vector, status);
		} else if (level) {
			ours = pci_check_and_mask_intx(fn->pdev);
			vector->masked |= ours;
		}
		spin_unlock_irqrestore(&fn->irq_lock, flags);
	}
	/* A message is ours whatever the status says: nobody else has this vector. */
	ours |= !level;

	spin_lock_irqsave(&vector->lock, flags);
	if (ours) {
		vector->count++;
		vector->last_ns = ktime_get_ns();
		vector->last_cpu = raw_smp_processor_id();
		vector->last_status = status;
	} else {
		vector->refused++;
	}
	spin_unlock_irqrestore(&vector->lock, flags);

	if (ours && wq_has_sleeper(&fn->waitq))
		wake_up_interruptible_all(&fn->waitq);
	return ours ? IRQ_HANDLED : IRQ_NONE;
}

/* irq ack none | WIDTH BAR STATUS_OFFSET ACK_OFFSET|read */
int rpp_irq_ack(struct rpp_function *fn, struct rpp_args *args)
{
	struct rpp_ack rule = { };
	u64 index, status, ack = 0;
	unsigned long flags;
	int ret;

	if (args->count == 4) {
		bool reading_is_enough = !strcmp(args->word[3], "read");

		ret = rpp_width(args, 0, true, &rule.width);
		if (!ret)
			ret = rpp_number(args, 1, U8_MAX, "BAR", &index);
		if (!ret)
			ret = rpp_number(args, 2, U64_MAX, "status offset", &status);
		if (!ret && !reading_is_enough)
			ret = rpp_number(args, 3, U64_MAX, "ack offset", &ack);
		if (!ret)
			ret = rpp_bar_map(fn, args, index);
		if (!ret && fn->bar[index].io && rule.width == 64)
			ret = rpp_fail(args, -EINVAL, "no 64-bit access to I/O");
		if (!ret)
			ret = rpp_span(args, status, rule.width / 8, fn->bar[index].size, rule.width / 8, "the BAR");
		if (!ret)
			ret = rpp_span(args, ack, rule.width / 8, fn->bar[index].size, rule.width / 8, "the BAR");
		if (ret)
			return ret;
		rule.bar = index;
		rule.status = fn->bar[index].base + status;
		rule.ack = reading_is_enough ? NULL : fn->bar[index].base + ack;
	} else if (args->count != 1 || strcmp(args->word[0], "none")) {
		return rpp_fail(args, -EINVAL, "usage: irq ack none | WIDTH BAR STATUS_OFFSET ACK_OFFSET|read");
	}

	spin_lock_irqsave(&fn->irq_lock, flags);
	fn->ack = rule;
	spin_unlock_irqrestore(&fn->irq_lock, flags);
	rpp_say(args, "ok\n");
	return 0;
}
