// SPDX-License-Identifier: GPL-2.0-only
// A driver of the virtio I2C adapter (virtio 1.2, 5.16) for kernels that were built without one: every message of a
// transfer is a request, all of them are made available together, and a failed one fails those after it.
#include <linux/completion.h>
#include <linux/i2c.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/virtio.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>
#include <uapi/linux/virtio_i2c.h>

struct suite_bus {
	struct virtio_device *vdev;
	struct virtqueue *requests;
	struct completion used;
	struct i2c_adapter adapter;
};

struct suite_message {
	struct virtio_i2c_out_hdr head;
	u8 *data;
	bool queued;
	struct virtio_i2c_in_hdr tail ____cacheline_aligned;
};

static void suite_used(struct virtqueue *vq)
{
	struct suite_bus *bus = vq->vdev->priv;

	complete(&bus->used);
}

static int suite_add(struct suite_bus *bus, struct suite_message *one, struct i2c_msg *msg, bool last)
{
	struct scatterlist head, data, tail, *sgs[3];
	unsigned int out = 0, in = 0;

	one->tail.status = VIRTIO_I2C_MSG_ERR;
	one->head.addr = cpu_to_le16(msg->addr << 1);
	one->head.flags = cpu_to_le32((last ? 0 : VIRTIO_I2C_FLAGS_FAIL_NEXT) |
				      (msg->flags & I2C_M_RD ? VIRTIO_I2C_FLAGS_M_RD : 0));
	sg_init_one(&head, &one->head, sizeof(one->head));
	sgs[out++] = &head;
	if (msg->len) {
		one->data = i2c_get_dma_safe_msg_buf(msg, 1);
		if (!one->data)
			return -ENOMEM;
		sg_init_one(&data, one->data, msg->len);
		sgs[out + in] = &data;
		if (msg->flags & I2C_M_RD)
			in++;
		else
			out++;
	}
	sg_init_one(&tail, &one->tail, sizeof(one->tail));
	sgs[out + in] = &tail;
	in++;
	return virtqueue_add_sgs(bus->requests, sgs, out, in, one, GFP_KERNEL);
}

static int suite_xfer(struct i2c_adapter *adapter, struct i2c_msg *msgs, int count)
{
	struct suite_bus *bus = i2c_get_adapdata(adapter);
	struct suite_message *all = kcalloc(count, sizeof(*all), GFP_KERNEL);
	int i, queued = 0, good = 0;
	unsigned int length;

	if (!all)
		return -ENOMEM;
	reinit_completion(&bus->used);
	for (i = 0; i < count; i++, queued++) {
		if (suite_add(bus, &all[i], &msgs[i], i == count - 1))
			break;
		all[i].queued = true;
	}
	virtqueue_kick(bus->requests);
	for (i = 0; i < queued;) {
		if (virtqueue_get_buf(bus->requests, &length))
			i++;
		else
			wait_for_completion(&bus->used);
	}
	for (i = 0; i < count; i++) {
		bool ok = all[i].queued && all[i].tail.status == VIRTIO_I2C_MSG_OK;

		if (all[i].data)
			i2c_put_dma_safe_msg_buf(all[i].data, &msgs[i], ok);
		if (ok && good == i)
			good++;
	}
	kfree(all);
	return good ? good : -ENXIO;
}

static u32 suite_functionality(struct i2c_adapter *adapter)
{
	return I2C_FUNC_I2C | I2C_FUNC_SMBUS_EMUL;
}

static const struct i2c_algorithm suite_algorithm = {
	.master_xfer = suite_xfer,
	.functionality = suite_functionality,
};

static int suite_probe(struct virtio_device *vdev)
{
	struct suite_bus *bus;
	int ret;

	if (!virtio_has_feature(vdev, VIRTIO_I2C_F_ZERO_LENGTH_REQUEST))
		return -EINVAL;
	bus = kzalloc(sizeof(*bus), GFP_KERNEL);
	if (!bus)
		return -ENOMEM;
	vdev->priv = bus;
	bus->vdev = vdev;
	init_completion(&bus->used);
	bus->requests = virtio_find_single_vq(vdev, suite_used, "requests");
	if (IS_ERR(bus->requests)) {
		ret = PTR_ERR(bus->requests);
		goto free_bus;
	}
	virtio_device_ready(vdev);
	bus->adapter.owner = THIS_MODULE;
	bus->adapter.class = I2C_CLASS_DEPRECATED;
	bus->adapter.algo = &suite_algorithm;
	bus->adapter.dev.parent = &vdev->dev;
	snprintf(bus->adapter.name, sizeof(bus->adapter.name), "suite_i2c %d", vdev->index);
	i2c_set_adapdata(&bus->adapter, bus);
	ret = i2c_add_adapter(&bus->adapter);
	if (!ret)
		return 0;
	virtio_reset_device(vdev);
	vdev->config->del_vqs(vdev);
free_bus:
	kfree(bus);
	return ret;
}

static void suite_remove(struct virtio_device *vdev)
{
	struct suite_bus *bus = vdev->priv;

	i2c_del_adapter(&bus->adapter);
	virtio_reset_device(vdev);
	vdev->config->del_vqs(vdev);
	kfree(bus);
}

static const struct virtio_device_id suite_ids[] = {
	{ VIRTIO_ID_I2C_ADAPTER, VIRTIO_DEV_ANY_ID },
	{ 0 },
};
MODULE_DEVICE_TABLE(virtio, suite_ids);

static const unsigned int suite_features[] = { VIRTIO_I2C_F_ZERO_LENGTH_REQUEST };

static struct virtio_driver suite_driver = {
	.driver.name = "suite_i2c",
	.driver.owner = THIS_MODULE,
	.id_table = suite_ids,
	.feature_table = suite_features,
	.feature_table_size = ARRAY_SIZE(suite_features),
	.probe = suite_probe,
	.remove = suite_remove,
};
module_virtio_driver(suite_driver);
MODULE_DESCRIPTION("virtio I2C adapter, for the suite of rootport");
MODULE_LICENSE("GPL");
