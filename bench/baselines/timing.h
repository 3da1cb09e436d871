#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define PAGE 4096

static inline double clock_now(clockid_t clock)
{
	struct timespec time;
	clock_gettime(clock, &time);
	return time.tv_sec * 1e9 + time.tv_nsec;
}

/* What a dump takes. */
static inline double wall_now(void)
{
	return clock_now(CLOCK_MONOTONIC);
}

/* What a read takes: waiting for a busy machine's processor is not part of it. */
static inline double cpu_now(void)
{
	return clock_now(CLOCK_PROCESS_CPUTIME_ID);
}

static inline int fail(const char *what)
{
	perror(what);
	return 1;
}

/* The offset of a page: the linear congruential generator that src/random.ts has, too. */
static inline uint64_t random_page(uint64_t size)
{
	static uint32_t state = 1;
	state = state * 1664525u + 1013904223u;
	return (state >> 8) % (size / PAGE) * PAGE;
}

/* Page faults are not what is measured. */
static inline void touch(const volatile uint8_t *bytes, uint64_t size)
{
	for (uint64_t at = 0; at < size; at += PAGE)
		(void)bytes[at];
}
