// SPDX-License-Identifier: GPL-2.0-only
// A driver of the virtio GPIO device (virtio 1.2, 5.18) for kernels that were built without one: a gpio_chip with
// interrupts. A line's buffer is in the event queue while its interrupt is unmasked.
#include <linux/completion.h>
#include <linux/gpio/driver.h>
#include <linux/interrupt.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/version.h>
#include <linux/virtio.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>
#include <uapi/linux/virtio_gpio.h>

struct suite_line {
	u8 want, sent;			/* VIRTIO_GPIO_IRQ_TYPE_*: asked for, told to the device */
	bool enabled, masked, queued;
	struct virtio_gpio_irq_request request ____cacheline_aligned;
	struct virtio_gpio_irq_response response ____cacheline_aligned;
};

struct suite_gpio {
	struct virtio_device *vdev;
	struct virtqueue *vqs[2];	/* requests, events */
	struct completion used;
	struct mutex request_lock;
	struct mutex irq_lock;
	spinlock_t event_lock;
	struct gpio_chip chip;
	struct suite_line *lines;
	char *names;
	struct virtio_gpio_request request ____cacheline_aligned;
	struct virtio_gpio_response response ____cacheline_aligned;
};

static int suite_request(struct suite_gpio *gpio, u16 type, u16 line, u32 value, void *response, unsigned int size)
{
	struct scatterlist out, in, *sgs[] = { &out, &in };
	unsigned int length;
	int ret;

	mutex_lock(&gpio->request_lock);
	gpio->request.type = cpu_to_le16(type);
	gpio->request.gpio = cpu_to_le16(line);
	gpio->request.value = cpu_to_le32(value);
	gpio->response.status = VIRTIO_GPIO_STATUS_ERR;
	sg_init_one(&out, &gpio->request, sizeof(gpio->request));
	sg_init_one(&in, response ?: &gpio->response, response ? size : sizeof(gpio->response));
	reinit_completion(&gpio->used);
	ret = virtqueue_add_sgs(gpio->vqs[0], sgs, 1, 1, gpio, GFP_KERNEL);
	if (!ret) {
		virtqueue_kick(gpio->vqs[0]);
		while (!virtqueue_get_buf(gpio->vqs[0], &length))
			wait_for_completion(&gpio->used);
		if (*(u8 *)(response ?: &gpio->response) != VIRTIO_GPIO_STATUS_OK)
			ret = -EINVAL;
		else if (!response)
			ret = gpio->response.value;
	}
	mutex_unlock(&gpio->request_lock);
	return ret;
}

static void suite_requests_used(struct virtqueue *vq)
{
	struct suite_gpio *gpio = vq->vdev->priv;

	complete(&gpio->used);
}

static int suite_get_direction(struct gpio_chip *chip, unsigned int line)
{
	int ret = suite_request(gpiochip_get_data(chip), VIRTIO_GPIO_MSG_GET_DIRECTION, line, 0, NULL, 0);

	if (ret < 0)
		return ret;
	return ret == VIRTIO_GPIO_DIRECTION_OUT ? GPIO_LINE_DIRECTION_OUT : GPIO_LINE_DIRECTION_IN;
}

static int suite_direction_input(struct gpio_chip *chip, unsigned int line)
{
	return suite_request(gpiochip_get_data(chip), VIRTIO_GPIO_MSG_SET_DIRECTION, line, VIRTIO_GPIO_DIRECTION_IN, NULL, 0);
}

static void suite_set(struct gpio_chip *chip, unsigned int line, int value)
{
	suite_request(gpiochip_get_data(chip), VIRTIO_GPIO_MSG_SET_VALUE, line, value, NULL, 0);
}

static int suite_direction_output(struct gpio_chip *chip, unsigned int line, int value)
{
	suite_set(chip, line, value);
	return suite_request(gpiochip_get_data(chip), VIRTIO_GPIO_MSG_SET_DIRECTION, line, VIRTIO_GPIO_DIRECTION_OUT, NULL, 0);
}

static int suite_get(struct gpio_chip *chip, unsigned int line)
{
	return suite_request(gpiochip_get_data(chip), VIRTIO_GPIO_MSG_GET_VALUE, line, 0, NULL, 0);
}

/* Interrupts */

static void suite_queue(struct suite_gpio *gpio, unsigned int index)
{
	struct suite_line *line = &gpio->lines[index];
	struct scatterlist out, in, *sgs[] = { &out, &in };
	unsigned long flags;

	spin_lock_irqsave(&gpio->event_lock, flags);
	if (!line->queued && !line->masked && line->sent != VIRTIO_GPIO_IRQ_TYPE_NONE) {
		line->request.gpio = cpu_to_le16(index);
		line->response.status = VIRTIO_GPIO_IRQ_STATUS_INVALID;
		sg_init_one(&out, &line->request, sizeof(line->request));
		sg_init_one(&in, &line->response, sizeof(line->response));
		line->queued = !virtqueue_add_sgs(gpio->vqs[1], sgs, 1, 1, line, GFP_ATOMIC);
		virtqueue_kick(gpio->vqs[1]);
	}
	spin_unlock_irqrestore(&gpio->event_lock, flags);
}

static void suite_events_used(struct virtqueue *vq)
{
	struct suite_gpio *gpio = vq->vdev->priv;
	struct suite_line *line;
	unsigned long flags;
	unsigned int length;

	for (;;) {
		spin_lock_irqsave(&gpio->event_lock, flags);
		line = virtqueue_get_buf(vq, &length);
		if (line)
			line->queued = false;
		spin_unlock_irqrestore(&gpio->event_lock, flags);
		if (!line)
			return;
		if (line->response.status == VIRTIO_GPIO_IRQ_STATUS_VALID)
			generic_handle_domain_irq(gpio->chip.irq.domain, line - gpio->lines);
	}
}

static struct suite_line *line_of(struct irq_data *d)
{
	struct suite_gpio *gpio = gpiochip_get_data(irq_data_get_irq_chip_data(d));

	return &gpio->lines[irqd_to_hwirq(d)];
}

static void suite_irq_mask(struct irq_data *d)
{
	line_of(d)->masked = true;
}

static void suite_irq_unmask(struct irq_data *d)
{
	line_of(d)->masked = false;
	suite_queue(gpiochip_get_data(irq_data_get_irq_chip_data(d)), irqd_to_hwirq(d));
}

static void suite_irq_enable(struct irq_data *d)
{
	gpiochip_enable_irq(irq_data_get_irq_chip_data(d), irqd_to_hwirq(d));
	line_of(d)->enabled = true;
	line_of(d)->masked = false;
}

static void suite_irq_disable(struct irq_data *d)
{
	line_of(d)->enabled = false;
	line_of(d)->masked = true;
	gpiochip_disable_irq(irq_data_get_irq_chip_data(d), irqd_to_hwirq(d));
}

static int suite_irq_set_type(struct irq_data *d, unsigned int type)
{
	/* IRQ_TYPE_* of linux/irq.h are the numbers of the specification. */
	line_of(d)->want = type & IRQ_TYPE_SENSE_MASK;
	return 0;
}

static void suite_irq_bus_lock(struct irq_data *d)
{
	struct suite_gpio *gpio = gpiochip_get_data(irq_data_get_irq_chip_data(d));

	mutex_lock(&gpio->irq_lock);
}

static void suite_irq_bus_sync_unlock(struct irq_data *d)
{
	struct suite_gpio *gpio = gpiochip_get_data(irq_data_get_irq_chip_data(d));
	unsigned int index = irqd_to_hwirq(d);
	struct suite_line *line = &gpio->lines[index];
	u8 type = line->enabled ? line->want : VIRTIO_GPIO_IRQ_TYPE_NONE;

	if (type != line->sent) {
		suite_request(gpio, VIRTIO_GPIO_MSG_IRQ_TYPE, index, type, NULL, 0);
		line->sent = type;
	}
	suite_queue(gpio, index);
	mutex_unlock(&gpio->irq_lock);
}

static const struct irq_chip suite_irq_chip = {
	.name = "suite_gpio",
	.irq_mask = suite_irq_mask,
	.irq_unmask = suite_irq_unmask,
	.irq_enable = suite_irq_enable,
	.irq_disable = suite_irq_disable,
	.irq_set_type = suite_irq_set_type,
	.irq_bus_lock = suite_irq_bus_lock,
	.irq_bus_sync_unlock = suite_irq_bus_sync_unlock,
	.flags = IRQCHIP_IMMUTABLE,
	GPIOCHIP_IRQ_RESOURCE_HELPERS,
};

/* Probe and remove */

static int suite_find_queues(struct suite_gpio *gpio)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 11, 0)
	struct virtqueue_info queues[] = {
		{ "requests", suite_requests_used },
		{ "events", suite_events_used },
	};

	return virtio_find_vqs(gpio->vdev, 2, gpio->vqs, queues, NULL);
#else
	vq_callback_t *callbacks[] = { suite_requests_used, suite_events_used };
	static const char * const names[] = { "requests", "events" };

	return virtio_find_vqs(gpio->vdev, 2, gpio->vqs, callbacks, names, NULL);
#endif
}

static int suite_read_names(struct suite_gpio *gpio, u16 count, u32 size)
{
	const char **names = devm_kcalloc(&gpio->vdev->dev, count, sizeof(*names), GFP_KERNEL);
	char *at;
	int i, ret;

	gpio->names = devm_kzalloc(&gpio->vdev->dev, size + 2, GFP_KERNEL);
	if (!names || !gpio->names)
		return -ENOMEM;
	ret = suite_request(gpio, VIRTIO_GPIO_MSG_GET_NAMES, 0, 0, gpio->names, size + 1);
	if (ret)
		return ret;
	at = gpio->names + 1; /* after the status */
	for (i = 0; i < count && at <= gpio->names + size; i++, at += strlen(at) + 1)
		names[i] = *at ? at : NULL;
	gpio->chip.names = names;
	return 0;
}

static int suite_probe(struct virtio_device *vdev)
{
	struct suite_gpio *gpio = devm_kzalloc(&vdev->dev, sizeof(*gpio), GFP_KERNEL);
	u32 names_size;
	u16 count;
	int ret;

	if (!gpio)
		return -ENOMEM;
	virtio_cread_le(vdev, struct virtio_gpio_config, ngpio, &count);
	virtio_cread_le(vdev, struct virtio_gpio_config, gpio_names_size, &names_size);
	gpio->lines = devm_kcalloc(&vdev->dev, count, sizeof(*gpio->lines), GFP_KERNEL);
	if (!gpio->lines)
		return -ENOMEM;
	vdev->priv = gpio;
	gpio->vdev = vdev;
	mutex_init(&gpio->request_lock);
	mutex_init(&gpio->irq_lock);
	spin_lock_init(&gpio->event_lock);
	init_completion(&gpio->used);
	gpio->chip.owner = THIS_MODULE;
	gpio->chip.parent = &vdev->dev;
	gpio->chip.label = dev_name(&vdev->dev);
	gpio->chip.base = -1;
	gpio->chip.ngpio = count;
	gpio->chip.can_sleep = true;
	gpio->chip.get_direction = suite_get_direction;
	gpio->chip.direction_input = suite_direction_input;
	gpio->chip.direction_output = suite_direction_output;
	gpio->chip.get = suite_get;
	gpio->chip.set = suite_set;
	ret = suite_find_queues(gpio);
	if (ret)
		return ret;
	virtio_device_ready(vdev);
	if (names_size) {
		ret = suite_read_names(gpio, count, names_size);
		if (ret)
			goto reset;
	}
	if (virtio_has_feature(vdev, VIRTIO_GPIO_F_IRQ)) {
		gpio_irq_chip_set_chip(&gpio->chip.irq, &suite_irq_chip);
		gpio->chip.irq.handler = handle_level_irq;
		gpio->chip.irq.default_type = IRQ_TYPE_NONE;
	}
	ret = gpiochip_add_data(&gpio->chip, gpio);
	if (!ret)
		return 0;
reset:
	virtio_reset_device(vdev);
	vdev->config->del_vqs(vdev);
	return ret;
}

static void suite_remove(struct virtio_device *vdev)
{
	struct suite_gpio *gpio = vdev->priv;

	gpiochip_remove(&gpio->chip);
	virtio_reset_device(vdev);
	vdev->config->del_vqs(vdev);
}

static const struct virtio_device_id suite_ids[] = {
	{ VIRTIO_ID_GPIO, VIRTIO_DEV_ANY_ID },
	{ 0 },
};
MODULE_DEVICE_TABLE(virtio, suite_ids);

static const unsigned int suite_features[] = { VIRTIO_GPIO_F_IRQ };

static struct virtio_driver suite_driver = {
	.driver.name = "suite_gpio",
	.driver.owner = THIS_MODULE,
	.id_table = suite_ids,
	.feature_table = suite_features,
	.feature_table_size = ARRAY_SIZE(suite_features),
	.probe = suite_probe,
	.remove = suite_remove,
};
module_virtio_driver(suite_driver);
MODULE_DESCRIPTION("virtio GPIO, for the suite of rootport");
MODULE_LICENSE("GPL");
