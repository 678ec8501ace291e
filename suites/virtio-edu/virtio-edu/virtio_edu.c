// SPDX-License-Identifier: GPL-2.0-only
/*
 * Driver of virtio-edu (../virtio-edu.ts says what the device is). Each of the device's parts is a file in
 * the virtio device's sysfs directory:
 *
 *   identification  0x010000ed
 *   liveness        write a number, read what the device makes of it
 *   raised          how many events the device says it raised
 *   factorial       write n, read n!; EIO, ERANGE, ETIMEDOUT
 *   echo            write bytes, read what the device sent back
 *   events          the events received, oldest first
 *   config_changes  how often the device said that its config space changed
 *
 * Interrupts are whatever virtio_find_vqs() gets: INTx on QEMU's vhost-user-test-device-pci. The device is
 * not trusted: lengths are checked, and a buffer that it keeps is not used again.
 */
#include <linux/completion.h>
#include <linux/jiffies.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/scatterlist.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/sysfs.h>
#include <linux/version.h>
#include <linux/virtio.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>

#define VIRTIO_EDU_ID		VIRTIO_ID_SIGNAL_DIST
#define VIRTIO_EDU_TIMEOUT	msecs_to_jiffies(timeout_ms)
#define VIRTIO_EDU_EVENT_BUFS	8
#define VIRTIO_EDU_EVENTS_KEPT	64

static unsigned int timeout_ms = 2000;
module_param(timeout_ms, uint, 0644);
MODULE_PARM_DESC(timeout_ms, "how long a request may take");

struct virtio_edu_config {
	__le32 identification;
	__le32 liveness;
	__le64 raised;
};

struct virtio_edu_factorial {
	__le64 value;
	u8 status;
} __packed;

enum { VQ_FACTORIAL, VQ_ECHO, VQ_EVENTS, VQ_COUNT };

/* One request at a time on each of the first two queues. */
struct virtio_edu_channel {
	struct virtqueue *vq;
	struct completion done;
	/* The device has the buffers. */
	bool busy;
	/* Bytes that the device says it wrote. */
	unsigned int written;
	/* What it is given, and where it answers. */
	void *out, *in;
};

struct virtio_edu {
	struct virtio_device *vdev;
	/* Held by who uses a channel. */
	struct mutex mutex;
	/* Held around every use of a virtqueue, and of what callbacks write. */
	spinlock_t lock;
	struct virtio_edu_channel factorial, echo;
	u64 result;
	size_t echoed;
	struct virtqueue *event_vq;
	__le64 *event_bufs;
	u64 events[VIRTIO_EDU_EVENTS_KEPT];
	unsigned int event_count;
	unsigned int config_changes;
};

static void channel_done(struct virtio_edu *edu, struct virtio_edu_channel *channel)
{
	unsigned long flags;
	unsigned int length;

	spin_lock_irqsave(&edu->lock, flags);
	while (virtqueue_get_buf(channel->vq, &length)) {
		channel->written = length;
		channel->busy = false;
		complete(&channel->done);
	}
	spin_unlock_irqrestore(&edu->lock, flags);
}

static void factorial_done(struct virtqueue *vq)
{
	struct virtio_edu *edu = vq->vdev->priv;

	channel_done(edu, &edu->factorial);
}

static void echo_done(struct virtqueue *vq)
{
	struct virtio_edu *edu = vq->vdev->priv;

	channel_done(edu, &edu->echo);
}

/* Under edu->lock, or before the device runs. */
static void give_event_buf(struct virtio_edu *edu, __le64 *buf)
{
	struct scatterlist sg;

	sg_init_one(&sg, buf, sizeof(*buf));
	/* There is room: as many buffers as were there before. */
	virtqueue_add_inbuf(edu->event_vq, &sg, 1, buf, GFP_ATOMIC);
}

static void event_received(struct virtqueue *vq)
{
	struct virtio_edu *edu = vq->vdev->priv;
	unsigned long flags;
	unsigned int length;
	__le64 *buf;

	spin_lock_irqsave(&edu->lock, flags);
	while ((buf = virtqueue_get_buf(vq, &length))) {
		if (length != sizeof(*buf))
			dev_warn_ratelimited(&edu->vdev->dev, "an event of %u bytes\n", length);
		else if (edu->event_count < VIRTIO_EDU_EVENTS_KEPT)
			edu->events[edu->event_count++] = le64_to_cpu(*buf);
		give_event_buf(edu, buf);
	}
	virtqueue_kick(vq);
	spin_unlock_irqrestore(&edu->lock, flags);
}

/* Under edu->mutex. The number of bytes that the device wrote to channel->in, or -errno. */
static int ask(struct virtio_edu *edu, struct virtio_edu_channel *channel, size_t out, size_t in)
{
	struct scatterlist sg_out, sg_in, *sgs[] = { &sg_out, &sg_in };
	unsigned long flags;
	int err;

	sg_init_one(&sg_out, channel->out, out);
	sg_init_one(&sg_in, channel->in, in);
	spin_lock_irqsave(&edu->lock, flags);
	reinit_completion(&channel->done);
	err = virtqueue_add_sgs(channel->vq, sgs, 1, 1, channel, GFP_ATOMIC);
	if (!err) {
		channel->busy = true;
		virtqueue_kick(channel->vq);
	}
	spin_unlock_irqrestore(&edu->lock, flags);
	if (err)
		return err;
	if (!wait_for_completion_timeout(&channel->done, VIRTIO_EDU_TIMEOUT)) {
		dev_err(&edu->vdev->dev, "no answer on queue %u\n", channel->vq->index);
		return -ETIMEDOUT;
	}
	if (channel->written > in) {
		dev_err(&edu->vdev->dev, "an answer of %u bytes in a buffer of %zu\n", channel->written, in);
		return -EIO;
	}
	return channel->written;
}

static struct virtio_edu *edu_of(struct device *dev)
{
	return dev_to_virtio(dev)->priv;
}

static ssize_t identification_show(struct device *dev, struct device_attribute *attr, char *text)
{
	u32 value;

	virtio_cread_le(dev_to_virtio(dev), struct virtio_edu_config, identification, &value);
	return sysfs_emit(text, "0x%08x\n", value);
}
static DEVICE_ATTR_RO(identification);

static ssize_t liveness_show(struct device *dev, struct device_attribute *attr, char *text)
{
	u32 value;

	virtio_cread_le(dev_to_virtio(dev), struct virtio_edu_config, liveness, &value);
	return sysfs_emit(text, "0x%08x\n", value);
}

static ssize_t liveness_store(struct device *dev, struct device_attribute *attr, const char *text, size_t size)
{
	u32 value;
	int err = kstrtou32(text, 0, &value);

	if (err)
		return err;
	virtio_cwrite_le(dev_to_virtio(dev), struct virtio_edu_config, liveness, &value);
	return size;
}
static DEVICE_ATTR_RW(liveness);

static ssize_t raised_show(struct device *dev, struct device_attribute *attr, char *text)
{
	/* Two reads of 32 bits, and again while config_generation changes. */
	u64 value = virtio_cread64(dev_to_virtio(dev), offsetof(struct virtio_edu_config, raised));

	return sysfs_emit(text, "%llu\n", value);
}
static DEVICE_ATTR_RO(raised);

static ssize_t factorial_show(struct device *dev, struct device_attribute *attr, char *text)
{
	return sysfs_emit(text, "%llu\n", READ_ONCE(edu_of(dev)->result));
}

static ssize_t factorial_store(struct device *dev, struct device_attribute *attr, const char *text, size_t size)
{
	struct virtio_edu *edu = edu_of(dev);
	struct virtio_edu_factorial *answer = edu->factorial.in;
	u32 n;
	int err = kstrtou32(text, 0, &n);

	if (err)
		return err;
	mutex_lock(&edu->mutex);
	if (READ_ONCE(edu->factorial.busy)) {
		err = -EBUSY;
	} else {
		*(__le32 *)edu->factorial.out = cpu_to_le32(n);
		err = ask(edu, &edu->factorial, sizeof(__le32), sizeof(*answer));
		if (err >= 0 && err != sizeof(*answer))
			err = -EIO;
		else if (err >= 0)
			err = answer->status == 0 ? 0 : answer->status == 1 ? -ERANGE : -EIO;
		if (!err)
			WRITE_ONCE(edu->result, le64_to_cpu(answer->value));
	}
	mutex_unlock(&edu->mutex);
	return err ? err : size;
}
static DEVICE_ATTR_RW(factorial);

static ssize_t echo_show(struct device *dev, struct device_attribute *attr, char *text)
{
	struct virtio_edu *edu = edu_of(dev);
	ssize_t size = -EBUSY;

	mutex_lock(&edu->mutex);
	if (!READ_ONCE(edu->echo.busy)) {
		size = edu->echoed;
		memcpy(text, edu->echo.in, size);
	}
	mutex_unlock(&edu->mutex);
	return size;
}

static ssize_t echo_store(struct device *dev, struct device_attribute *attr, const char *text, size_t size)
{
	struct virtio_edu *edu = edu_of(dev);
	int written = -EBUSY;

	if (!size || size >= PAGE_SIZE) /* a show may not fill its page */
		return -EINVAL;
	mutex_lock(&edu->mutex);
	if (!READ_ONCE(edu->echo.busy)) {
		memcpy(edu->echo.out, text, size);
		edu->echoed = 0;
		written = ask(edu, &edu->echo, size, size);
		if (written >= 0)
			edu->echoed = written;
	}
	mutex_unlock(&edu->mutex);
	return written < 0 ? written : size;
}
static DEVICE_ATTR_RW(echo);

static ssize_t events_show(struct device *dev, struct device_attribute *attr, char *text)
{
	struct virtio_edu *edu = edu_of(dev);
	ssize_t size = 0;
	unsigned int i;

	spin_lock_irq(&edu->lock);
	for (i = 0; i < edu->event_count; i++)
		size += sysfs_emit_at(text, size, "%llu\n", edu->events[i]);
	spin_unlock_irq(&edu->lock);
	return size;
}
static DEVICE_ATTR_RO(events);

static ssize_t config_changes_show(struct device *dev, struct device_attribute *attr, char *text)
{
	return sysfs_emit(text, "%u\n", READ_ONCE(edu_of(dev)->config_changes));
}
static DEVICE_ATTR_RO(config_changes);

static struct attribute *virtio_edu_attrs[] = {
	&dev_attr_identification.attr,
	&dev_attr_liveness.attr,
	&dev_attr_raised.attr,
	&dev_attr_factorial.attr,
	&dev_attr_echo.attr,
	&dev_attr_events.attr,
	&dev_attr_config_changes.attr,
	NULL
};
ATTRIBUTE_GROUPS(virtio_edu);

static void virtio_edu_config_changed(struct virtio_device *vdev)
{
	struct virtio_edu *edu = vdev->priv;

	WRITE_ONCE(edu->config_changes, edu->config_changes + 1);
}

static int find_vqs(struct virtio_device *vdev, struct virtqueue *vqs[])
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 11, 0)
	struct virtqueue_info info[VQ_COUNT] = {
		{ "factorial", factorial_done }, { "echo", echo_done }, { "events", event_received },
	};

	return virtio_find_vqs(vdev, VQ_COUNT, vqs, info, NULL);
#else
	vq_callback_t *callbacks[VQ_COUNT] = { factorial_done, echo_done, event_received };
	static const char * const names[VQ_COUNT] = { "factorial", "echo", "events" };

	return virtio_find_vqs(vdev, VQ_COUNT, vqs, callbacks, names, NULL);
#endif
}

/* Buffers that the device reaches are pages of their own, freed with the virtio device. */
static int init_channel(struct virtio_device *vdev, struct virtio_edu_channel *channel)
{
	init_completion(&channel->done);
	channel->out = (void *)devm_get_free_pages(&vdev->dev, GFP_KERNEL | __GFP_ZERO, 0);
	channel->in = (void *)devm_get_free_pages(&vdev->dev, GFP_KERNEL | __GFP_ZERO, 0);
	return channel->out && channel->in ? 0 : -ENOMEM;
}

static int virtio_edu_probe(struct virtio_device *vdev)
{
	struct virtqueue *vqs[VQ_COUNT];
	struct virtio_edu *edu;
	int err, i;

	edu = devm_kzalloc(&vdev->dev, sizeof(*edu), GFP_KERNEL);
	if (!edu)
		return -ENOMEM;
	edu->vdev = vdev;
	mutex_init(&edu->mutex);
	spin_lock_init(&edu->lock);
	edu->event_bufs = (void *)devm_get_free_pages(&vdev->dev, GFP_KERNEL | __GFP_ZERO, 0);
	if (!edu->event_bufs || init_channel(vdev, &edu->factorial) || init_channel(vdev, &edu->echo))
		return -ENOMEM;
	vdev->priv = edu;

	err = find_vqs(vdev, vqs);
	if (err)
		return err;
	edu->factorial.vq = vqs[VQ_FACTORIAL];
	edu->echo.vq = vqs[VQ_ECHO];
	edu->event_vq = vqs[VQ_EVENTS];
	for (i = 0; i < min_t(int, VIRTIO_EDU_EVENT_BUFS, virtqueue_get_vring_size(edu->event_vq)); i++)
		give_event_buf(edu, &edu->event_bufs[i]);
	virtio_device_ready(vdev);
	virtqueue_kick(edu->event_vq);
	return 0;
}

static void virtio_edu_remove(struct virtio_device *vdev)
{
	virtio_reset_device(vdev); /* the device gives up all buffers */
	vdev->config->del_vqs(vdev);
}

static const struct virtio_device_id virtio_edu_ids[] = {
	{ VIRTIO_EDU_ID, VIRTIO_DEV_ANY_ID },
	{ }
};
MODULE_DEVICE_TABLE(virtio, virtio_edu_ids);

static struct virtio_driver virtio_edu_driver = {
	.driver = {
		.name = "virtio_edu",
		.owner = THIS_MODULE,
		.dev_groups = virtio_edu_groups,
	},
	.id_table = virtio_edu_ids,
	.probe = virtio_edu_probe,
	.remove = virtio_edu_remove,
	.config_changed = virtio_edu_config_changed,
};
module_virtio_driver(virtio_edu_driver);

MODULE_DESCRIPTION("Driver of virtio-edu, rootport's worked example of a virtio device");
MODULE_LICENSE("GPL");
