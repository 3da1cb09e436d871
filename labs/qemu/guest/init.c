/*
 * The lab guest's only program: it is the kernel's init, and makes the processes that tests look for.
 * What it knows, it tells on the console, a line "@name key=value ..." each: "@boot" is the first, "@ready" comes when
 * all the facts are told, "@failed" when it gives up.
 *
 *   microvmi-known   holds pages of known content (see fill), and tells where they are
 *   microvmi-ping,
 *   microvmi-pong    hand a byte to each other through pipes, all the time: the kernel switches between them
 *   microvmi-marks   calls landmark() in a loop, and at every 100th turn executes an int3 and single-steps itself
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

/* Tells why, and switches the machine off: QEMU ends, and whoever waits for the guest need not wait any longer. */
static void fail(const char *what)
{
	printf("@failed what=%s errno=%d\n", what, errno);
	tcdrain(STDOUT_FILENO);
	reboot(RB_POWER_OFF);
	_exit(1);
}

#include "btf.h"

#define PAGE 4096
#define KNOWN_PAGES 16

struct shared {
	volatile uint64_t landmarks, breakpoints, traps, rounds, debugs;
};
static struct shared *shared;

/* The processes that tell facts write a byte each when they have. */
static int told[2];

static void tell(void)
{
	if (write(told[1], "", 1) != 1)
		fail("tell");
}

static void name_process(const char *name)
{
	prctl(PR_SET_NAME, name);
}

/* Page n: 16 bytes of magic, n as 64 bits, then bytes (n * 31 + i * 7) mod 251 for i from 24 on. */
static void fill(uint8_t *page, uint64_t n)
{
	memcpy(page, "microvmi-known\r\n", 16);
	memcpy(page + 16, &n, 8);
	for (int i = 24; i < PAGE; i++)
		page[i] = (n * 31 + i * 7) % 251;
}

/* Bits 0 to 54 of an entry are the frame number, bit 63 says that there is one (Documentation/admin-guide/mm/pagemap.rst). */
static uint64_t physical(const void *address)
{
	uint64_t entry = 0;
	int fd = open("/proc/self/pagemap", O_RDONLY);
	if (fd < 0 || pread(fd, &entry, 8, (uintptr_t)address / PAGE * 8) != 8 || !(entry >> 63))
		fail("pagemap");
	close(fd);
	return (entry & ((1ull << 55) - 1)) * PAGE + (uintptr_t)address % PAGE;
}

static void known(void)
{
	name_process("microvmi-known");
	uint8_t *pages = mmap(NULL, KNOWN_PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (pages == MAP_FAILED || mlock(pages, KNOWN_PAGES * PAGE) != 0)
		fail("known-pages");
	for (int n = 0; n < KNOWN_PAGES; n++)
		fill(pages + n * PAGE, n);
	printf("@known pid=%d virtual=0x%lx pages=%d\n", getpid(), (uintptr_t)pages, KNOWN_PAGES);
	for (int n = 0; n < KNOWN_PAGES; n++)
		printf("@page index=%d physical=0x%lx\n", n, physical(pages + n * PAGE));
	tell();
	for (;;)
		pause();
}

static void switching(int in, int out, const char *name)
{
	char byte = 0;
	name_process(name);
	for (;;) {
		if (read(in, &byte, 1) != 1 || write(out, &byte, 1) != 1)
			fail(name);
		shared->rounds++;
	}
}

/*
 * Where tests set breakpoints: called some hundred times a second, with the count as its argument. Its first instruction
 * is a nop, so that an int3 in its place does no harm.
 */
__attribute__((noinline)) void landmark(uint64_t count)
{
	__asm__ volatile("nop" : : "r"(count) : "memory");
}

static volatile sig_atomic_t is_stepping;

static void on_trap(int signal)
{
	(void)signal;
	if (is_stepping)
		shared->debugs++;
	else
		shared->traps++;
}

/* Debug exceptions: the trap flag is set for some instructions. (QEMU's emulation of int1 kills the process.) */
static void step_oneself(void)
{
	__asm__ volatile("lea -128(%%rsp), %%rsp\n\tpushfq\n\torq $0x100, (%%rsp)\n\tpopfq\n\tnop\n\t"
			 "pushfq\n\tandq $~0x100, (%%rsp)\n\tpopfq\n\tlea 128(%%rsp), %%rsp" : : : "memory", "cc");
}

static void marks(void)
{
	name_process("microvmi-marks");
	if (signal(SIGTRAP, on_trap) == SIG_ERR)
		fail("signal");
	/* pagemap tells of pages that this process has touched. */
	shared->landmarks = 0;
	landmark(0);
	printf("@marks pid=%d landmark=0x%lx code=0x%lx shared=0x%lx counters=0x%lx\n", getpid(), (uintptr_t)landmark,
	       physical(landmark), (uintptr_t)shared, physical((void *)shared));
	tell();
	for (;;) {
		landmark(++shared->landmarks);
		if (shared->landmarks % 100 == 0) {
			shared->breakpoints++;
			__asm__ volatile("int3");
			is_stepping = 1;
			step_oneself();
			is_stepping = 0;
		}
		usleep(2000);
	}
}

/* In the new process: true. */
static int is_child(void)
{
	pid_t pid = fork();
	if (pid < 0)
		fail("fork");
	return pid == 0;
}

static FILE *opened(const char *path)
{
	FILE *file = fopen(path, "r");
	if (!file)
		fail(path);
	return file;
}

static void symbols(void)
{
	static const char *const wanted[] = { "_text", "init_task", "init_top_pgt", "entry_SYSCALL_64" };
	const size_t count = sizeof wanted / sizeof *wanted;
	char line[512], name[256], type;
	unsigned long address;
	size_t found = 0;
	FILE *file = opened("/proc/kallsyms");
	while (found < count && fgets(line, sizeof line, file))
		if (sscanf(line, "%lx %c %255s", &address, &type, name) == 3)
			for (size_t i = 0; i < count; i++)
				if (address != 0 && strcmp(name, wanted[i]) == 0) {
					printf("@symbol name=%s address=0x%lx\n", name, address);
					found++;
				}
	fclose(file);
	if (found < count)
		fail("kallsyms");
}

static unsigned long context_switches(void)
{
	char line[512];
	unsigned long count = 0;
	FILE *file = opened("/proc/stat");
	while (fgets(line, sizeof line, file))
		sscanf(line, "ctxt %lu", &count);
	fclose(file);
	return count;
}

static void mounted(const char *type, const char *path)
{
	if (mkdir(path, 0755) != 0 && errno != EEXIST)
		fail(path);
	if (mount(type, path, type, 0, NULL) != 0)
		fail(path);
}

int main(void)
{
	char byte;
	int ping[2], pong[2];
	setvbuf(stdout, NULL, _IOLBF, 0);
	printf("@boot\n");
	mounted("devtmpfs", "/dev");
	mounted("proc", "/proc");
	mounted("sysfs", "/sys");

	shared = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED || mlock((void *)shared, PAGE) != 0)
		fail("shared");
	symbols();
	print_offsets();

	if (pipe(ping) != 0 || pipe(pong) != 0 || pipe(told) != 0)
		fail("pipe");
	if (is_child())
		switching(ping[0], pong[1], "microvmi-ping");
	if (is_child())
		switching(pong[0], ping[1], "microvmi-pong");
	if (write(ping[1], "x", 1) != 1)
		fail("ping");
	if (is_child())
		known();
	if (is_child())
		marks();
	for (int process = 0; process < 2; process++)
		if (read(told[0], &byte, 1) != 1)
			fail("told");
	printf("@ready\n");
	for (unsigned long second = 1;; second++) {
		int status;
		pid_t pid = waitpid(-1, &status, WNOHANG);
		if (pid > 0)
			printf("@ended pid=%d status=0x%x\n", pid, status);
		printf("@tick second=%lu switches=%lu rounds=%lu landmarks=%lu breakpoints=%lu traps=%lu\n", second,
		       context_switches(), shared->rounds, shared->landmarks, shared->breakpoints, shared->traps);
		sleep(1);
	}
}
