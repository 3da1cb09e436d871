/*
 * A C client of FDP, as the protocol's own library speaks it (icebox, src/FDP/FDP.cpp): how fast the protocol is without
 * a runtime in between.
 *
 * usage: fdp-client NAME SIZE SECONDS [ADDRESS]
 * Reads SIZE bytes of guest-physical memory again and again, and prints the reads per second.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
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

static int read_physical(struct channel *channel, uint64_t address, uint32_t size, uint8_t *into)
{
    struct read_physical request = {.type = 2, .address = address, .size = size};
    int status = 0;
    take(&channel->lock);
    for (int done = 0; !done;) {
        struct canal *canal = &channel->to_server;
        take(&canal->lock);
        if (!canal->present) {
            memcpy(canal->data, &request, sizeof request);
            canal->size = sizeof request;
            canal->status = 1;
            canal->present = 1;
            done = 1;
        }
        drop(&canal->lock);
    }
    for (int done = 0; !done;) {
        struct canal *canal = &channel->to_client;
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
    drop(&channel->lock);
    return status;
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
    if (argc < 4)
        return 2;
    uint32_t size = strtoul(argv[2], NULL, 0);
    uint64_t address = argc > 4 ? strtoull(argv[4], NULL, 0) : 0x500000;
    int fd = shm_open(argv[1], O_RDWR, 0);
    if (fd < 0) {
        perror(argv[1]);
        return 1;
    }
    struct channel *channel = mmap(NULL, sizeof *channel, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    uint8_t *into = malloc(size);
    if (channel == MAP_FAILED || !into)
        return 1;
    double start = now(), end = start + atof(argv[3]);
    unsigned long reads = 0;
    do {
        for (int i = 0; i < 64; i++, reads++)
            if (!read_physical(channel, address, size, into)) {
                fprintf(stderr, "0x%llx: the server refuses to read\n", (unsigned long long)address);
                return 1;
            }
    } while (now() < end);
    printf("%.0f\n", reads / (now() - start));
    return 0;
}
