// SPDX-License-Identifier: GPL-2.0-only
/* The commands of the ctl file: which there are, how a line names one, and what their arguments share. */
#include <linux/kernel.h>
#include <linux/string.h>
#include "probe.h"

#define UNLOCKED BIT(0)	/* takes rpp_function.lock itself */
#define OFFLINE BIT(1)	/* needs no device: of use after a surprise removal, until remove() */

struct command {
	const char *subject;
	const char *verb;	/* NULL: the subject is all */
	unsigned int min_args;
	unsigned int max_args;
	const char *usage;
	unsigned int flags;
	int (*run)(struct rpp_function *fn, struct rpp_args *args);
};

static int help(struct rpp_function *fn, struct rpp_args *args);

static int info(struct rpp_function *fn, struct rpp_args *args)
{
	rpp_say(args, "protocol %d\n", RPP_PROTOCOL);
	rpp_say(args, "id 0x%04x 0x%04x\n", fn->pdev->vendor, fn->pdev->device);
	rpp_say(args, "config %d\n", fn->pdev->cfg_size);
	if (fn->enable_error)
		rpp_say(args, "enable %d\n", -fn->enable_error);
	rpp_bars_describe(fn, args);
	rpp_irqs_describe(fn, args);
	rpp_dma_describe(fn, args);
	rpp_say(args, "ok\n");
	return 0;
}

static const struct command commands[] = {
	{ "help", NULL, 0, 0, "", OFFLINE, help },
	{ "info", NULL, 0, 0, "", 0, info },
	{ "config", "read", 2, 2, "WIDTH OFFSET", 0, rpp_config_read },
	{ "config", "write", 3, 3, "WIDTH OFFSET VALUE", 0, rpp_config_write },
	{ "mem", "read", 3, 3, "WIDTH BAR OFFSET", 0, rpp_mem_read },
	{ "mem", "write", 4, 4, "WIDTH BAR OFFSET VALUE", 0, rpp_mem_write },
	{ "io", "read", 3, 3, "WIDTH BAR OFFSET", 0, rpp_io_read },
	{ "io", "write", 4, 4, "WIDTH BAR OFFSET VALUE", 0, rpp_io_write },
	{ "bar", "remap", 1, 1, "BAR", 0, rpp_bar_remap },
	{ "irq", "alloc", 2, 2, "msix|msi|intx COUNT", 0, rpp_irq_alloc },
	{ "irq", "beside", 1, 1, "msix|msi", 0, rpp_irq_beside },
	{ "irq", "free", 0, 0, "", OFFLINE, rpp_irq_free },
	{ "irq", "counts", 0, 2, "[FIRST [COUNT]]", OFFLINE, rpp_irq_counts },
	{ "irq", "wait", 3, 3, "VECTOR COUNT TIMEOUT_MS", UNLOCKED | OFFLINE, rpp_irq_wait },
	{ "irq", "mask", 1, 1, "VECTOR", 0, rpp_irq_mask },
	{ "irq", "unmask", 1, 1, "VECTOR", 0, rpp_irq_unmask },
	{ "irq", "pending", 0, 0, "", 0, rpp_irq_pending },
	{ "irq", "entry", 1, 1, "VECTOR", 0, rpp_irq_entry },
	{ "irq", "ack", 1, 4, "none | WIDTH BAR STATUS_OFFSET ACK_OFFSET|read", 0, rpp_irq_ack },
	{ "dma", "alloc", 2, 2, "SIZE ADDRESS_BITS", 0, rpp_dma_alloc },
	{ "dma", "free", 0, 0, "", OFFLINE, rpp_dma_free },
	{ "dma", "read", 2, 2, "OFFSET BYTES", OFFLINE, rpp_dma_read },
	{ "dma", "write", 2, 2, "OFFSET HEX", OFFLINE, rpp_dma_write },
};

static int help(struct rpp_function *fn, struct rpp_args *args)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(commands); i++)
		rpp_say(args, "# %s%s%s %s\n", commands[i].subject, commands[i].verb ? " " : "",
			commands[i].verb ? commands[i].verb : "", commands[i].usage);
	rpp_say(args, "ok\n");
	return 0;
}

int rpp_number(struct rpp_args *args, unsigned int index, u64 max, const char *what, u64 *value)
{
	if (index >= args->count || kstrtoull(args->word[index], 0, value))
		return rpp_fail(args, -EINVAL, "%s is not a number", what);
	if (*value > max)
		return rpp_fail(args, -ERANGE, "%s is over 0x%llx", what, max);
	return 0;
}

int rpp_width(struct rpp_args *args, unsigned int index, bool wide, unsigned int *width)
{
	u64 bits;
	int ret = rpp_number(args, index, U64_MAX, "width", &bits);

	if (ret)
		return ret;
	wide = wide && IS_ENABLED(CONFIG_64BIT);
	if (bits != 8 && bits != 16 && bits != 32 && !(wide && bits == 64))
		return rpp_fail(args, -EINVAL, "widths here are 8, 16, 32%s", wide ? ", 64" : "");
	*width = bits;
	return 0;
}

int rpp_span(struct rpp_args *args, u64 offset, u64 bytes, u64 size, u64 align, const char *what)
{
	if (offset >= size || bytes > size - offset)
		return rpp_fail(args, -ERANGE, "%s has 0x%llx bytes", what, size);
	if (offset % align)
		return rpp_fail(args, -EINVAL, "offset is not a multiple of %llu bytes", align);
	return 0;
}

static const struct command *find(struct rpp_args *args)
{
	size_t i, used;

	for (i = 0; i < ARRAY_SIZE(commands); i++) {
		used = commands[i].verb ? 2 : 1;
		if (args->count < used || strcmp(args->word[0], commands[i].subject) ||
		    (commands[i].verb && strcmp(args->word[1], commands[i].verb)))
			continue;
		args->count -= used;
		memmove(args->word, args->word + used, args->count * sizeof(args->word[0]));
		return &commands[i];
	}
	return NULL;
}

static int run(struct rpp_function *fn, struct rpp_args *args)
{
	const struct command *command = find(args);
	int ret;

	if (!command)
		return rpp_fail(args, -EINVAL, "no such command: help lists them");
	if (args->count < command->min_args || args->count > command->max_args)
		return rpp_fail(args, -EINVAL, "usage: %s%s%s %s", command->subject, command->verb ? " " : "",
				command->verb ? command->verb : "", command->usage);
	if (!(command->flags & OFFLINE) && fn->pdev->error_state == pci_channel_io_perm_failure)
		return rpp_fail(args, -ENODEV, "the device is gone");
	if (command->flags & UNLOCKED)
		return command->run(fn, args);
	if (mutex_lock_interruptible(&fn->lock))
		return -EINTR;
	ret = command->run(fn, args);
	mutex_unlock(&fn->lock);
	return ret;
}

int rpp_line_run(struct rpp_function *fn, struct rpp_session *session, char *line)
{
	struct rpp_args args = { .session = session };
	size_t begun = rpp_answer_begin(session);
	char *word;
	int ret;

	while ((word = strsep(&line, " \t\r"))) {
		if (!*word)
			continue;
		if (args.count == RPP_WORDS_MAX)
			return rpp_answer_end(&args, begun, rpp_fail(&args, -EINVAL, "too many words"));
		args.word[args.count++] = word;
	}
	if (!args.count)
		return 0;
	ret = run(fn, &args);
	return rpp_answer_end(&args, begun, ret);
}
