// SPDX-License-Identifier: GPL-2.0-only
/*
 * The module's log of what the PCI core asked of it: /sys/kernel/debug/rootport_probe/events.
 * It outlives the functions it speaks of, and keeps the newest 1024. One line an event:
 *
 *   SEQ TIME_NS KIND FUNCTION VENDOR:DEVICE [DETAIL]
 *
 * SEQ starts at 1 and has no holes but at the start, where older events were dropped.
 */
#include <linux/debugfs.h>
#include <linux/ktime.h>
#include <linux/seq_file.h>
#include "probe.h"

#define EVENTS_MAX 1024

struct event {
	u64 seq;
	u64 time_ns;
	u16 vendor;
	u16 device;
	char kind[16];
	char function[16];
	char detail[40];
};

static DEFINE_SPINLOCK(events_lock);
static struct event events[EVENTS_MAX];
static u64 last_seq;

void rpp_event(struct pci_dev *pdev, const char *kind, const char *fmt, ...)
{
	struct event *event;
	unsigned long flags;
	va_list args;

	spin_lock_irqsave(&events_lock, flags);
	event = &events[++last_seq % EVENTS_MAX];
	event->seq = last_seq;
	event->time_ns = ktime_get_ns();
	event->vendor = pdev->vendor;
	event->device = pdev->device;
	strscpy(event->kind, kind, sizeof(event->kind));
	strscpy(event->function, pci_name(pdev), sizeof(event->function));
	va_start(args, fmt);
	vsnprintf(event->detail, sizeof(event->detail), fmt, args);
	va_end(args);
	spin_unlock_irqrestore(&events_lock, flags);
}

static int events_show(struct seq_file *file, void *unused)
{
	u64 seq, last;

	spin_lock_irq(&events_lock);
	last = last_seq;
	spin_unlock_irq(&events_lock);

	/* One at a time, so that interrupts are not held off while the whole log is printed. */
	for (seq = last > EVENTS_MAX ? last - EVENTS_MAX + 1 : 1; seq <= last; seq++) {
		struct event event;

		spin_lock_irq(&events_lock);
		event = events[seq % EVENTS_MAX];
		spin_unlock_irq(&events_lock);
		if (event.seq != seq)	/* overwritten meanwhile */
			continue;
		seq_printf(file, "%llu %llu %s %s %04x:%04x%s%s\n", event.seq, event.time_ns,
			   event.kind, event.function, event.vendor, event.device,
			   event.detail[0] ? " " : "", event.detail);
	}
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(events);

void rpp_events_create(struct dentry *root)
{
	debugfs_create_file("events", 0400, root, NULL, &events_fops);
}
