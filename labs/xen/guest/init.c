/*
 * The lab's guests' only program: it is the kernel's init, and makes the processes that tests look for.
 * What it knows, it tells on the console, a line "@name key=value ..." each; "@ready" is the last of the first ones.
 *
 *   microvmi-known   holds pages of known content (see fill), and tells where they are
 *   microvmi-ping,
 *   microvmi-pong    hand a byte to each other through pipes while bit 0 of the control page's flags is set: the
 *                    kernel switches between them
 *   microvmi-marks   one bound to each vCPU: every 20 ms it does once whatever hypervisors can watch (see turn)
 *
 * The control page is told by its physical address. Whoever introspects the guest writes its flags and reads its counts.
 */
#define _GNU_SOURCE
#include <cpuid.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#include "../../qemu/guest/btf.h"

#define PAGE 4096
#define KNOWN_PAGES 16
#define MAX_VCPUS 16
#define FLAG_SWITCH 1ull

#define MSR_LSTAR 0xc0000082
#define MSR_TSC_AUX 0xc0000103

/* What one vCPU has done so far: 16 words of 64 bits. */
struct counts {
	uint64_t turns;          /* calls of landmark() */
	uint64_t breakpoints;    /* int3 executed */
	uint64_t traps;          /* SIGTRAP got for an int3 */
	uint64_t steps;          /* SIGTRAP got for the trap flag */
	uint64_t msrs;           /* writes of TSC_AUX, each of another value: the count */
	uint64_t cpuids;         /* CPUID of leaf 0x40000000 */
	uint64_t requests;       /* guest requests, by hypercall */
	uint64_t request_status; /* what the last of them returned */
	uint64_t descriptors;    /* reads of the GDT's register */
	uint64_t cr4;            /* pairs of CR4 writes: the time stamp is forbidden and allowed */
	uint64_t spare[6];
};

struct control {
	char magic[16];
	volatile uint64_t flags;
	volatile uint64_t rounds; /* bytes handed from ping to pong or back */
	uint64_t spare[28];
	volatile struct counts vcpus[MAX_VCPUS];
};
static struct control *control;
_Static_assert(sizeof(struct control) <= PAGE, "the control page is one page");
_Static_assert(sizeof(struct counts) == 128 && __builtin_offsetof(struct control, vcpus) == 256, "as facts.ts has it");

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
		entry = 0;
	if (fd >= 0)
		close(fd);
	return (entry & ((1ull << 55) - 1)) * PAGE + (uintptr_t)address % PAGE;
}

static uint8_t *pages_of_own(int count)
{
	uint8_t *pages = mmap(NULL, count * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	memset(pages, 0, count * PAGE);
	mlock(pages, count * PAGE);
	return pages;
}

static void known(void)
{
	name_process("microvmi-known");
	uint8_t *pages = pages_of_own(KNOWN_PAGES), *scratch = pages_of_own(2);
	for (int n = 0; n < KNOWN_PAGES; n++)
		fill(pages + n * PAGE, n);
	printf("@known pid=%d virtual=0x%lx pages=%d\n", getpid(), (uintptr_t)pages, KNOWN_PAGES);
	for (int n = 0; n < KNOWN_PAGES; n++)
		printf("@page index=%d physical=0x%lx\n", n, physical(pages + n * PAGE));
	for (int n = 0; n < 2; n++)
		printf("@scratch index=%d physical=0x%lx\n", n, physical(scratch + n * PAGE));
	printf("@known-done\n");
	for (;;)
		pause();
}

static void ping(int in, int out)
{
	char byte = 0;
	name_process("microvmi-ping");
	for (;;) {
		while (!(control->flags & FLAG_SWITCH))
			usleep(20000);
		if (write(out, &byte, 1) != 1 || read(in, &byte, 1) != 1)
			exit(1);
		control->rounds++;
	}
}

static void pong(int in, int out)
{
	char byte = 0;
	name_process("microvmi-pong");
	for (;;) {
		if (read(in, &byte, 1) != 1 || write(out, &byte, 1) != 1)
			exit(1);
		control->rounds++;
	}
}

/* Where tests set breakpoints, with the count of calls as its argument. */
__attribute__((noinline, aligned(64))) void landmark(uint64_t count)
{
	__asm__ volatile("nop" : : "r"(count) : "memory");
}

static volatile struct counts *mine;

/* After an int3 the saved rip is the address behind it, and the trap's number is 3; the trap flag's is 1. */
static void on_trap(int signal, siginfo_t *info, void *context)
{
	(void)signal;
	ucontext_t *at = context;
	if (at->uc_mcontext.gregs[REG_TRAPNO] == 3) {
		mine->traps++;
	} else {
		mine->steps++;
		at->uc_mcontext.gregs[REG_EFL] &= ~0x100ll;
	}
	(void)info;
}

static void write_msr(int device, uint32_t index, uint64_t value)
{
	if (pwrite(device, &value, 8, index) == 8)
		mine->msrs++;
}

static int is_amd(void)
{
	uint32_t a, b, c, d;
	__cpuid(0, a, b, c, d);
	return c == 0x444d4163;
}

/*
 * HVMOP_guest_request_vm, 24, by __HYPERVISOR_hvm_op, 34 (Xen's public/xen.h and public/hvm/hvm_op.h). User mode may call
 * it only while a monitor allows that (xc_monitor_guest_request); otherwise it returns -EPERM.
 */
static uint64_t guest_request(int amd)
{
	uint64_t result = 34;
	register uint64_t argument __asm__("rdi") = 24;
	register uint64_t pointer __asm__("rsi") = 0;
	if (amd)
		__asm__ volatile("vmmcall" : "+a"(result) : "r"(argument), "r"(pointer) : "memory", "r8", "r9", "r10", "r11");
	else
		__asm__ volatile("vmcall" : "+a"(result) : "r"(argument), "r"(pointer) : "memory", "r8", "r9", "r10", "r11");
	return result;
}

static void turn(int msrs, int amd)
{
	uint32_t a, b, c, d;
	struct {
		uint16_t limit;
		uint64_t base;
	} __attribute__((packed)) table;

	landmark(++mine->turns);
	mine->breakpoints++;
	__asm__ volatile("int3");
	/* Sets the trap flag: the processor traps after the instruction behind popf. */
	__asm__ volatile("pushfq; orq $0x100, (%%rsp); popfq; nop" : : : "memory", "cc");
	if (msrs >= 0)
		write_msr(msrs, MSR_TSC_AUX, mine->msrs & 0xfff);
	__cpuid(0x40000000, a, b, c, d);
	mine->cpuids++;
	mine->request_status = guest_request(amd);
	mine->requests++;
	__asm__ volatile("sgdt %0" : "=m"(table));
	mine->descriptors++;
	if (prctl(PR_SET_TSC, PR_TSC_SIGSEGV) == 0 && prctl(PR_SET_TSC, PR_TSC_ENABLE) == 0)
		mine->cr4++;
}

static void marks(int vcpu)
{
	char device[32];
	cpu_set_t set;
	struct sigaction action = { .sa_sigaction = on_trap, .sa_flags = SA_SIGINFO };

	name_process("microvmi-marks");
	CPU_ZERO(&set);
	CPU_SET(vcpu, &set);
	sched_setaffinity(0, sizeof set, &set);
	sigaction(SIGTRAP, &action, NULL);
	mine = &control->vcpus[vcpu];
	snprintf(device, sizeof device, "/dev/cpu/%d/msr", vcpu);
	int msrs = open(device, O_WRONLY), amd = is_amd();
	/* pagemap tells of pages that this process has touched. */
	landmark(0);
	printf("@marks vcpu=%d pid=%d landmark=0x%lx physical=0x%lx msr=%d\n", vcpu, getpid(), (uintptr_t)landmark,
	       physical((void *)landmark), msrs >= 0);
	for (;;) {
		turn(msrs, amd);
		usleep(20000);
	}
}

static void symbols(void)
{
	static const char *const wanted[] = { "_text", "init_task", "init_top_pgt", "entry_SYSCALL_64", NULL };
	char line[512], name[256], type;
	unsigned long address;
	FILE *file = fopen("/proc/kallsyms", "r");
	while (file && fgets(line, sizeof line, file))
		if (sscanf(line, "%lx %c %255s", &address, &type, name) == 3)
			for (int i = 0; wanted[i]; i++)
				if (strcmp(name, wanted[i]) == 0)
					printf("@symbol name=%s address=0x%lx\n", name, address);
	if (file)
		fclose(file);
}

/* The physical ranges of RAM, from the first byte to the last. */
static void ram(void)
{
	unsigned long start, end;
	char line[256];
	FILE *file = fopen("/proc/iomem", "r");
	while (file && fgets(line, sizeof line, file))
		if (line[0] != ' ' && strstr(line, " : System RAM") && sscanf(line, "%lx-%lx", &start, &end) == 2)
			printf("@ram start=0x%lx end=0x%lx\n", start, end);
	if (file)
		fclose(file);
}

static void load(const char *module)
{
	int fd = open(module, O_RDONLY);
	if (fd < 0 || syscall(SYS_finit_module, fd, "allow_writes=on", 0) != 0)
		printf("@no-module name=%s\n", module);
	if (fd >= 0)
		close(fd);
}

static unsigned long context_switches(void)
{
	char line[512];
	unsigned long count = 0;
	FILE *file = fopen("/proc/stat", "r");
	while (file && fgets(line, sizeof line, file))
		sscanf(line, "ctxt %lu", &count);
	if (file)
		fclose(file);
	return count;
}

int main(void)
{
	mkdir("/dev", 0755);
	mkdir("/proc", 0755);
	mkdir("/sys", 0755);
	mount("dev", "/dev", "devtmpfs", 0, NULL);
	mount("proc", "/proc", "proc", 0, NULL);
	mount("sys", "/sys", "sysfs", 0, NULL);
	int console = open("/dev/console", O_RDWR);
	for (int fd = 0; fd < 3; fd++)
		dup2(console, fd);
	setvbuf(stdout, NULL, _IOLBF, 0);

	load("/msr.ko");
	control = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	mlock(control, PAGE);
	memcpy(control->magic, "microvmi-control", 16);
	printf("@control physical=0x%lx\n", physical(control));
	ram();
	symbols();
	print_offsets();

	int to_pong[2], to_ping[2];
	if (pipe(to_pong) != 0 || pipe(to_ping) != 0)
		return 1;
	if (fork() == 0)
		ping(to_ping[0], to_pong[1]);
	if (fork() == 0)
		pong(to_pong[0], to_ping[1]);
	if (fork() == 0)
		known();
	long vcpus = sysconf(_SC_NPROCESSORS_ONLN);
	for (int vcpu = 0; vcpu < vcpus && vcpu < MAX_VCPUS; vcpu++)
		if (fork() == 0)
			marks(vcpu);
	sleep(1);
	printf("@ready vcpus=%ld\n", vcpus);
	for (unsigned long second = 1;; second++) {
		volatile struct counts *first = &control->vcpus[0];
		printf("@tick second=%lu switches=%lu rounds=%lu turns=%lu breakpoints=%lu traps=%lu steps=%lu msrs=%lu\n", second,
		       context_switches(), control->rounds, first->turns, first->breakpoints, first->traps, first->steps,
		       first->msrs);
		sleep(1);
	}
}
