// SPDX-License-Identifier: GPL-2.0-only
/*
 * A driver of QEMU's edu (1234:11e8) with a bug on demand: while the parameter "leak" is Y, its remove()
 * leaves the MSI vector allocated and its handler requested. The handler touches no device, so that what
 * is left behind does nothing but be there.
 */
#include <linux/interrupt.h>
#include <linux/module.h>
#include <linux/pci.h>

static bool leak;
module_param(leak, bool, 0644);
MODULE_PARM_DESC(leak, "remove() frees neither the handler nor the vector");

static irqreturn_t leaky_handler(int irq, void *data)
{
	return IRQ_HANDLED;
}

static int leaky_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	int err;

	err = pci_enable_device(pdev);
	if (err)
		return err;
	pci_set_master(pdev);
	err = pci_alloc_irq_vectors(pdev, 1, 1, PCI_IRQ_MSI);
	if (err < 0)
		goto disable;
	/* The name must outlive the device: /proc/interrupts shows it for as long as the handler is there. */
	err = request_irq(pci_irq_vector(pdev, 0), leaky_handler, 0, "leaky", THIS_MODULE);
	if (err)
		goto free_vectors;
	return 0;

free_vectors:
	pci_free_irq_vectors(pdev);
disable:
	pci_disable_device(pdev);
	return err;
}

static void leaky_remove(struct pci_dev *pdev)
{
	if (!leak) {
		free_irq(pci_irq_vector(pdev, 0), THIS_MODULE);
		pci_free_irq_vectors(pdev);
	}
	pci_disable_device(pdev);
}

static const struct pci_device_id leaky_ids[] = {
	{ PCI_DEVICE(0x1234, 0x11e8) },
	{ }
};
MODULE_DEVICE_TABLE(pci, leaky_ids);

static struct pci_driver leaky_driver = {
	.name = "leaky",
	.id_table = leaky_ids,
	.probe = leaky_probe,
	.remove = leaky_remove,
};
module_pci_driver(leaky_driver);

MODULE_DESCRIPTION("A driver whose remove() leaves an interrupt behind");
MODULE_LICENSE("GPL");
