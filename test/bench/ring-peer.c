/* SPDX-License-Identifier: MIT
 * Both sides of a split virtqueue with one writable descriptor and EVENT_IDX, in as little C as does it:
 *   ring-peer serve            a back end: epoll, answer, call
 *   ring-peer drive COUNT      a driver: submit, kick, wait for the call; prints nanoseconds a request
 * Descriptors 3, 4 and 5 are the memory, the kick and the call eventfd. The ring is laid out by ring.bench.mjs.
 */
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { SIZE = 128, MEMORY = 0x100000, DESC = 0, AVAIL = 0x1000, USED = 0x2000, DATA = 0x10000, BASE = 0x40000000, KICK = 4, CALL = 5 };

static uint8_t *memory;
static volatile uint16_t *at16(int offset) { return (volatile uint16_t *)(memory + offset); }
static volatile uint32_t *at32(int offset) { return (volatile uint32_t *)(memory + offset); }
static uint16_t load(volatile uint16_t *word) { return __atomic_load_n(word, __ATOMIC_SEQ_CST); }
static void store(volatile uint16_t *word, uint16_t value) { __atomic_store_n(word, value, __ATOMIC_SEQ_CST); }
static int need_event(uint16_t event, uint16_t now, uint16_t before) { return (uint16_t)(now - event - 1) < (uint16_t)(now - before); }

static void serve(void)
{
	struct epoll_event event = { .events = EPOLLIN };
	int epoll = epoll_create1(0);
	uint16_t seen = 0, used = 0;
	uint64_t count;
	epoll_ctl(epoll, EPOLL_CTL_ADD, KICK, &event);
	for (;;) {
		for (;;) {
			if (load(at16(AVAIL + 2)) == seen) {
				store(at16(USED + 4 + 8 * SIZE), seen);
				if (load(at16(AVAIL + 2)) == seen) break;
			}
			uint16_t head = *at16(AVAIL + 4 + 2 * (seen % SIZE));
			if (head >= SIZE) exit(3);
			uint64_t address;
			memcpy(&address, memory + DESC + 16 * head, 8);
			uint32_t length = *at32(DESC + 16 * head + 8);
			if (address < BASE || length < 8 || address - BASE + length > MEMORY) exit(4);
			memset(memory + (address - BASE), 0x5a, 8);
			seen++;
			*at32(USED + 4 + 8 * (used % SIZE)) = head;
			*at32(USED + 8 + 8 * (used % SIZE)) = 8;
			store(at16(USED + 2), ++used);
			if (need_event(load(at16(AVAIL + 4 + 2 * SIZE)), used, used - 1)) {
				count = 1;
				if (write(CALL, &count, 8) != 8) exit(5);
			}
		}
		if (epoll_wait(epoll, &event, 1, -1) < 1) continue;
		if (read(KICK, &count, 8) != 8) continue;
	}
}

static void drive(long rounds)
{
	struct timespec from, to;
	struct pollfd call = { .fd = CALL, .events = POLLIN };
	uint16_t index = load(at16(AVAIL + 2));
	uint64_t count;
	clock_gettime(CLOCK_MONOTONIC, &from);
	for (long i = 0; i < rounds; i++) {
		*at16(AVAIL + 4 + 2 * (index % SIZE)) = 0;
		store(at16(AVAIL + 4 + 2 * SIZE), index);
		memory[DATA] = 0;
		store(at16(AVAIL + 2), ++index);
		if (need_event(load(at16(USED + 4 + 8 * SIZE)), index, index - 1)) {
			count = 1;
			if (write(KICK, &count, 8) != 8) exit(6);
		}
		while (load(at16(USED + 2)) != index) {
			if (poll(&call, 1, 5000) != 1) exit(7);
			if (read(CALL, &count, 8) != 8) exit(8);
		}
		if (memory[DATA] != 0x5a) exit(9);
	}
	clock_gettime(CLOCK_MONOTONIC, &to);
	printf("%.1f\n", ((to.tv_sec - from.tv_sec) * 1e9 + (to.tv_nsec - from.tv_nsec)) / rounds);
}

int main(int argc, char **argv)
{
	memory = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_SHARED, 3, 0);
	if (memory == MAP_FAILED || argc < 2) return 2;
	if (strcmp(argv[1], "serve") == 0) serve();
	else drive(atol(argv[2]));
	return 0;
}
