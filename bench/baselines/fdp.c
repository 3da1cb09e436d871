/*
 * A C client of FDP, as the protocol's own library speaks it (icebox, src/FDP/FDP.cpp): how fast the protocol is without
 * a runtime in between.
 * usage: fdp NAME ADDRESS SIZE COUNT        reads guest-physical memory, prints nanoseconds for one
 */
#include "timing.h"
#include <fcntl.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <unistd.h>

#define DATA_SIZE (10 << 20)

struct canal {
	uint8_t data[DATA_SIZE];
	uint32_t size;
	atomic_uchar lock, present;
	uint8_t status, pad;
};

struct channel {
	atomic_uchar lock, state_changed_lock;
	uint8_t state_changed, pad;
	struct canal to_server, to_client;
};

struct read_physical {
	uint8_t type;
	uint32_t vcpu;
	uint64_t address;
	uint32_t size;
};

static void take(atomic_uchar *lock)
{
	while (atomic_exchange_explicit(lock, 1, memory_order_acquire))
		__builtin_ia32_pause();
}

static void drop(atomic_uchar *lock)
{
	atomic_store_explicit(lock, 0, memory_order_release);
}

static void wait_present(atomic_uchar *present)
{
	unsigned long count = 0;
	while (!atomic_load_explicit(present, memory_order_relaxed)) {
		if (++count < 0x100000)
			__builtin_ia32_pause();
		else
			usleep(500);
	}
}

static void request(struct canal *canal, const void *bytes, uint32_t size)
{
	for (int done = 0; !done;) {
		take(&canal->lock);
		if (!canal->present) {
			memcpy(canal->data, bytes, size);
			canal->present = 1;
			canal->size = size;
			canal->status = 1;
			done = 1;
		}
		drop(&canal->lock);
	}
}

static int reply(struct canal *canal, uint8_t *into, uint32_t size)
{
	int status = 0;
	for (int done = 0; !done;) {
		wait_present(&canal->present);
		take(&canal->lock);
		if (canal->present) {
			if (canal->size <= size)
				memcpy(into, canal->data, canal->size);
			status = canal->status;
			canal->present = 0;
			done = 1;
		}
		drop(&canal->lock);
	}
	return status;
}

int main(int argc, char **argv)
{
	int fd = argc == 5 ? shm_open(argv[1], O_RDWR, 0) : -1;
	if (fd < 0)
		return fail("usage: fdp NAME ADDRESS SIZE COUNT");
	struct channel *channel = mmap(NULL, sizeof *channel, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (channel == MAP_FAILED)
		return fail("mmap");
	struct read_physical read = {.type = 2, .address = strtoull(argv[2], NULL, 0), .size = atol(argv[3])};
	long count = atol(argv[4]);
	uint8_t *into = calloc(1, read.size);
	touch((uint8_t *)channel, sizeof *channel);

	double started = wall_now();
	for (long i = 0; i < count; i++) {
		take(&channel->lock);
		request(&channel->to_server, &read, sizeof read);
		int status = reply(&channel->to_client, into, read.size);
		drop(&channel->lock);
		if (!status)
			return fail("the server refuses to read");
	}
	printf("%.1f\n", (wall_now() - started) / count);
	return 0;
}
