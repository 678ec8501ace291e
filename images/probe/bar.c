// SPDX-License-Identifier: GPL-2.0-only
/*
 * The function's memory and I/O BARs. Each is claimed (and so shows in /proc/iomem) and mapped at
 * the first access, at the kernel's own address for it; `bar remap` follows a BAR that was moved
 * by a config write, of which the kernel's resource tree knows nothing.
 */
#include <linux/io.h>
#include <linux/ioport.h>
#include "probe.h"

u64 rpp_register_read(void __iomem *at, unsigned int width)
{
	switch (width) {
	case 8:
		return ioread8(at);
	case 16:
		return ioread16(at);
	case 32:
		return ioread32(at);
	}
#ifdef CONFIG_64BIT
	return readq(at);
#else
	return U64_MAX; /* rpp_width() lets no 64 through */
#endif
}

void rpp_register_write(void __iomem *at, unsigned int width, u64 value)
{
	switch (width) {
	case 8:
		iowrite8(value, at);
		break;
	case 16:
		iowrite16(value, at);
		break;
	case 32:
		iowrite32(value, at);
		break;
#ifdef CONFIG_64BIT
	case 64:
		writeq(value, at);
		break;
#endif
	}
}

static int claim(struct rpp_args *args, struct rpp_bar *bar)
{
	struct resource *claimed;

	/* ioremap() of memory is a kernel warning: refuse before it comes to that. */
	if (!bar->io && region_intersects(bar->start, bar->size, IORESOURCE_SYSTEM_RAM,
					  IORES_DESC_NONE) != REGION_DISJOINT)
		return rpp_fail(args, -EBUSY, "the guest's memory is at %pa", &bar->start);
	claimed = bar->io ? request_region(bar->start, bar->size, RPP_NAME)
			  : request_mem_region(bar->start, bar->size, RPP_NAME);
	if (!claimed)
		return rpp_fail(args, -EBUSY, "%pa is another's, or no address of this machine", &bar->start);

	bar->base = bar->io ? ioport_map(bar->start, bar->size) : ioremap(bar->start, bar->size);
	if (bar->base)
		return 0;
	if (bar->io)
		release_region(bar->start, bar->size);
	else
		release_mem_region(bar->start, bar->size);
	return rpp_fail(args, -ENOMEM, "no room to map %pa bytes", &bar->size);
}

static void release(struct rpp_bar *bar)
{
	if (!bar->base)
		return;
	if (bar->io) {
		ioport_unmap(bar->base);
		release_region(bar->start, bar->size);
	} else {
		iounmap(bar->base);
		release_mem_region(bar->start, bar->size);
	}
	bar->base = NULL;
}

static int look_up(struct rpp_function *fn, struct rpp_args *args, unsigned int index, struct rpp_bar *bar)
{
	unsigned long flags;

	if (index >= PCI_STD_NUM_BARS)
		return rpp_fail(args, -ENXIO, "BARs are 0 to %d", PCI_STD_NUM_BARS - 1);
	flags = pci_resource_flags(fn->pdev, index);
	if (!pci_resource_len(fn->pdev, index) || !(flags & (IORESOURCE_MEM | IORESOURCE_IO)))
		return rpp_fail(args, -ENXIO, "no BAR %u", index);
	if (fn->enable_error)
		return rpp_fail(args, fn->enable_error, "the function could not be enabled");
	bar->start = pci_resource_start(fn->pdev, index);
	bar->size = pci_resource_len(fn->pdev, index);
	bar->io = flags & IORESOURCE_IO;
	bar->base = NULL;
	return 0;
}

int rpp_bar_map(struct rpp_function *fn, struct rpp_args *args, unsigned int index)
{
	struct rpp_bar bar;
	int ret;

	if (index < PCI_STD_NUM_BARS && fn->bar[index].base)
		return 0;
	ret = look_up(fn, args, index, &bar);
	if (!ret && (!bar.start || pci_resource_flags(fn->pdev, index) & IORESOURCE_UNSET))
		ret = rpp_fail(args, -ENXIO, "BAR %u has no address", index);
	if (!ret)
		ret = claim(args, &bar);
	if (!ret)
		fn->bar[index] = bar;
	return ret;
}

/* bar remap BAR: map it where its register points now. Answers the address. */
int rpp_bar_remap(struct rpp_function *fn, struct rpp_args *args)
{
	u32 low = 0, high = 0;
	struct rpp_bar bar;
	unsigned long flags;
	u64 index;
	int ret = rpp_number(args, 0, U8_MAX, "BAR", &index);

	if (!ret)
		ret = look_up(fn, args, index, &bar);
	if (ret)
		return ret;
	if (fn->ack.status && fn->ack.bar == index)
		return rpp_fail(args, -EBUSY, "the acknowledge rule uses BAR %llu", index);

	pci_read_config_dword(fn->pdev, PCI_BASE_ADDRESS_0 + 4 * index, &low);
	flags = pci_resource_flags(fn->pdev, index);
	if (flags & IORESOURCE_MEM_64)
		pci_read_config_dword(fn->pdev, PCI_BASE_ADDRESS_0 + 4 * index + 4, &high);
	bar.start = bar.io ? low & PCI_BASE_ADDRESS_IO_MASK
			   : (u64)high << 32 | (low & (u32)PCI_BASE_ADDRESS_MEM_MASK);
	if (!bar.start)
		return rpp_fail(args, -ENXIO, "BAR %llu has no address", index);

	if (!fn->bar[index].base || fn->bar[index].start != bar.start) {
		ret = claim(args, &bar);
		if (ret)
			return ret;
		release(&fn->bar[index]);
		fn->bar[index] = bar;
	}
	rpp_say(args, "ok 0x%llx\n", (u64)bar.start);
	return 0;
}

struct access {
	void __iomem *at;
	unsigned int width;
	u64 value;
};

/* WIDTH BAR OFFSET [VALUE] */
static int check(struct rpp_function *fn, struct rpp_args *args, bool io, bool write, struct access *access)
{
	struct rpp_bar *bar;
	u64 index, offset;
	int ret = rpp_width(args, 0, !io, &access->width);

	if (!ret)
		ret = rpp_number(args, 1, U8_MAX, "BAR", &index);
	if (!ret)
		ret = rpp_number(args, 2, U64_MAX, "offset", &offset);
	if (!ret && write)
		ret = rpp_number(args, 3, U64_MAX >> (64 - access->width), "value", &access->value);
	if (!ret)
		ret = rpp_bar_map(fn, args, index);
	if (ret)
		return ret;
	bar = &fn->bar[index];
	if (bar->io != io)
		return rpp_fail(args, -EINVAL, "BAR %llu is %s", index, bar->io ? "I/O" : "memory");
	ret = rpp_span(args, offset, access->width / 8, bar->size, access->width / 8, "the BAR");
	access->at = bar->base + offset;
	return ret;
}

static int read_bar(struct rpp_function *fn, struct rpp_args *args, bool io)
{
	struct access access;
	int ret = check(fn, args, io, false, &access);

	if (!ret)
		rpp_say(args, "ok 0x%llx\n", rpp_register_read(access.at, access.width));
	return ret;
}

static int write_bar(struct rpp_function *fn, struct rpp_args *args, bool io)
{
	struct access access;
	int ret = check(fn, args, io, true, &access);

	if (!ret) {
		rpp_register_write(access.at, access.width, access.value);
		rpp_say(args, "ok\n");
	}
	return ret;
}

int rpp_mem_read(struct rpp_function *fn, struct rpp_args *args)
{
	return read_bar(fn, args, false);
}

int rpp_mem_write(struct rpp_function *fn, struct rpp_args *args)
{
	return write_bar(fn, args, false);
}

int rpp_io_read(struct rpp_function *fn, struct rpp_args *args)
{
	return read_bar(fn, args, true);
}

int rpp_io_write(struct rpp_function *fn, struct rpp_args *args)
{
	return write_bar(fn, args, true);
}

/* bar INDEX mem|io ADDRESS SIZE 32|64 prefetchable(0|1), as the kernel or the last remap has it */
void rpp_bars_describe(struct rpp_function *fn, struct rpp_args *args)
{
	unsigned int i;

	for (i = 0; i < PCI_STD_NUM_BARS; i++) {
		unsigned long flags = pci_resource_flags(fn->pdev, i);
		resource_size_t start = fn->bar[i].base ? fn->bar[i].start : pci_resource_start(fn->pdev, i);

		if (!pci_resource_len(fn->pdev, i) || !(flags & (IORESOURCE_MEM | IORESOURCE_IO)))
			continue;
		rpp_say(args, "bar %u %s 0x%llx 0x%llx %d %d\n", i, flags & IORESOURCE_IO ? "io" : "mem",
			(u64)start, (u64)pci_resource_len(fn->pdev, i),
			flags & IORESOURCE_MEM_64 ? 64 : 32, !!(flags & IORESOURCE_PREFETCH));
	}
}

void rpp_bars_release(struct rpp_function *fn)
{
	unsigned int i;

	for (i = 0; i < PCI_STD_NUM_BARS; i++)
		release(&fn->bar[i]);
}
