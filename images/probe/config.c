// SPDX-License-Identifier: GPL-2.0-only
/* Configuration space: one access of the named width on the bus, never split or merged. */
#include "probe.h"

static int check(struct rpp_function *fn, struct rpp_args *args, unsigned int *width, u64 *offset)
{
	int ret = rpp_width(args, 0, false, width);

	if (!ret)
		ret = rpp_number(args, 1, U32_MAX, "offset", offset);
	if (!ret)
		ret = rpp_span(args, *offset, *width / 8, fn->pdev->cfg_size, *width / 8, "config space");
	return ret;
}

int rpp_config_read(struct rpp_function *fn, struct rpp_args *args)
{
	unsigned int width;
	u64 offset;
	u8 byte = 0;
	u16 word = 0;
	u32 value = 0;
	int ret = check(fn, args, &width, &offset);

	if (ret)
		return ret;
	switch (width) {
	case 8:
		ret = pci_read_config_byte(fn->pdev, offset, &byte);
		value = byte;
		break;
	case 16:
		ret = pci_read_config_word(fn->pdev, offset, &word);
		value = word;
		break;
	default:
		ret = pci_read_config_dword(fn->pdev, offset, &value);
	}
	if (ret)
		return rpp_fail(args, pcibios_err_to_errno(ret), "the config read failed");
	rpp_say(args, "ok 0x%x\n", value);
	return 0;
}

int rpp_config_write(struct rpp_function *fn, struct rpp_args *args)
{
	unsigned int width;
	u64 offset, value;
	int ret = check(fn, args, &width, &offset);

	if (!ret)
		ret = rpp_number(args, 2, U32_MAX >> (32 - width), "value", &value);
	if (ret)
		return ret;
	switch (width) {
	case 8:
		ret = pci_write_config_byte(fn->pdev, offset, value);
		break;
	case 16:
		ret = pci_write_config_word(fn->pdev, offset, value);
		break;
	default:
		ret = pci_write_config_dword(fn->pdev, offset, value);
	}
	if (ret)
		return rpp_fail(args, pcibios_err_to_errno(ret), "the config write failed");
	rpp_say(args, "ok\n");
	return 0;
}
