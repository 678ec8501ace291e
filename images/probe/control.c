// SPDX-License-Identifier: GPL-2.0-only
/*
 * The ctl file of a bound function. Each open file is a session of its own, so clients do not
 * disturb one another:
 *
 *   # exec 3<>/sys/kernel/debug/rootport_probe/0000:00:04.0/ctl
 *   # echo 'mem read 32 0 0x0' >&3; cat <&3
 *   ok 0x10000ed
 *
 * A written line is a command, run when its newline comes. Its answer is queued until read: lines
 * of data, then "ok [VALUE]" or "err ERRNO NAME REASON". The write itself fails with that errno
 * too, and the rest of it is not run; so several lines in one write stop at the first failure.
 * Numbers are decimal or 0x hex, widths are in bits. `help` lists the commands.
 */
#include <linux/debugfs.h>
#include <linux/fs.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include "probe.h"

#define ANSWER_MAX (1024 * 1024)

struct rpp_session {
	struct rpp_function *fn;
	struct mutex lock;
	size_t line_len;
	char line[RPP_LINE_MAX];
	char reason[96];
	char *answer;
	size_t answer_len;
	size_t answer_size;
	size_t answer_read;
	bool answer_lost;
};

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

static bool make_room(struct rpp_session *session, size_t more)
{
	size_t size = max_t(size_t, session->answer_size, 512);
	char *answer;

	while (size < session->answer_len + more + 1)
		size *= 2;
	if (size == session->answer_size)
		return true;
	if (size > ANSWER_MAX)
		return false;
	answer = kvmalloc(size, GFP_KERNEL);
	if (!answer)
		return false;
	if (session->answer_len)
		memcpy(answer, session->answer, session->answer_len);
	kvfree(session->answer);
	session->answer = answer;
	session->answer_size = size;
	return true;
}

static void say(struct rpp_session *session, const char *fmt, va_list list)
{
	va_list again;
	int len;

	va_copy(again, list);
	len = vsnprintf(NULL, 0, fmt, list);
	if (make_room(session, len))
		session->answer_len += vsnprintf(session->answer + session->answer_len, len + 1, fmt, again);
	else
		session->answer_lost = true;
	va_end(again);
}

void rpp_say(struct rpp_args *args, const char *fmt, ...)
{
	va_list list;

	va_start(list, fmt);
	say(args->session, fmt, list);
	va_end(list);
}

int rpp_fail(struct rpp_args *args, int error, const char *fmt, ...)
{
	va_list list;

	va_start(list, fmt);
	vsnprintf(args->session->reason, sizeof(args->session->reason), fmt, list);
	va_end(list);
	return error;
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

static int run(struct rpp_session *session, struct rpp_args *args)
{
	struct rpp_function *fn = session->fn;
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

static int run_line(struct rpp_session *session)
{
	struct rpp_args args = { .session = session };
	size_t begun = session->answer_len;
	char *rest = session->line, *word;
	int ret = 0;

	session->reason[0] = '\0';
	session->answer_lost = false;
	while ((word = strsep(&rest, " \t\r"))) {
		if (!*word)
			continue;
		if (args.count == RPP_WORDS_MAX) {
			ret = rpp_fail(&args, -EINVAL, "too many words");
			break;
		}
		args.word[args.count++] = word;
	}
	if (!ret && !args.count)
		return 0; /* an empty line has no answer */
	if (!ret)
		ret = run(session, &args);
	if (!ret && session->answer_lost)
		ret = rpp_fail(&args, -ENOBUFS, "unread answers fill the session");
	if (ret) {
		char name[24];

		snprintf(name, sizeof(name), "%pe", ERR_PTR(ret)); /* "-EINVAL" */
		session->answer_len = begun;
		rpp_say(&args, "err %d %s %s\n", -ret, name + 1, session->reason);
	}
	return ret;
}

static int ctl_open(struct inode *inode, struct file *file)
{
	struct rpp_session *session = kvzalloc(sizeof(*session), GFP_KERNEL);

	if (!session)
		return -ENOMEM;
	session->fn = inode->i_private;
	mutex_init(&session->lock);
	file->private_data = session;
	return 0;
}

/* May run after remove(): it touches nothing of the function. */
static int ctl_release(struct inode *inode, struct file *file)
{
	struct rpp_session *session = file->private_data;

	kvfree(session->answer);
	kvfree(session);
	return 0;
}

static ssize_t ctl_write(struct file *file, const char __user *user, size_t size, loff_t *pos)
{
	struct rpp_session *session = file->private_data;
	size_t done = 0;
	int ret = 0;

	if (mutex_lock_interruptible(&session->lock))
		return -EINTR;
	while (done < size && !ret) {
		char chunk[128];
		size_t n = min(size - done, sizeof(chunk)), i;

		if (copy_from_user(chunk, user + done, n)) {
			ret = -EFAULT;
			break;
		}
		for (i = 0; i < n && !ret; i++) {
			if (chunk[i] != '\n' && session->line_len == sizeof(session->line) - 1) {
				ret = -E2BIG;
			} else if (chunk[i] != '\n') {
				session->line[session->line_len++] = chunk[i];
			} else {
				session->line[session->line_len] = '\0';
				session->line_len = 0;
				ret = run_line(session);
			}
		}
		done += n;
	}
	if (ret)
		session->line_len = 0;
	mutex_unlock(&session->lock);
	return ret ? ret : size;
}

static ssize_t ctl_read(struct file *file, char __user *user, size_t size, loff_t *pos)
{
	struct rpp_session *session = file->private_data;
	ssize_t ret;

	if (mutex_lock_interruptible(&session->lock))
		return -EINTR;
	ret = min(size, session->answer_len - session->answer_read);
	if (ret && copy_to_user(user, session->answer + session->answer_read, ret)) {
		ret = -EFAULT;
	} else {
		session->answer_read += ret;
		if (session->answer_read == session->answer_len)
			session->answer_read = session->answer_len = 0;
	}
	mutex_unlock(&session->lock);
	return ret;
}

static const struct file_operations ctl_fops = {
	.owner = THIS_MODULE,
	.open = ctl_open,
	.release = ctl_release,
	.write = ctl_write,
	.read = ctl_read,
	.llseek = noop_llseek,
};

void rpp_control_create(struct rpp_function *fn)
{
	debugfs_create_file("ctl", 0600, fn->dir, fn, &ctl_fops);
}
