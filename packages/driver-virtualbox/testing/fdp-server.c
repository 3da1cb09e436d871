/*
 * The VM's side of FDP, for tests: the channel and the commands as the patched VirtualBox has them (icebox,
 * src/FDP/FDP.cpp, FDP_ServerLoop), with their defects, in front of a guest in memory.
 *
 * usage: fdp-server NAME VCPUS MIB SPINS
 * Says "ready" once it serves. Lines on standard input change what it does; at their end it ends, and removes its
 * objects.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fdp-guest.h"

#define DATA_SIZE (10 << 20)

struct canal {
    uint8_t data[DATA_SIZE];
    uint32_t size;
    atomic_uchar lock, present;
    uint8_t status, pad;
};

struct channel {
    atomic_uchar lock, state_changed_lock;
    volatile uint8_t state_changed;
    uint8_t pad;
    struct canal to_server, to_client;
};

#ifdef PACKED
#pragma pack(push, 1)
#endif
struct of_vcpu { uint8_t type; uint32_t vcpu; };
struct read_physical { uint8_t type; uint32_t vcpu; uint64_t address; uint32_t size; };
struct write_physical { uint8_t type; uint64_t address; uint32_t size; uint8_t data[]; };
struct read_register { uint8_t type; uint32_t vcpu; uint16_t id; };
struct write_register { uint8_t type; uint32_t vcpu; uint16_t id; uint64_t value; };
struct read_msr { uint8_t type; uint32_t vcpu; uint64_t index; };
struct write_msr { uint8_t type; uint32_t vcpu; uint64_t index, value; };
struct translate { uint8_t type; uint32_t vcpu; uint64_t address; };
struct unset_breakpoint { uint8_t type; int32_t id; };
struct set_breakpoint {
    uint8_t type;
    uint32_t vcpu;
    uint16_t kind;
    int32_t id;
    uint16_t access, address_type;
    uint64_t address, length, cr3;
};
#ifdef PACKED
#pragma pack(pop)
#endif

static struct channel *channel;
static uint8_t input[DATA_SIZE], output[DATA_SIZE];
static unsigned long spins;
/* What a test has asked for. */
static atomic_int stalled, delay, wrong_status = -1, wrong_size = -1, wrong_byte = -1, refused;

static void pause_a_moment(unsigned long *count)
{
    if (++*count < spins)
        __builtin_ia32_pause();
    else
        usleep(spins > 100000 ? 500 : 50);
}

static void take(atomic_uchar *lock)
{
    unsigned long count = 0;
    while (atomic_exchange_explicit(lock, 1, memory_order_acquire))
        pause_a_moment(&count);
}

static void drop(atomic_uchar *lock)
{
    atomic_store_explicit(lock, 0, memory_order_release);
}

static uint32_t receive(void)
{
    struct canal *canal = &channel->to_server;
    for (;;) {
        unsigned long count = 0;
        while (!atomic_load_explicit(&canal->present, memory_order_relaxed))
            pause_a_moment(&count);
        take(&canal->lock);
        uint32_t size = 0;
        if (canal->present) {
            size = canal->size;
            if (size < DATA_SIZE)
                memcpy(input, canal->data, size);
            canal->present = 0;
        }
        drop(&canal->lock);
        if (size)
            return size;
    }
}

static void answer(uint32_t size, bool status)
{
    struct canal *canal = &channel->to_client;
    unsigned long count = 0;
    for (bool done = false; !done;) {
        take(&canal->lock);
        if (!canal->present) {
            memcpy(canal->data, output, size);
            if (wrong_byte >= 0)
                canal->data[0] = wrong_byte;
            /* In this order: who looks without the lock sees the size of the message before. */
            canal->present = 1;
            canal->size = wrong_size >= 0 ? (uint32_t)wrong_size : size;
            canal->status = wrong_status >= 0 ? wrong_status : status;
            wrong_size = wrong_status = wrong_byte = -1;
            done = true;
        }
        drop(&canal->lock);
        if (!done)
            pause_a_moment(&count);
    }
}

static uint32_t put(const void *value, uint32_t size)
{
    memcpy(output, value, size);
    return size;
}

static uint32_t flag(bool value)
{
    output[0] = value;
    return 1;
}

/* The length of the reply, 0 for none: the client waits for ever. */
static uint32_t serve(bool *status)
{
    uint64_t word;
    uint32_t number;
    int32_t id;
    switch (input[0]) {
    case 2: {
        struct read_physical *r = (void *)input;
        *status = !atomic_exchange(&refused, 0) && r->size <= DATA_SIZE && guest_read(r->address, r->size, output);
        return *status ? r->size : 1;
    }
    case 3: {
        struct read_register *r = (void *)input;
        word = guest_read_register(r->vcpu, r->id);
        return put(&word, 8);
    }
    case 4: {
        struct read_msr *r = (void *)input;
        word = guest_read_msr(r->vcpu, r->index);
        return put(&word, 8);
    }
    case 5: {
        struct write_msr *r = (void *)input;
        return flag(guest_write_msr(r->vcpu, r->index, r->value));
    }
    case 6:
        word = guest_memory_size();
        return put(&word, 8);
    case 7:
        guest_pause();
        return flag(true);
    case 8:
        guest_resume();
        return flag(true);
    case 11:
        return flag(guest_unset_breakpoint(((struct unset_breakpoint *)input)->id));
    case 12: {
        struct set_breakpoint *r = (void *)input;
        id = guest_set_breakpoint(r->vcpu, r->kind, r->access, r->address_type, r->address, r->length);
        return put(&id, 4);
    }
    case 13: {
        struct translate *r = (void *)input;
        word = guest_translate(r->vcpu, r->address);
        return put(&word, 8);
    }
    case 14: {
        struct write_physical *r = (void *)input;
        return flag(guest_write(r->address, r->size, r->data));
    }
    case 16:
        output[0] = guest_state();
        return 1;
    case 18: {
        struct write_register *r = (void *)input;
        return flag(guest_write_register(r->vcpu, r->id, r->value));
    }
    case 21:
        return flag(guest_single_step(((struct of_vcpu *)input)->vcpu));
    case 22:
        number = guest_vcpu_count();
        return put(&number, 4);
    case 23:
        output[0] = guest_vcpu_state(((struct of_vcpu *)input)->vcpu);
        return 1;
    default:
        return 0;
    }
}

static void *loop(void *unused)
{
    (void)unused;
    for (;;) {
        receive();
        while (stalled)
            usleep(500);
        if (delay) {
            usleep(delay * 1000);
            delay = 0;
        }
        bool status = true;
        uint32_t size = serve(&status);
        if (size)
            answer(size, status);
    }
    return NULL;
}

static void *create(const char *name, size_t size)
{
    int fd = shm_open(name, O_CREAT | O_RDWR, 0666);
    if (fd < 0 || ftruncate(fd, size) != 0) {
        fprintf(stderr, "%s: %s\n", name, strerror(errno));
        exit(1);
    }
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (memory == MAP_FAILED)
        exit(1);
    close(fd);
    memset(memory, 0, size);
    return memory;
}

int main(int argc, char **argv)
{
    char context_name[512], line[64];
    pthread_t thread;
    if (argc != 5)
        return 2;
    spins = strtoul(argv[4], NULL, 10);
    channel = create(argv[1], sizeof *channel);
    snprintf(context_name, sizeof context_name, "CPU_%s", argv[1]);
    uint64_t *context = create(context_name, 224);
    guest_start(atoi(argv[2]), strtoull(argv[3], NULL, 10) << 20, &channel->state_changed, context);
    pthread_create(&thread, NULL, loop, NULL);
    printf("ready %zu\n", sizeof *channel);
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        int value = 0;
        char word[32];
        if (sscanf(line, "%31s %d", word, &value) < 1)
            continue;
        if (!strcmp(word, "stall"))
            stalled = value;
        else if (!strcmp(word, "delay"))
            delay = value;
        else if (!strcmp(word, "status"))
            wrong_status = value;
        else if (!strcmp(word, "size"))
            wrong_size = value;
        else if (!strcmp(word, "byte"))
            wrong_byte = value;
        else if (!strcmp(word, "refuse"))
            refused = value;
        else if (!strcmp(word, "unserved"))
            guest_serve_not(value);
        else if (!strcmp(word, "pause"))
            guest_pause();
        printf("%s\n", word);
        fflush(stdout);
    }
    shm_unlink(argv[1]);
    shm_unlink(context_name);
    return 0;
}
