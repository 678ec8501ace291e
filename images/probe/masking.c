// SPDX-License-Identifier: GPL-2.0-only
/*
 * Masks, pending bits and table entries as the hardware has them. Masking goes through the kernel's
 * own interrupt core, which then agrees with the hardware about it, and answers "ok" only when the
 * hardware's mask bit reads back so. Function Mask and Enable are the host's to set by
 * `config write`, table entries by `mem write`.
 */
#include <linux/io.h>
#include "probe.h"

/* The MSI-X table (or, for pending, the PBA) in its BAR, checked to lie inside it. */
static int msix_region(struct rpp_function *fn, struct rpp_args *args, bool pba, void __iomem **at, int *entries)
{
	u8 cap = pci_find_capability(fn->pdev, PCI_CAP_ID_MSIX);
	u32 where = 0;
	int ret;

	*entries = pci_msix_vec_count(fn->pdev);
	if (!cap || *entries <= 0)
		return rpp_fail(args, -EOPNOTSUPP, "the function has no msix");
	pci_read_config_dword(fn->pdev, cap + (pba ? PCI_MSIX_PBA : PCI_MSIX_TABLE), &where);
	ret = rpp_bar_map(fn, args, where & PCI_MSIX_TABLE_BIR);
	if (!ret)
		ret = rpp_span(args, where & PCI_MSIX_TABLE_OFFSET,
			       pba ? DIV_ROUND_UP(*entries, 64) * 8 : *entries * PCI_MSIX_ENTRY_SIZE,
			       fn->bar[where & PCI_MSIX_TABLE_BIR].size, 8, "the BAR of the MSI-X structure");
	if (!ret)
		*at = fn->bar[where & PCI_MSIX_TABLE_BIR].base + (where & PCI_MSIX_TABLE_OFFSET);
	return ret;
}

/* The MSI capability's mask (or pending) register. */
static int msi_register(struct rpp_function *fn, struct rpp_args *args, bool pending, u32 *value)
{
	u8 cap = pci_find_capability(fn->pdev, PCI_CAP_ID_MSI);
	u16 control = 0;
	bool wide;

	pci_read_config_word(fn->pdev, cap + PCI_MSI_FLAGS, &control);
	if (!cap || !(control & PCI_MSI_FLAGS_MASKBIT))
		return rpp_fail(args, -EOPNOTSUPP, "the function's msi has no mask bits");
	wide = control & PCI_MSI_FLAGS_64BIT;
	return pci_read_config_dword(fn->pdev, cap + (pending ? (wide ? PCI_MSI_PENDING_64 : PCI_MSI_PENDING_32)
							       : (wide ? PCI_MSI_MASK_64 : PCI_MSI_MASK_32)),
				     value) ? -EIO : 0;
}

/* 1 or 0 as the hardware has it now, or -errno */
static int hardware_mask(struct rpp_function *fn, struct rpp_args *args, struct rpp_vector *vector)
{
	void __iomem *table;
	int entries, ret;
	u16 command = 0;
	u32 mask = 0;

	switch (fn->irq_kind) {
	case RPP_IRQ_MSIX:
		ret = msix_region(fn, args, false, &table, &entries);
		if (ret)
			return ret;
		mask = ioread32(table + vector->index * PCI_MSIX_ENTRY_SIZE + PCI_MSIX_ENTRY_VECTOR_CTRL);
		return mask & PCI_MSIX_ENTRY_CTRL_MASKBIT;
	case RPP_IRQ_MSI:
		ret = msi_register(fn, args, false, &mask);
		return ret ? ret : (mask >> vector->index) & 1;
	default:
		pci_read_config_word(fn->pdev, PCI_COMMAND, &command);
		return !!(command & PCI_COMMAND_INTX_DISABLE);
	}
}

static int set_mask(struct rpp_function *fn, struct rpp_args *args, bool masked)
{
	struct rpp_vector *vector;
	int ret = rpp_vector_find(fn, args, &vector);

	if (!ret)
		ret = hardware_mask(fn, args, vector);	/* can it be masked at all? */
	if (ret < 0)
		return ret;
	if (fn->irq_kind == RPP_IRQ_INTX) {
		rpp_intx_set_masked(fn, masked);
	} else if (vector->masked != masked) {
		if (masked)
			disable_irq(vector->irq);
		else
			enable_irq(vector->irq);
		vector->masked = masked;
	}
	/* An INTx that is still asserted is masked again by the handler at once: no fault. */
	ret = hardware_mask(fn, args, vector);
	if (ret >= 0 && ret != masked && fn->irq_kind != RPP_IRQ_INTX)
		ret = rpp_fail(args, -EIO, "the mask bit reads back %d", ret);
	if (ret < 0)
		return ret;
	rpp_say(args, "ok\n");
	return 0;
}

int rpp_irq_mask(struct rpp_function *fn, struct rpp_args *args)
{
	return set_mask(fn, args, true);
}

int rpp_irq_unmask(struct rpp_function *fn, struct rpp_args *args)
{
	return set_mask(fn, args, false);
}

/* irq pending: 64-bit words, vector 0 in bit 0 of the first. MSI-X unless MSI or INTx is in use. */
int rpp_irq_pending(struct rpp_function *fn, struct rpp_args *args)
{
	void __iomem *pba;
	int entries, ret, i;
	u16 status = 0;
	u32 bits = 0;

	switch (fn->irq_kind) {
	case RPP_IRQ_INTX:
		pci_read_config_word(fn->pdev, PCI_STATUS, &status);
		rpp_say(args, "ok 0x%x\n", !!(status & PCI_STATUS_INTERRUPT));
		return 0;
	case RPP_IRQ_MSI:
		ret = msi_register(fn, args, true, &bits);
		if (!ret)
			rpp_say(args, "ok 0x%x\n", bits);
		return ret;
	default:
		ret = msix_region(fn, args, true, &pba, &entries);
		if (ret)
			return ret;
		rpp_say(args, "ok");
		for (i = 0; i < DIV_ROUND_UP(entries, 64); i++) {
			u64 low = ioread32(pba + 8 * i), high = ioread32(pba + 8 * i + 4);

			rpp_say(args, " 0x%llx", high << 32 | low);
		}
		rpp_say(args, "\n");
		return 0;
	}
}

/* irq entry VECTOR: the raw table entry: address low, address high, data, vector control.
 * Any entry of the table, allocated or not.
 */
int rpp_irq_entry(struct rpp_function *fn, struct rpp_args *args)
{
	void __iomem *entry;
	int entries, ret;
	u64 index;

	ret = rpp_number(args, 0, U32_MAX, "vector", &index);
	if (!ret)
		ret = msix_region(fn, args, false, &entry, &entries);
	if (ret)
		return ret;
	if (index >= entries)
		return rpp_fail(args, -ERANGE, "the table's entries are 0 to %d", entries - 1);
	entry += index * PCI_MSIX_ENTRY_SIZE;
	rpp_say(args, "ok 0x%x 0x%x 0x%x 0x%x\n", ioread32(entry + PCI_MSIX_ENTRY_LOWER_ADDR),
		ioread32(entry + PCI_MSIX_ENTRY_UPPER_ADDR), ioread32(entry + PCI_MSIX_ENTRY_DATA),
		ioread32(entry + PCI_MSIX_ENTRY_VECTOR_CTRL));
	return 0;
}
