// SPDX-License-Identifier: MIT
// What the guest's user space needs to speak AF_VSOCK: standard input to a stream, the stream to standard output.
//   vsock-cat cid               print this machine's context id
//   vsock-cat connect PORT      to a port of the host
//   vsock-cat listen PORT       take one connection
// It ends when the other side has ended and standard input too. Exit code 1 says what failed on standard error.
#include <errno.h>
#include <fcntl.h>
#include <linux/vm_sockets.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

static int fail(const char *what)
{
	fprintf(stderr, "%s: %s\n", what, strerror(errno));
	exit(1);
}

static void copy_all(int from, int to, int *ended)
{
	char buffer[65536];
	ssize_t got = read(from, buffer, sizeof(buffer));

	if (got < 0)
		fail("read");
	*ended = got == 0;
	for (ssize_t at = 0; at < got;) {
		ssize_t put = write(to, buffer + at, got - at);

		if (put < 0)
			fail("write");
		at += put;
	}
}

static void relay(int stream)
{
	int in_ended = 0, out_ended = 0;

	while (!in_ended || !out_ended) {
		struct pollfd fds[] = {
			{ .fd = in_ended ? -1 : 0, .events = POLLIN },
			{ .fd = out_ended ? -1 : stream, .events = POLLIN },
		};

		if (poll(fds, 2, -1) < 0)
			fail("poll");
		if (fds[0].revents != 0) {
			copy_all(0, stream, &in_ended);
			if (in_ended)
				shutdown(stream, SHUT_WR);
		}
		if (fds[1].revents != 0)
			copy_all(stream, 1, &out_ended);
	}
}

int main(int count, char **words)
{
	struct sockaddr_vm address = { .svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_HOST };
	int stream;

	signal(SIGPIPE, SIG_IGN); // 6.12 sends it, 6.1 does not

	if (count == 2 && strcmp(words[1], "cid") == 0) {
		unsigned int cid = 0;
		int device = open("/dev/vsock", O_RDONLY);

		if (device < 0 || ioctl(device, IOCTL_VM_SOCKETS_GET_LOCAL_CID, &cid) < 0)
			fail("/dev/vsock");
		printf("%u\n", cid);
		return 0;
	}
	if (count != 3)
		return 2;
	address.svm_port = strtoul(words[2], NULL, 10);
	stream = socket(AF_VSOCK, SOCK_STREAM, 0);
	if (stream < 0)
		fail("socket");
	if (strcmp(words[1], "connect") == 0) {
		if (connect(stream, (struct sockaddr *)&address, sizeof(address)) < 0)
			fail("connect");
	} else {
		address.svm_cid = VMADDR_CID_ANY;
		if (bind(stream, (struct sockaddr *)&address, sizeof(address)) < 0 || listen(stream, 1) < 0)
			fail("listen");
		fprintf(stderr, "listening\n");
		stream = accept(stream, NULL, NULL);
		if (stream < 0)
			fail("accept");
	}
	relay(stream);
	close(stream);
	return 0;
}
