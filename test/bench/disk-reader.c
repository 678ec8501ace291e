/*
 * Reads a block device directly (O_DIRECT), `depth` requests under way at any time, each `bytes` long, `count` in
 * all, one after the other or in a fixed shuffle, and prints the nanoseconds that it took. Linux's own
 * asynchronous I/O (io_submit), without a library: linked statically it runs in any guest.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

int main(int argc, char **argv)
{
	if (argc != 6) {
		fprintf(stderr, "usage: %s device depth bytes count sequential|random\n", argv[0]);
		return 2;
	}
	const long depth = atol(argv[2]), bytes = atol(argv[3]), count = atol(argv[4]);
	const int shuffled = strcmp(argv[5], "random") == 0;
	const int fd = open(argv[1], O_RDONLY | O_DIRECT);
	if (fd < 0)
		fail("open");
	const off_t blocks = lseek(fd, 0, SEEK_END) / bytes;
	aio_context_t context = 0;
	if (syscall(SYS_io_setup, depth, &context) < 0)
		fail("io_setup");
	struct iocb *requests = calloc(depth, sizeof(*requests));
	struct io_event *events = calloc(depth, sizeof(*events));
	for (long i = 0; i < depth; i++) {
		void *buffer;
		if (posix_memalign(&buffer, 4096, bytes) != 0)
			fail("posix_memalign");
		memset(buffer, 0, bytes); /* its pages are there before the clock runs */
		requests[i].aio_lio_opcode = IOCB_CMD_PREAD;
		requests[i].aio_fildes = fd;
		requests[i].aio_buf = (uintptr_t)buffer;
		requests[i].aio_nbytes = bytes;
		requests[i].aio_data = i;
	}
	struct timespec from, to;
	clock_gettime(CLOCK_MONOTONIC, &from);
	uint64_t state = 1;
	long submitted = 0, done = 0;
	struct iocb *batch[depth];
	long ready = depth;
	long free_requests[depth];
	for (long i = 0; i < depth; i++)
		free_requests[i] = i;
	while (done < count) {
		long n = 0;
		while (ready > 0 && submitted < count) {
			struct iocb *one = &requests[free_requests[--ready]];
			state = state * 6364136223846793005ull + 1442695040888963407ull;
			one->aio_offset = ((shuffled ? (off_t)(state >> 33) : submitted) % blocks) * bytes;
			batch[n++] = one;
			submitted++;
		}
		for (long sent = 0; sent < n;) {
			const long r = syscall(SYS_io_submit, context, n - sent, batch + sent);
			if (r < 0)
				fail("io_submit");
			sent += r;
		}
		const long got = syscall(SYS_io_getevents, context, 1L, depth, events, NULL);
		if (got < 0)
			fail("io_getevents");
		for (long i = 0; i < got; i++) {
			if (events[i].res != bytes) {
				fprintf(stderr, "a read of %ld bytes ended with %lld\n", bytes, (long long)events[i].res);
				return 1;
			}
			free_requests[ready++] = events[i].data;
		}
		done += got;
	}
	clock_gettime(CLOCK_MONOTONIC, &to);
	printf("%lld\n", (long long)(to.tv_sec - from.tv_sec) * 1000000000ll + (to.tv_nsec - from.tv_nsec));
	return 0;
}
