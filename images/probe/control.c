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

size_t rpp_answer_begin(struct rpp_session *session)
{
	session->reason[0] = '\0';
	session->answer_lost = false;
	return session->answer_len;
}

int rpp_answer_end(struct rpp_args *args, size_t begun, int ret)
{
	struct rpp_session *session = args->session;
	char name[24];

	if (!ret && session->answer_lost)
		ret = rpp_fail(args, -ENOBUFS, "unread answers fill the session");
	if (!ret)
		return 0;
	snprintf(name, sizeof(name), "%pe", ERR_PTR(ret)); /* "-EINVAL" */
	session->answer_len = begun;
	rpp_say(args, "err %d %s %s\n", -ret, name + 1, session->reason);
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
				ret = rpp_line_run(session->fn, session, session->line);
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
