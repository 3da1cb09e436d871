/*
 * The limit for breakpoint events: a client of QEMU's gdbstub that does no more than it must. For each hit: the
 * registers, one step over, on.
 * usage: gdb SOCKET ADDRESS COUNT      prints nanoseconds for one hit
 */
#include "timing.h"
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static int fd;
static char buffer[8192];
static size_t used;

static void send_packet(const char *data)
{
	char packet[128];
	unsigned char sum = 0;
	for (const char *c = data; *c; c++)
		sum += *c;
	int length = snprintf(packet, sizeof packet, "$%s#%02x", data, sum);
	if (write(fd, packet, length) != length)
		exit(fail("write"));
}

/* Returns the first letter of the next packet's data. */
static char receive_packet(void)
{
	for (;;) {
		char *start = memchr(buffer, '$', used), *end = start ? memchr(start, '#', buffer + used - start) : NULL;
		if (end && end + 3 <= buffer + used) {
			char first = start[1];
			used -= end + 3 - buffer;
			memmove(buffer, end + 3, used);
			return first;
		}
		ssize_t got = read(fd, buffer + used, sizeof buffer - used);
		if (got <= 0)
			exit(fail("read"));
		used += got;
	}
}

static char ask(const char *data)
{
	send_packet(data);
	return receive_packet();
}

int main(int argc, char **argv)
{
	if (argc != 4)
		return fail("usage: gdb SOCKET ADDRESS COUNT");
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	strncpy(address.sun_path, argv[1], sizeof address.sun_path - 1);
	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	if (connect(fd, (struct sockaddr *)&address, sizeof address) != 0)
		return fail("connect");
	/* Connecting has stopped the VM, and the stub says so before it answers. */
	if (ask("qSupported:multiprocess+") == 'T')
		receive_packet();
	char insert[64], remove[64];
	snprintf(insert, sizeof insert, "Z1,%llx,1", strtoull(argv[2], NULL, 0));
	snprintf(remove, sizeof remove, "z1,%llx,1", strtoull(argv[2], NULL, 0));
	if (ask(insert) != 'O')
		return fail(insert);
	long count = atol(argv[3]);
	double started = 0;
	for (long hit = 0; hit <= count; hit++) {
		if (ask("vCont;c") != 'T')
			return fail("stop");
		/* The first one says when the loop has come by. */
		if (hit == 0)
			started = wall_now();
		if (ask("g") == 'E' || ask("vCont;s:p1.1") != 'T')
			return fail("step");
	}
	double elapsed = wall_now() - started;
	ask(remove);
	/* Not D: the process that it names may be running nothing. */
	send_packet("vCont;c");
	close(fd);
	printf("%.1f\n", elapsed / count);
	return 0;
}
