// SPDX-License-Identifier: GPL-2.0-only
// IDENT: a driver of QEMU's educational device (QEMU: docs/specs/edu.rst). Writing a number to the function's
// attribute "factorial" has the device compute; an MSI says when it is done; reading gives the result.
#include <linux/completion.h>
#include <linux/interrupt.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/pci.h>

#define REG_ID 0x00
#define REG_FACTORIAL 0x08
#define REG_STATUS 0x20
#define STATUS_IRQ 0x80
#define REG_IRQ_STATUS 0x24
#define REG_IRQ_ACK 0x64
#define TIMEOUT (5 * HZ)

struct IDENT {
	void __iomem *registers;
	struct mutex lock; /* one computation at a time */
	struct completion done;
};

static irqreturn_t IDENT_irq(int irq, void *data)
{
	struct IDENT *self = data;
	u32 status = ioread32(self->registers + REG_IRQ_STATUS);

	if (!status)
		return IRQ_NONE;
	iowrite32(status, self->registers + REG_IRQ_ACK);
	complete(&self->done);
	return IRQ_HANDLED;
}

static ssize_t factorial_store(struct device *dev, struct device_attribute *attr, const char *text, size_t count)
{
	struct IDENT *self = dev_get_drvdata(dev);
	ssize_t result = count;
	u32 number;

	if (kstrtou32(text, 0, &number))
		return -EINVAL;
	mutex_lock(&self->lock);
	reinit_completion(&self->done);
	iowrite32(STATUS_IRQ, self->registers + REG_STATUS);
	iowrite32(number, self->registers + REG_FACTORIAL);
	if (!wait_for_completion_timeout(&self->done, TIMEOUT))
		result = -ETIMEDOUT;
	mutex_unlock(&self->lock);
	return result;
}

static ssize_t factorial_show(struct device *dev, struct device_attribute *attr, char *text)
{
	struct IDENT *self = dev_get_drvdata(dev);

	return sysfs_emit(text, "%u\n", ioread32(self->registers + REG_FACTORIAL));
}
static DEVICE_ATTR_RW(factorial);

static struct attribute *IDENT_attrs[] = { &dev_attr_factorial.attr, NULL };
ATTRIBUTE_GROUPS(IDENT);

static int IDENT_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	struct IDENT *self = devm_kzalloc(&pdev->dev, sizeof(*self), GFP_KERNEL);
	int err;

	if (!self)
		return -ENOMEM;
	mutex_init(&self->lock);
	init_completion(&self->done);
	err = pcim_enable_device(pdev);
	if (err)
		return err;
	err = pcim_iomap_regions(pdev, BIT(0), KBUILD_MODNAME);
	if (err)
		return err;
	self->registers = pcim_iomap_table(pdev)[0];
	pci_set_master(pdev);
	err = pci_alloc_irq_vectors(pdev, 1, 1, PCI_IRQ_MSI);
	if (err < 0)
		return err;
	err = request_irq(pci_irq_vector(pdev, 0), IDENT_irq, 0, KBUILD_MODNAME, self);
	if (err) {
		pci_free_irq_vectors(pdev);
		return err;
	}
	pci_set_drvdata(pdev, self);
	pci_info(pdev, "edu %08x\n", ioread32(self->registers + REG_ID));
	return 0;
}

static void IDENT_remove(struct pci_dev *pdev)
{
	free_irq(pci_irq_vector(pdev, 0), pci_get_drvdata(pdev));
	pci_free_irq_vectors(pdev);
}

static const struct pci_device_id IDENT_ids[] = { { PCI_DEVICE(0x1234, 0x11e8) }, {} };
MODULE_DEVICE_TABLE(pci, IDENT_ids);

static struct pci_driver IDENT_driver = {
	.name = KBUILD_MODNAME,
	.id_table = IDENT_ids,
	.probe = IDENT_probe,
	.remove = IDENT_remove,
	.dev_groups = IDENT_groups,
};
module_pci_driver(IDENT_driver);

MODULE_DESCRIPTION("QEMU's educational device");
MODULE_LICENSE("GPL");
