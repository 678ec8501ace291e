// SPDX-License-Identifier: GPL-2.0-only
/* One coherent DMA buffer a function, for devices that read or write memory themselves. */
#include <linux/dma-mapping.h>
#include <linux/kernel.h>
#include <linux/slab.h>
#include "probe.h"
#if __has_include(<linux/hex.h>)	/* Linux 6.4 and later; before, kernel.h has it */
#include <linux/hex.h>
#endif

#define HEX_BYTES 256

/* dma alloc SIZE BITS: BITS is the width of the device's addresses. Answers the bus address. */
int rpp_dma_alloc(struct rpp_function *fn, struct rpp_args *args)
{
	u64 size, bits;
	int ret;

	if (fn->dma)
		return rpp_fail(args, -EBUSY, "a buffer of %zu bytes is allocated", fn->dma_size);
	ret = rpp_number(args, 0, RPP_DMA_MAX, "size", &size);
	if (!ret)
		ret = rpp_number(args, 1, 64, "address width", &bits);
	if (ret)
		return ret;
	if (!size || !bits)
		return rpp_fail(args, -EINVAL, "size and address width start at 1");

	ret = dma_set_mask_and_coherent(&fn->pdev->dev, DMA_BIT_MASK(bits));
	if (ret)
		return rpp_fail(args, ret, "no DMA with %llu-bit addresses here", bits);
	fn->dma = dma_alloc_coherent(&fn->pdev->dev, size, &fn->dma_address, GFP_KERNEL | __GFP_NOWARN);
	if (!fn->dma)
		return rpp_fail(args, -ENOMEM, "no memory below bit %llu", bits);
	fn->dma_size = size;
	rpp_say(args, "ok 0x%llx\n", (u64)fn->dma_address);
	return 0;
}

int rpp_dma_free(struct rpp_function *fn, struct rpp_args *args)
{
	if (!fn->dma)
		return rpp_fail(args, -ENOENT, "no buffer is allocated");
	rpp_dma_release(fn);
	rpp_say(args, "ok\n");
	return 0;
}

static int check(struct rpp_function *fn, struct rpp_args *args, u64 *offset, u64 bytes)
{
	int ret;

	if (!fn->dma)
		return rpp_fail(args, -ENOENT, "no buffer is allocated");
	ret = rpp_number(args, 0, U32_MAX, "offset", offset);
	return ret ? ret : rpp_span(args, *offset, bytes, fn->dma_size, 1, "the buffer");
}

/* dma read OFFSET BYTES: answers the bytes in hex. */
int rpp_dma_read(struct rpp_function *fn, struct rpp_args *args)
{
	char hex[2 * HEX_BYTES + 1];
	u64 offset, bytes;
	int ret = rpp_number(args, 1, RPP_DMA_MAX, "length", &bytes);

	if (!ret)
		ret = check(fn, args, &offset, bytes);
	if (ret)
		return ret;
	rpp_say(args, "ok ");
	while (bytes) {
		size_t n = min_t(u64, bytes, HEX_BYTES);

		*bin2hex(hex, fn->dma + offset, n) = '\0';
		rpp_say(args, "%s", hex);
		offset += n;
		bytes -= n;
	}
	rpp_say(args, "\n");
	return 0;
}

/* dma write OFFSET HEX */
int rpp_dma_write(struct rpp_function *fn, struct rpp_args *args)
{
	size_t digits = strlen(args->word[1]);
	u64 offset;
	u8 *bytes;
	int ret;

	if (digits % 2)
		return rpp_fail(args, -EINVAL, "an odd number of hex digits");
	ret = check(fn, args, &offset, digits / 2);
	if (ret)
		return ret;
	/* Decoded first: a bad digit leaves the buffer, which the device may be reading, alone. */
	bytes = kmalloc(digits / 2, GFP_KERNEL);
	if (!bytes)
		return -ENOMEM;
	ret = hex2bin(bytes, args->word[1], digits / 2);
	if (ret) {
		ret = rpp_fail(args, -EINVAL, "not hex");
	} else {
		memcpy(fn->dma + offset, bytes, digits / 2);
		rpp_say(args, "ok\n");
	}
	kfree(bytes);
	return ret;
}

void rpp_dma_describe(struct rpp_function *fn, struct rpp_args *args)
{
	if (fn->dma)
		rpp_say(args, "dma 0x%llx %zu\n", (u64)fn->dma_address, fn->dma_size);
}

void rpp_dma_release(struct rpp_function *fn)
{
	if (!fn->dma)
		return;
	dma_free_coherent(&fn->pdev->dev, fn->dma_size, fn->dma, fn->dma_address);
	fn->dma = NULL;
	fn->dma_size = 0;
}
