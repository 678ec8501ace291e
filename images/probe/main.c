// SPDX-License-Identifier: GPL-2.0-only
/*
 * rootport_probe: hands a PCI function to the test host. It has no id table; bind a function with
 *
 *   echo rootport_probe > /sys/bus/pci/devices/0000:00:04.0/driver_override
 *   echo 0000:00:04.0 > /sys/bus/pci/drivers_probe
 *
 * and drive it through /sys/kernel/debug/rootport_probe/0000:00:04.0/ctl (control.c). What the PCI
 * core asked of the module is in /sys/kernel/debug/rootport_probe/events (events.c).
 *
 * A test kernel's module: root can reach any register of the bound device through it.
 */
#include <linux/debugfs.h>
#include <linux/module.h>
#include <linux/slab.h>
#include "probe.h"

static struct dentry *root;

static int rpp_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	struct rpp_function *fn = kzalloc(sizeof(*fn), GFP_KERNEL);

	if (!fn) {
		rpp_event(pdev, "probe", "%d", -ENOMEM);
		return -ENOMEM;
	}
	fn->pdev = pdev;
	mutex_init(&fn->lock);
	spin_lock_init(&fn->irq_lock);
	init_waitqueue_head(&fn->waitq);

	/* A function whose BARs found no room cannot be enabled; its config space is still worth a look. */
	fn->enable_error = pci_enable_device(pdev);
	if (!fn->enable_error)
		pci_set_master(pdev);
	pci_save_state(pdev);	/* for slot_reset */
	pci_set_drvdata(pdev, fn);

	fn->dir = debugfs_create_dir(pci_name(pdev), root);
	rpp_control_create(fn);
	rpp_event(pdev, "probe", "%d", fn->enable_error);
	return 0;
}

static void rpp_remove(struct pci_dev *pdev)
{
	struct rpp_function *fn = pci_get_drvdata(pdev);

	rpp_event(pdev, "remove", pci_device_is_present(pdev) ? "present" : "absent");
	WRITE_ONCE(fn->gone, true);
	wake_up_all(&fn->waitq);
	debugfs_remove_recursive(fn->dir);	/* no command is under way from here on */

	rpp_irqs_release(fn);
	if (!fn->enable_error)
		pci_clear_master(pdev);		/* before its memory goes */
	rpp_dma_release(fn);
	rpp_bars_release(fn);
	if (!fn->enable_error)
		pci_disable_device(pdev);
	kfree(fn);
	rpp_event(pdev, "removed", "%s", "");
}

static pci_ers_result_t rpp_error_detected(struct pci_dev *pdev, pci_channel_state_t state)
{
	switch (state) {
	case pci_channel_io_normal:
		rpp_event(pdev, "error_detected", "normal");
		return PCI_ERS_RESULT_CAN_RECOVER;
	case pci_channel_io_frozen:
		rpp_event(pdev, "error_detected", "frozen");
		return PCI_ERS_RESULT_NEED_RESET;
	default:
		rpp_event(pdev, "error_detected", "failed");
		return PCI_ERS_RESULT_DISCONNECT;
	}
}

static pci_ers_result_t rpp_mmio_enabled(struct pci_dev *pdev)
{
	rpp_event(pdev, "mmio_enabled", "%s", "");
	return PCI_ERS_RESULT_RECOVERED;
}

static pci_ers_result_t rpp_slot_reset(struct pci_dev *pdev)
{
	rpp_event(pdev, "slot_reset", "%s", "");
	pci_restore_state(pdev);
	pci_save_state(pdev);
	return PCI_ERS_RESULT_RECOVERED;
}

static void rpp_resume(struct pci_dev *pdev)
{
	rpp_event(pdev, "resume", "%s", "");
}

static void rpp_reset_prepare(struct pci_dev *pdev)
{
	rpp_event(pdev, "reset_prepare", "%s", "");
}

static void rpp_reset_done(struct pci_dev *pdev)
{
	rpp_event(pdev, "reset_done", "%s", "");
}

static const struct pci_error_handlers rpp_errors = {
	.error_detected = rpp_error_detected,
	.mmio_enabled = rpp_mmio_enabled,
	.slot_reset = rpp_slot_reset,
	.resume = rpp_resume,
	.reset_prepare = rpp_reset_prepare,
	.reset_done = rpp_reset_done,
};

static struct pci_driver rpp_driver = {
	.name = RPP_NAME,
	.probe = rpp_probe,
	.remove = rpp_remove,
	.err_handler = &rpp_errors,
};

static int __init rpp_init(void)
{
	int ret;

	root = debugfs_create_dir(RPP_NAME, NULL);
	if (IS_ERR(root))	/* the module is of no use without it */
		return PTR_ERR(root);
	rpp_events_create(root);
	ret = pci_register_driver(&rpp_driver);
	if (ret)
		debugfs_remove_recursive(root);
	return ret;
}

static void __exit rpp_exit(void)
{
	pci_unregister_driver(&rpp_driver);
	debugfs_remove_recursive(root);
}

module_init(rpp_init);
module_exit(rpp_exit);

MODULE_DESCRIPTION("Hands a PCI function to the rootport test host");
MODULE_AUTHOR("the rootport authors");
MODULE_LICENSE("GPL");
