// SPDX-License-Identifier: MIT
// A PCI function that vfio-pci has, used from the guest's shell (linux/vfio.h):
//   vfio-function GROUP BDF info                    its regions and interrupts, a line each
//   vfio-function GROUP BDF page REGION OFFSET      the word there, by mmap and by read
//   vfio-function GROUP BDF table REGION            two words of the MSI-X table at the region's start: a write by pwrite, and
//                                                   one by mmap, and what each then reads
//   vfio-function GROUP BDF wait IRQ COUNT EVENTS   COUNT vectors to eventfds; "ready" on standard error; each vector heard
//   vfio-function GROUP BDF forge COUNT VECTOR MS   the same, VECTOR's message changed in the mapped table to
//                                                   one that the kernel gave to nobody
//   vfio-function GROUP BDF edu-msi TIMES           edu's MSI, raised by its register
//   vfio-function GROUP BDF edu-dma | edu-fault     edu's DMA through the IOMMU; to an address that is not mapped
//   vfio-function GROUP BDF reset REGION OFFSET BYTE
#include <errno.h>
#include <fcntl.h>
#include <linux/vfio.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

enum { PAGE = 4096, EVENTS_TIMEOUT_MS = 20000, VECTORS_MAX = 64, DMA_BYTES = 256, FORGED_INDEX = 0x1234 };
static const uint64_t MAPPED_IOVA = 0x100000, UNMAPPED_IOVA = 0x200000, EDU_BUFFER = 0x40000;
static int container, device;

static void fail(const char *what)
{
	fprintf(stderr, "%s: %s\n", what, strerror(errno));
	exit(1);
}

static int must(int result, const char *what)
{
	if (result < 0)
		fail(what);
	return result;
}

static void open_device(const char *group_path, const char *bdf)
{
	struct vfio_group_status status = { .argsz = sizeof status };
	int group;

	container = must(open("/dev/vfio/vfio", O_RDWR), "/dev/vfio/vfio");
	group = must(open(group_path, O_RDWR), group_path);
	must(ioctl(group, VFIO_GROUP_GET_STATUS, &status), "group status");
	if (!(status.flags & VFIO_GROUP_FLAGS_VIABLE)) {
		fprintf(stderr, "the group is not viable\n");
		exit(1);
	}
	must(ioctl(group, VFIO_GROUP_SET_CONTAINER, &container), "set container");
	must(ioctl(container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU), "set IOMMU");
	device = must(ioctl(group, VFIO_GROUP_GET_DEVICE_FD, bdf), "device");
}

static struct vfio_region_info *region_info(unsigned int index)
{
	struct vfio_region_info *info = calloc(1, PAGE);

	info->argsz = PAGE;
	info->index = index;
	if (ioctl(device, VFIO_DEVICE_GET_REGION_INFO, info) < 0)
		info->size = 0;
	return info;
}

static void print_info(void)
{
	struct vfio_device_info info = { .argsz = sizeof info };
	unsigned int i;

	must(ioctl(device, VFIO_DEVICE_GET_INFO, &info), "device info");
	printf("device pci%c reset%c\n", info.flags & VFIO_DEVICE_FLAGS_PCI ? '+' : '-', info.flags & VFIO_DEVICE_FLAGS_RESET ? '+' : '-');
	for (i = 0; i < info.num_regions; i++) {
		struct vfio_region_info *region = region_info(i);
		unsigned int at = region->flags & VFIO_REGION_INFO_FLAG_CAPS ? region->cap_offset : 0;

		if (region->size == 0)
			continue;
		printf("region %u size %llu read%c write%c mmap%c", i, (unsigned long long)region->size,
		       region->flags & VFIO_REGION_INFO_FLAG_READ ? '+' : '-', region->flags & VFIO_REGION_INFO_FLAG_WRITE ? '+' : '-',
		       region->flags & VFIO_REGION_INFO_FLAG_MMAP ? '+' : '-');
		while (at) {
			struct vfio_info_cap_header *cap = (void *)((char *)region + at);

			printf(" cap %u", cap->id);
			at = cap->next;
		}
		printf("\n");
	}
	for (i = 0; i < info.num_irqs; i++) {
		struct vfio_irq_info irq = { .argsz = sizeof irq, .index = i };

		if (ioctl(device, VFIO_DEVICE_GET_IRQ_INFO, &irq) == 0 && irq.count > 0)
			printf("irq %u count %u eventfd%c\n", i, irq.count, irq.flags & VFIO_IRQ_INFO_EVENTFD ? '+' : '-');
	}
}

static volatile uint32_t *map_page(unsigned int index, uint64_t offset)
{
	struct vfio_region_info *region = region_info(index);
	void *page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, device, region->offset + offset);

	if (page == MAP_FAILED)
		fail("mmap");
	return page;
}

static uint32_t read_word(unsigned int index, uint64_t offset)
{
	uint32_t word;

	if (pread(device, &word, sizeof word, region_info(index)->offset + offset) != sizeof word)
		fail("pread");
	return word;
}

static void write_bytes(unsigned int index, uint64_t offset, const void *bytes, size_t count)
{
	if (pwrite(device, bytes, count, region_info(index)->offset + offset) != (ssize_t)count)
		fail("pwrite");
}

static void memory_and_master(void)
{
	uint16_t command;

	if (pread(device, &command, 2, region_info(VFIO_PCI_CONFIG_REGION_INDEX)->offset + 4) != 2)
		fail("command register");
	command |= 6;
	write_bytes(VFIO_PCI_CONFIG_REGION_INDEX, 4, &command, 2);
}

/* The table is the region's start: QEMU's layout of ivshmem and virtio. */
static void print_table(unsigned int index)
{
	volatile uint32_t *page = map_page(index, 0);
	uint32_t ones = 0x12345678;

	write_bytes(index, 8, &ones, sizeof ones);
	printf("written by pwrite: read %08x, mapped %08x\n", read_word(index, 8), page[2]);
	page[2] = 0x89abcdef;
	printf("written by mmap: read %08x, mapped %08x\n", read_word(index, 8), page[2]);
}

static int eventfds[VECTORS_MAX];

static void set_vectors(unsigned int irq, int count)
{
	struct vfio_irq_set *set = calloc(1, sizeof *set + sizeof eventfds);
	int i;

	set->argsz = sizeof *set + count * sizeof(int);
	set->flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER;
	set->index = irq;
	set->count = count;
	for (i = 0; i < count; i++)
		((int *)set->data)[i] = eventfds[i] = must(eventfd(0, EFD_NONBLOCK), "eventfd");
	must(ioctl(device, VFIO_DEVICE_SET_IRQS, set), "set IRQs");
}

/* Prints each vector as it is heard, until so many were; the timeout ends the wait and is told. */
static void hear(int count, uint64_t wanted, int timeout_ms)
{
	struct pollfd polls[VECTORS_MAX];
	uint64_t heard = 0, value;
	int i;

	for (i = 0; i < count; i++)
		polls[i] = (struct pollfd){ .fd = eventfds[i], .events = POLLIN };
	while (heard < wanted) {
		int ready = must(poll(polls, count, timeout_ms), "poll");

		if (ready == 0) {
			printf("silence\n");
			return;
		}
		for (i = 0; i < count; i++) {
			if (!(polls[i].revents & POLLIN) || read(eventfds[i], &value, sizeof value) != sizeof value)
				continue;
			printf("vector %d: %llu\n", i, (unsigned long long)value);
			heard += value;
		}
		fflush(stdout);
	}
}

static void forge(int count, int vector, int timeout_ms)
{
	volatile uint32_t *table = map_page(1, 0);

	/* A remappable message (bit 4) that names an entry of the remapping table which the kernel gave to nobody. */
	table[4 * vector] = 0xfee00010 | FORGED_INDEX << 5;
	table[4 * vector + 1] = 0;
	table[4 * vector + 2] = 0;
	fprintf(stderr, "forged\n");
	hear(count, 1, timeout_ms);
	/* The device and the other vectors are as they were. */
	fprintf(stderr, "heard\n");
	hear(count, 1, EVENTS_TIMEOUT_MS);
}

static void edu_msi(uint64_t times)
{
	volatile uint32_t *registers = map_page(0, 0);
	uint64_t i;

	set_vectors(VFIO_PCI_MSI_IRQ_INDEX, 1);
	for (i = 0; i < times; i++) {
		registers[0x60 / 4] = 1;
		hear(1, 1, EVENTS_TIMEOUT_MS);
		registers[0x64 / 4] = 1;
	}
}

static void edu_transfer(volatile uint32_t *registers, uint64_t source, uint64_t destination, uint32_t command)
{
	int look;

	registers[0x80 / 4] = source;
	registers[0x88 / 4] = destination;
	registers[0x90 / 4] = DMA_BYTES;
	registers[0x98 / 4] = command | 1;
	for (look = 0; look < 5000 && (registers[0x98 / 4] & 1); look++)
		usleep(1000);
	if (registers[0x98 / 4] & 1) {
		fprintf(stderr, "edu's DMA does not end\n");
		exit(1);
	}
}

static void edu_dma(int faulting)
{
	volatile uint32_t *registers = map_page(0, 0);
	unsigned char *buffer = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	struct vfio_iommu_type1_dma_map map = {
		.argsz = sizeof map, .flags = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE, .vaddr = (uintptr_t)buffer, .iova = MAPPED_IOVA, .size = PAGE,
	};
	struct vfio_iommu_type1_dma_unmap unmap = { .argsz = sizeof unmap, .iova = MAPPED_IOVA, .size = PAGE };
	int i, same;

	must(ioctl(container, VFIO_IOMMU_MAP_DMA, &map), "map");
	for (i = 0; i < DMA_BYTES; i++)
		buffer[i] = i * 7 + 1;
	edu_transfer(registers, MAPPED_IOVA, EDU_BUFFER, 0);
	edu_transfer(registers, EDU_BUFFER, faulting ? UNMAPPED_IOVA : MAPPED_IOVA + 1024, 2);
	same = memcmp(buffer, buffer + 1024, DMA_BYTES) == 0;
	printf("%s\n", same ? "copied" : "not copied");
	must(ioctl(container, VFIO_IOMMU_UNMAP_DMA, &unmap), "unmap");
	memset(buffer + 1024, 0, DMA_BYTES);
	if (!faulting) {
		/* What was mapped is not any more. */
		edu_transfer(registers, EDU_BUFFER, MAPPED_IOVA + 1024, 2);
		printf("after unmap: %s\n", memcmp(buffer, buffer + 1024, DMA_BYTES) == 0 ? "copied" : "not copied");
	}
}

static void reset(unsigned int index, uint64_t offset, unsigned char byte)
{
	uint32_t bar = read_word(VFIO_PCI_CONFIG_REGION_INDEX, 0x10 + 4 * index);

	write_bytes(index, offset, &byte, 1);
	printf("before %02x", read_word(index, offset & ~3ull) >> (8 * (offset & 3)) & 0xff);
	must(ioctl(device, VFIO_DEVICE_RESET), "reset");
	memory_and_master();
	printf(", after %02x, BAR %s\n", read_word(index, offset & ~3ull) >> (8 * (offset & 3)) & 0xff,
	       bar == read_word(VFIO_PCI_CONFIG_REGION_INDEX, 0x10 + 4 * index) ? "kept" : "changed");
}

int main(int count, char **words)
{
	const char *command = count > 3 ? words[3] : "";
	unsigned long numbers[3] = { 0, 0, 0 };
	int i;

	if (count < 4 || count > 7)
		return 2;
	for (i = 4; i < count; i++)
		numbers[i - 4] = strtoul(words[i], NULL, 0);
	if (numbers[0] > VECTORS_MAX || (strcmp(command, "wait") == 0 && numbers[1] > VECTORS_MAX))
		return 2;
	open_device(words[1], words[2]);
	memory_and_master();
	if (strcmp(command, "info") == 0) {
		print_info();
	} else if (strcmp(command, "page") == 0) {
		printf("mapped %08x, read %08x\n", *map_page(numbers[0], numbers[1]), read_word(numbers[0], numbers[1]));
	} else if (strcmp(command, "table") == 0) {
		set_vectors(VFIO_PCI_MSIX_IRQ_INDEX, 1);
		print_table(numbers[0]);
	} else if (strcmp(command, "wait") == 0) {
		set_vectors(numbers[0], numbers[1]);
		fprintf(stderr, "ready\n");
		hear(numbers[1], numbers[2], EVENTS_TIMEOUT_MS);
	} else if (strcmp(command, "forge") == 0) {
		set_vectors(VFIO_PCI_MSIX_IRQ_INDEX, numbers[0]);
		forge(numbers[0], numbers[1], numbers[2]);
	} else if (strcmp(command, "edu-msi") == 0) {
		edu_msi(numbers[0]);
	} else if (strcmp(command, "edu-dma") == 0) {
		edu_dma(0);
	} else if (strcmp(command, "edu-fault") == 0) {
		edu_dma(1);
	} else if (strcmp(command, "reset") == 0) {
		reset(numbers[0], numbers[1], numbers[2]);
	} else {
		return 2;
	}
	return 0;
}
