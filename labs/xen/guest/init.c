/*
 * The lab's guests' only program: it is the kernel's init, and makes the processes that tests look for.
 * What it knows, it tells on the console, a line "@name key=value ..." each: "@boot" is the
 * first, "@ready" comes when all the facts are told, "@failed" when it gives up.
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
#include <errno.h>
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
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

/* Tells why and ends the guest, so that whoever waits for it need not wait any longer. */
static void fail(const char *what)
{
	printf("@failed what=%s errno=%d\n", what, errno);
	tcdrain(STDOUT_FILENO);
	reboot(RB_POWER_OFF);
	_exit(1);
}

#include "../../qemu/guest/btf.h"

#define PAGE 4096
#define KNOWN_PAGES 16
#define MAX_VCPUS 16
#define FLAG_SWITCH 1ull

#define MSR_TSC_AUX 0xc0000103
/* I/O ports that nobody answers at: reading gives ones. */
#define PORT_READ 0x5a0
#define PORT_WRITTEN 0x5a1

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
	uint64_t port_reads;     /* of PORT_READ, a byte */
	uint64_t port_value;     /* what the last of them gave */
	uint64_t port_writes;    /* to PORT_WRITTEN, a byte */
	uint64_t spare[3];
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

static FILE *opened(const char *path)
{
	FILE *file = fopen(path, "r");
	if (!file)
		fail(path);
	return file;
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

static uint8_t *pages_of_own(int count)
{
	uint8_t *pages = mmap(NULL, count * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (pages == MAP_FAILED || mlock(pages, count * PAGE) != 0)
		fail("pages");
	memset(pages, 0, count * PAGE);
	return pages;
}

/* A byte in this pipe: one more process has told what it knows. */
static int told[2];

static void tell(void)
{
	if (write(told[1], "x", 1) != 1)
		fail("tell");
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
	tell();
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
			fail("ping");
		control->rounds++;
	}
}

static void pong(int in, int out)
{
	char byte = 0;
	name_process("microvmi-pong");
	for (;;) {
		if (read(in, &byte, 1) != 1 || write(out, &byte, 1) != 1)
			fail("pong");
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

/* The instruction that calls the hypervisor; a PV guest's programs have none. */
enum hypercalls { NONE, VMCALL, VMMCALL };

static enum hypercalls hypercalls_here(void)
{
	char type[16] = "";
	uint32_t a, b, c, d;
	FILE *file = opened("/sys/hypervisor/guest_type");
	if (!fgets(type, sizeof type, file))
		fail("guest_type");
	fclose(file);
	if (strcmp(type, "PV\n") == 0)
		return NONE;
	__cpuid(0, a, b, c, d);
	/* The end of "AuthenticAMD". */
	return c == 0x444d4163 ? VMMCALL : VMCALL;
}

/*
 * HVMOP_guest_request_vm, 24, by __HYPERVISOR_hvm_op, 34 (Xen's public/xen.h and public/hvm/hvm_op.h). User mode may call
 * it only while a monitor allows that (xc_monitor_guest_request); otherwise it returns -EPERM.
 */
static uint64_t guest_request(enum hypercalls instruction)
{
	uint64_t result = 34;
	register uint64_t argument __asm__("rdi") = 24;
	register uint64_t pointer __asm__("rsi") = 0;
	if (instruction == VMMCALL)
		__asm__ volatile("vmmcall" : "+a"(result) : "r"(argument), "r"(pointer) : "memory", "r8", "r9", "r10", "r11");
	else
		__asm__ volatile("vmcall" : "+a"(result) : "r"(argument), "r"(pointer) : "memory", "r8", "r9", "r10", "r11");
	return result;
}

static void turn(int msrs, int ports, enum hypercalls hypercalls)
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
	__asm__ volatile("lea -128(%%rsp), %%rsp; pushfq; orq $0x100, (%%rsp); popfq; nop; lea 128(%%rsp), %%rsp"
			 : : : "memory", "cc");
	if (msrs >= 0)
		write_msr(msrs, MSR_TSC_AUX, mine->msrs & 0xfff);
	__cpuid(0x40000000, a, b, c, d);
	mine->cpuids++;
	if (hypercalls) {
		mine->request_status = guest_request(hypercalls);
		mine->requests++;
	}
	__asm__ volatile("sgdt %0" : "=m"(table));
	mine->descriptors++;
	if (ports >= 0) {
		uint8_t value;
		if (pread(ports, &value, 1, PORT_READ) == 1) {
			mine->port_value = value;
			mine->port_reads++;
		}
		if (pwrite(ports, "Z", 1, PORT_WRITTEN) == 1)
			mine->port_writes++;
	}
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
	if (sched_setaffinity(0, sizeof set, &set) != 0 || sigaction(SIGTRAP, &action, NULL) != 0)
		fail("marks");
	mine = &control->vcpus[vcpu];
	snprintf(device, sizeof device, "/dev/cpu/%d/msr", vcpu);
	int msrs = open(device, O_WRONLY);
	if (msrs < 0)
		fail("msr");
	enum hypercalls hypercalls = hypercalls_here();
	/*
	 * The kernel reads and writes: a program's own ports (ioperm) are lost in QEMU's emulation when a register of the
	 * guest's is written from outside, as its check_io() takes no TSS that is marked busy. A PV guest has no ports.
	 */
	int ports = hypercalls ? open("/dev/port", O_RDWR) : -1;
	if (hypercalls && ports < 0)
		fail("port");
	/* pagemap tells of pages that this process has touched. */
	landmark(0);
	printf("@marks vcpu=%d pid=%d landmark=0x%lx physical=0x%lx\n", vcpu, getpid(), (uintptr_t)landmark,
	       physical((void *)landmark));
	tell();
	for (;;) {
		turn(msrs, ports, hypercalls);
		usleep(20000);
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

/* The physical ranges of RAM, from the first byte to the last. */
static void ram(void)
{
	unsigned long start, end;
	char line[256];
	FILE *file = opened("/proc/iomem");
	while (fgets(line, sizeof line, file))
		if (line[0] != ' ' && strstr(line, " : System RAM") && sscanf(line, "%lx-%lx", &start, &end) == 2)
			printf("@ram start=0x%lx end=0x%lx\n", start, end);
	fclose(file);
}

static void load(const char *module)
{
	int fd = open(module, O_RDONLY);
	if (fd < 0 || syscall(SYS_finit_module, fd, "allow_writes=on", 0) != 0)
		fail(module);
	close(fd);
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
	int to_pong[2], to_ping[2];
	setvbuf(stdout, NULL, _IOLBF, 0);
	printf("@boot\n");
	mounted("devtmpfs", "/dev");
	mounted("proc", "/proc");
	mounted("sysfs", "/sys");
	load("/msr.ko");

	control = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (control == MAP_FAILED || mlock(control, PAGE) != 0)
		fail("control");
	memcpy(control->magic, "microvmi-control", 16);
	/* The kernel makes what it does not know of its command line init's environment. */
	if (getenv("MICROVMI_SWITCH"))
		control->flags = FLAG_SWITCH;
	printf("@control physical=0x%lx\n", physical(control));
	ram();
	symbols();
	print_offsets();

	if (pipe(to_pong) != 0 || pipe(to_ping) != 0 || pipe(told) != 0)
		fail("pipe");
	if (is_child())
		ping(to_ping[0], to_pong[1]);
	if (is_child())
		pong(to_pong[0], to_ping[1]);
	if (is_child())
		known();
	long vcpus = sysconf(_SC_NPROCESSORS_ONLN);
	if (vcpus > MAX_VCPUS)
		vcpus = MAX_VCPUS;
	for (int vcpu = 0; vcpu < vcpus; vcpu++)
		if (is_child())
			marks(vcpu);
	for (int process = 0; process < vcpus + 1; process++)
		if (read(told[0], &byte, 1) != 1)
			fail("told");
	printf("@ready vcpus=%ld\n", vcpus);
	for (unsigned long second = 1;; second++) {
		int status;
		volatile struct counts *first = &control->vcpus[0];
		pid_t pid = waitpid(-1, &status, WNOHANG);
		if (pid > 0)
			printf("@ended pid=%d status=0x%x\n", pid, status);
		printf("@tick second=%lu switches=%lu rounds=%lu turns=%lu breakpoints=%lu traps=%lu steps=%lu msrs=%lu\n", second,
		       context_switches(), control->rounds, first->turns, first->breakpoints, first->traps, first->steps,
		       first->msrs);
		sleep(1);
	}
}
