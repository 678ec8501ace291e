/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * rootport_probe: what its files share. One struct rpp_function per bound PCI function, one
 * struct rpp_session per open ctl file.
 *
 * Locks, outermost first:
 *   rpp_session.lock   one open file: its line under way and its unread answers
 *   rpp_function.lock  one bound function: every command but `irq wait` runs under it
 *   rpp_function.irq_lock, rpp_vector.lock   with interrupts off: what the handler touches
 *
 * Lifetime: remove() takes the debugfs files away first. debugfs lets no operation begin after
 * that and waits for those under way, so nothing below it needs a reference count.
 */
#ifndef ROOTPORT_PROBE_H
#define ROOTPORT_PROBE_H

#include <linux/interrupt.h>
#include <linux/mutex.h>
#include <linux/pci.h>
#include <linux/spinlock.h>
#include <linux/wait.h>

#define RPP_NAME "rootport_probe"
#define RPP_PROTOCOL 1
#define RPP_LINE_MAX 8192
#define RPP_WORDS_MAX 8
#define RPP_DMA_MAX (64 * 1024)
#define RPP_VECTORS_MAX 2048

struct dentry;
struct rpp_session;

enum rpp_irq_kind { RPP_IRQ_NONE, RPP_IRQ_INTX, RPP_IRQ_MSI, RPP_IRQ_MSIX };

struct rpp_vector {
	struct rpp_function *fn;
	unsigned int index;
	int irq;		/* Linux's number, as in /proc/irq */
	bool masked;		/* by `irq mask`, or INTx by the handler itself */
	spinlock_t lock;	/* the rest, so that a reader sees one interrupt's values */
	u64 count;
	u64 refused;		/* calls of the handler that found nothing of ours (INTx) */
	u64 last_ns;		/* CLOCK_MONOTONIC */
	u64 last_status;	/* of the acknowledge rule's status register */
	int last_cpu;		/* -1: never */
	char name[48];
} ____cacheline_aligned_in_smp;

struct rpp_bar {
	void __iomem *base;	/* NULL: not mapped yet */
	resource_size_t start;
	resource_size_t size;
	bool io;
};

/* How to tell and quiet this device's interrupt: read status; if not 0, write it to ack. */
struct rpp_ack {
	void __iomem *status;	/* NULL: no rule */
	void __iomem *ack;	/* NULL: reading status is enough */
	unsigned int bar;
	unsigned int width;	/* bits */
};

struct rpp_function {
	struct pci_dev *pdev;
	struct dentry *dir;
	struct mutex lock;
	int enable_error;	/* of pci_enable_device(): BARs and vectors answer with it */
	bool gone;		/* remove() has begun */

	struct rpp_bar bar[PCI_STD_NUM_BARS];

	spinlock_t irq_lock;	/* ack, the storm guard, and INTx masking */
	struct rpp_ack ack;
	unsigned long storm_since;
	unsigned int storm_count;
	unsigned int unquieted;
	enum rpp_irq_kind irq_kind;
	unsigned int vector_count;
	struct rpp_vector *vectors;
	unsigned int waiters;	/* `irq wait` under way: the vectors must stay */
	wait_queue_head_t waitq;

	void *dma;
	dma_addr_t dma_address;
	size_t dma_size;
};

/* events.c: the module's log; any context */
__printf(3, 4) void rpp_event(struct pci_dev *pdev, const char *kind, const char *fmt, ...);
void rpp_events_create(struct dentry *root);

/* commands.c: the words of a line, the command they name, and what every command needs */
struct rpp_args {
	struct rpp_session *session;
	unsigned int count;
	char *word[RPP_WORDS_MAX];
};

/* Run one line, and append its answer unless it is empty. Tears the line apart. */
int rpp_line_run(struct rpp_function *fn, struct rpp_session *session, char *line);
int rpp_number(struct rpp_args *args, unsigned int index, u64 max, const char *what, u64 *value);
/* 8, 16, 32, or 64 when wide is true. */
int rpp_width(struct rpp_args *args, unsigned int index, bool wide, unsigned int *width);
int rpp_span(struct rpp_args *args, u64 offset, u64 bytes, u64 size, u64 align, const char *what);

/* control.c: sessions and their answers */
void rpp_control_create(struct rpp_function *fn);
/* Append to the answer. A command that succeeds ends it with a line that starts with "ok". */
__printf(2, 3) void rpp_say(struct rpp_args *args, const char *fmt, ...);
/* The reason that the answer gives for error; returns error. */
__printf(3, 4) int rpp_fail(struct rpp_args *args, int error, const char *fmt, ...);
/* What has been said since `begun` is replaced by this error's line. */
size_t rpp_answer_begin(struct rpp_session *session);
int rpp_answer_end(struct rpp_args *args, size_t begun, int ret);

/* The commands: each runs under fn->lock unless said otherwise, and returns 0 or -errno */
int rpp_config_read(struct rpp_function *fn, struct rpp_args *args);
int rpp_config_write(struct rpp_function *fn, struct rpp_args *args);

int rpp_mem_read(struct rpp_function *fn, struct rpp_args *args);
int rpp_mem_write(struct rpp_function *fn, struct rpp_args *args);
int rpp_io_read(struct rpp_function *fn, struct rpp_args *args);
int rpp_io_write(struct rpp_function *fn, struct rpp_args *args);
int rpp_bar_remap(struct rpp_function *fn, struct rpp_args *args);
int rpp_bar_map(struct rpp_function *fn, struct rpp_args *args, unsigned int index);
void rpp_bars_describe(struct rpp_function *fn, struct rpp_args *args);
void rpp_bars_release(struct rpp_function *fn);
u64 rpp_register_read(void __iomem *at, unsigned int width);
void rpp_register_write(void __iomem *at, unsigned int width, u64 value);

int rpp_irq_alloc(struct rpp_function *fn, struct rpp_args *args);
int rpp_irq_beside(struct rpp_function *fn, struct rpp_args *args);
int rpp_irq_free(struct rpp_function *fn, struct rpp_args *args);
int rpp_irq_counts(struct rpp_function *fn, struct rpp_args *args);
int rpp_irq_wait(struct rpp_function *fn, struct rpp_args *args); /* takes fn->lock itself */
/* The allocated vector that the first argument names. */
int rpp_vector_find(struct rpp_function *fn, struct rpp_args *args, struct rpp_vector **vector);
void rpp_irqs_describe(struct rpp_function *fn, struct rpp_args *args);
void rpp_irqs_release(struct rpp_function *fn);

int rpp_irq_mask(struct rpp_function *fn, struct rpp_args *args);
int rpp_irq_unmask(struct rpp_function *fn, struct rpp_args *args);
int rpp_irq_pending(struct rpp_function *fn, struct rpp_args *args);
int rpp_irq_entry(struct rpp_function *fn, struct rpp_args *args);

int rpp_irq_ack(struct rpp_function *fn, struct rpp_args *args);
irqreturn_t rpp_interrupt(int irq, void *vector);
void rpp_intx_set_masked(struct rpp_function *fn, bool masked);

int rpp_dma_alloc(struct rpp_function *fn, struct rpp_args *args);
int rpp_dma_free(struct rpp_function *fn, struct rpp_args *args);
int rpp_dma_read(struct rpp_function *fn, struct rpp_args *args);
int rpp_dma_write(struct rpp_function *fn, struct rpp_args *args);
void rpp_dma_describe(struct rpp_function *fn, struct rpp_args *args);
void rpp_dma_release(struct rpp_function *fn);

#endif
