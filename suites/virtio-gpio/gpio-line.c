// SPDX-License-Identifier: MIT
// A line of a GPIO character device from the guest's shell (linux/gpio.h, version 2 of the interface):
//   gpio-line name CHIP LINE            its name
//   gpio-line get CHIP LINE             take it as an input; print its value
//   gpio-line set CHIP LINE VALUE       take it as an output of this value
//   gpio-line watch CHIP LINE COUNT     print so many edges; "ready" on standard error when it listens
#include <errno.h>
#include <fcntl.h>
#include <linux/gpio.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

static void fail(const char *what)
{
	fprintf(stderr, "%s: %s\n", what, strerror(errno));
	exit(1);
}

int main(int count, char **words)
{
	struct gpio_v2_line_request request = { .num_lines = 1, .consumer = "gpio-line" };
	struct gpio_v2_line_values values = { .mask = 1 };
	int chip;

	if (count < 4)
		return 2;
	chip = open(words[2], O_RDWR);
	if (chip < 0)
		fail(words[2]);
	request.offsets[0] = atoi(words[3]);
	if (strcmp(words[1], "name") == 0) {
		struct gpio_v2_line_info info = { .offset = request.offsets[0] };

		if (ioctl(chip, GPIO_V2_GET_LINEINFO_IOCTL, &info) < 0)
			fail("info");
		printf("%s\n", info.name);
		return 0;
	}
	if (strcmp(words[1], "set") == 0) {
		request.config.flags = GPIO_V2_LINE_FLAG_OUTPUT;
		request.config.num_attrs = 1;
		request.config.attrs[0].attr.id = GPIO_V2_LINE_ATTR_ID_OUTPUT_VALUES;
		request.config.attrs[0].attr.values = atoi(words[4]);
		request.config.attrs[0].mask = 1;
	} else {
		request.config.flags = GPIO_V2_LINE_FLAG_INPUT;
		if (strcmp(words[1], "watch") == 0)
			request.config.flags |= GPIO_V2_LINE_FLAG_EDGE_RISING | GPIO_V2_LINE_FLAG_EDGE_FALLING;
	}
	if (ioctl(chip, GPIO_V2_GET_LINE_IOCTL, &request) < 0)
		fail("line");
	if (strcmp(words[1], "get") == 0) {
		if (ioctl(request.fd, GPIO_V2_LINE_GET_VALUES_IOCTL, &values) < 0)
			fail("value");
		printf("%d\n", (int)(values.bits & 1));
	} else if (strcmp(words[1], "watch") == 0) {
		fprintf(stderr, "ready\n");
		for (int left = atoi(words[4]); left > 0; left--) {
			struct gpio_v2_line_event event;
			struct pollfd fd = { .fd = request.fd, .events = POLLIN };

			// gpiolib's removal waits for who blocks in a read (6.1 and 6.12); not for who polls.
			if (poll(&fd, 1, -1) < 0 || !(fd.revents & POLLIN)) {
				fprintf(stderr, "gone\n");
				return 1;
			}
			if (read(request.fd, &event, sizeof(event)) != sizeof(event))
				fail("event");
			printf("%s\n", event.id == GPIO_V2_LINE_EVENT_RISING_EDGE ? "rising" : "falling");
			fflush(stdout);
		}
	}
	return 0;
}
