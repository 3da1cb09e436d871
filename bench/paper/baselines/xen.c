/*
 * The paper's tasks on Xen's own libraries: what a driver may be compared with. Each prints a value a line.
 *
 * usage: xen dump DOMID BYTES FILE COUNT          physical memory from 0 on, 1,024 pages a mapping: nanoseconds for one
 *        xen sparse DOMID FILE COUNT              up to the last frame, without the holes: nanoseconds for one
 *        xen registers DOMID all|cpu READS COUNT  vCPU 0's, of a paused domain: all that core has of them, or the record
 *                                                 of the processor alone: nanoseconds for one
 *        xen read DOMID ADDRESS SIZE READS COUNT  from a mapping that is kept, of a paused domain: nanoseconds for one
 *        xen events DOMID sync|async EVENTS COUNT writes of CR3: events a second
 */
#include "../../baselines/timing.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <unistd.h>
/* Before Xen's public headers, which it tells who we are. */
#include <xenctrl.h>

#include <xen/hvm/save.h>
#include <xen/vm_event.h>
#include <xenevtchn.h>
#include <xenforeignmemory.h>

#define BATCH 1024
/* CR4.OSXSAVE: without it there is no record of XSAVE. */
#define OSXSAVE (1u << 18)

static xc_interface *xen;
static xenforeignmemory_handle *foreign;
static uint32_t domain;
static xen_pfn_t frames[BATCH];
static int errors[BATCH];

static uint8_t *map(uint64_t first, size_t pages, int protection)
{
	for (size_t i = 0; i < pages; i++)
		frames[i] = first + i;
	return xenforeignmemory_map(foreign, domain, protection, pages, frames, errors);
}

static void put(int fd, const uint8_t *bytes, size_t length, uint64_t at)
{
	if (pwrite(fd, bytes, length, at) != (ssize_t)length)
		exit(fail("pwrite"));
}

/* Pages that cannot be mapped are left out: touching them is SIGBUS. */
static double dump(const char *path, uint64_t pages)
{
	unlink(path);
	double started = wall_now();
	int fd = open(path, O_CREAT | O_EXCL | O_WRONLY, 0600);
	if (fd < 0 || xc_domain_pause(xen, domain) != 0)
		exit(fail(path));
	for (uint64_t first = 0; first < pages; first += BATCH) {
		size_t count = pages - first < BATCH ? pages - first : BATCH;
		uint8_t *bytes = map(first, count, PROT_READ);
		if (!bytes)
			continue;
		for (size_t start = 0, end; start < count; start = end + 1) {
			for (end = start; end < count && errors[end] == 0; end++)
				;
			if (end > start)
				put(fd, bytes + start * PAGE, (end - start) * PAGE, (first + start) * PAGE);
		}
		xenforeignmemory_unmap(foreign, bytes, count);
	}
	if (ftruncate(fd, pages * PAGE) != 0)
		exit(fail("ftruncate"));
	close(fd);
	xc_domain_unpause(xen, domain);
	return wall_now() - started;
}

/* False: the guest has no such record. */
static int record(uint16_t code, void *into, uint32_t size)
{
	if (xc_domain_hvm_getcontext_partial(xen, domain, code, 0, into, size) == 0)
		return 1;
	if (errno != ENODATA && errno != ENOENT && errno != ENODEV)
		exit(fail("xc_domain_hvm_getcontext_partial"));
	return 0;
}

static double registers(int all, long count)
{
	static struct hvm_hw_cpu cpu;
	static struct hvm_hw_lapic apic;
	static struct hvm_hw_lapic_regs apic_registers;
	static struct hvm_hw_mtrr mtrr;
	/* libxc maps and unmaps a buffer for more than a page. */
	static uint8_t xsave[PAGE];
	xc_domain_pause(xen, domain);
	double started = wall_now();
	for (long i = 0; i < count; i++) {
		record(HVM_SAVE_CODE(CPU), &cpu, sizeof cpu);
		if (!all)
			continue;
		record(HVM_SAVE_CODE(LAPIC), &apic, sizeof apic);
		record(HVM_SAVE_CODE(LAPIC_REGS), &apic_registers, sizeof apic_registers);
		record(HVM_SAVE_CODE(MTRR), &mtrr, sizeof mtrr);
		if (cpu.cr4 & OSXSAVE)
			record(CPU_XSAVE_CODE, xsave, sizeof xsave);
	}
	double elapsed = wall_now() - started;
	xc_domain_unpause(xen, domain);
	return elapsed / count;
}

static double reads(uint64_t address, size_t size, long count)
{
	static uint8_t into[PAGE];
	uint8_t *page = map(address / PAGE, 1, PROT_READ);
	if (!page || errors[0] != 0)
		exit(fail("map"));
	const uint8_t *from = page + address % PAGE;
	volatile uint64_t sink;
	xc_domain_pause(xen, domain);
	double started = wall_now();
	if (size == 8)
		for (long i = 0; i < count; i++)
			sink = *(const volatile uint64_t *)from;
	else
		for (long i = 0; i < count; i++) {
			memcpy(into, from, size);
			__asm__ volatile("" : : "r"(into) : "memory");
		}
	double elapsed = wall_now() - started;
	(void)sink;
	xc_domain_unpause(xen, domain);
	xenforeignmemory_unmap(foreign, page, 1);
	return elapsed / count;
}

static xenevtchn_handle *channel;
static vm_event_back_ring_t ring;
static evtchn_port_t local;

static int take(vm_event_request_t *request)
{
	if (!RING_HAS_UNCONSUMED_REQUESTS(&ring))
		return 0;
	memcpy(request, RING_GET_REQUEST(&ring, ring.req_cons), sizeof *request);
	ring.req_cons++;
	ring.sring->req_event = ring.req_cons + 1;
	return 1;
}

/* Each request needs one response, which frees its slot. */
static void answer(const vm_event_request_t *request)
{
	vm_event_response_t *response = RING_GET_RESPONSE(&ring, ring.rsp_prod_pvt);
	memset(response, 0, sizeof *response);
	response->version = request->version;
	response->vcpu_id = request->vcpu_id;
	response->reason = request->reason;
	response->flags = request->flags & VM_EVENT_FLAG_VCPU_PAUSED;
	ring.rsp_prod_pvt++;
	RING_PUSH_RESPONSES(&ring);
}

/* Answers what is there, and returns how much that was. */
static long serve(void)
{
	vm_event_request_t request;
	long served = 0;
	for (; take(&request); served++)
		answer(&request);
	if (served > 0)
		xenevtchn_notify(channel, local);
	return served;
}

static void wait_for_requests(void)
{
	struct pollfd watched = { .fd = xenevtchn_fd(channel), .events = POLLIN };
	if (poll(&watched, 1, 10000) != 1)
		exit(fail("no event within 10 s"));
	xenevtchn_unmask(channel, xenevtchn_pending(channel));
}

static void events(int sync, long wanted, long count)
{
	uint32_t port;
	void *page = xc_monitor_enable(xen, domain, &port);
	if (!page)
		exit(fail("xc_monitor_enable"));
	channel = xenevtchn_open(NULL, 0);
	local = xenevtchn_bind_interdomain(channel, domain, port);
	/* The page is found with old indices. */
	SHARED_RING_INIT((vm_event_sring_t *)page);
	BACK_RING_INIT(&ring, (vm_event_sring_t *)page, PAGE);
	if (xc_monitor_write_ctrlreg(xen, domain, VM_EVENT_X86_CR3, true, sync, 0, true) != 0)
		exit(fail("xc_monitor_write_ctrlreg"));
	for (long value = 0; value <= count; value++) {
		double started = wall_now();
		long seen = 0;
		while (seen < wanted) {
			long served = serve();
			if (served == 0)
				wait_for_requests();
			seen += served;
		}
		/* The first one says when the guest has come by. */
		if (value > 0)
			printf("%.1f\n", seen / (wall_now() - started) * 1e9);
	}
	/* A request that is on its way while this is turned off would keep its vCPU. */
	xc_domain_pause(xen, domain);
	xc_monitor_write_ctrlreg(xen, domain, VM_EVENT_X86_CR3, false, sync, 0, true);
	serve();
	xenevtchn_unbind(channel, local);
	xc_monitor_disable(xen, domain);
	munmap(page, PAGE);
	xc_domain_unpause(xen, domain);
}

int main(int argc, char **argv)
{
	if (argc < 5)
		return fail("usage: xen dump|sparse|registers|read|events DOMID ...");
	const char *task = argv[1];
	long count = atol(argv[argc - 1]);
	domain = atoi(argv[2]);
	xen = xc_interface_open(NULL, NULL, 0);
	foreign = xenforeignmemory_open(NULL, 0);
	if (!xen || !foreign)
		return fail("Xen");
	if (strcmp(task, "events") == 0) {
		events(strcmp(argv[3], "sync") == 0, atol(argv[4]), count);
		return 0;
	}
	for (long value = 0; value < count; value++) {
		double nanoseconds;
		if (strcmp(task, "dump") == 0)
			nanoseconds = dump(argv[4], strtoull(argv[3], NULL, 0) / PAGE);
		else if (strcmp(task, "sparse") == 0) {
			xen_pfn_t last;
			if (xc_domain_maximum_gpfn(xen, domain, &last) != 0)
				return fail("xc_domain_maximum_gpfn");
			nanoseconds = dump(argv[3], last + 1);
		} else if (strcmp(task, "registers") == 0)
			nanoseconds = registers(argv[3][0] == 'a', atol(argv[4]));
		else
			nanoseconds = reads(strtoull(argv[3], NULL, 0), atol(argv[4]), atol(argv[5]));
		printf("%.1f\n", nanoseconds);
	}
	return 0;
}
