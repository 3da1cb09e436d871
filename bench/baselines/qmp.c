/*
 * The limit for the registers of stock QEMU, all of which are only in the state that it writes for a migration: a client
 * of its monitor that asks for that and reads the file.
 * usage: qmp SOCKET FILE COUNT      prints nanoseconds for one
 */
#include "timing.h"
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static int fd;
static char line[65536];
static char state[1 << 20];

static void receive_line(void)
{
	size_t used = 0;
	while (used == 0 || line[used - 1] != '\n') {
		ssize_t got = read(fd, line + used, sizeof line - 1 - used);
		if (got <= 0)
			exit(fail("read"));
		used += got;
	}
	line[used] = 0;
}

/* Events may come before the answer, or with it. */
static void ask(const char *command)
{
	size_t length = strlen(command);
	if (write(fd, command, length) != (ssize_t)length)
		exit(fail("write"));
	do
		receive_line();
	while (!strstr(line, "\"return\"") && !strstr(line, "\"error\""));
	if (strstr(line, "\"error\"")) {
		fputs(line, stderr);
		exit(fail(command));
	}
}

int main(int argc, char **argv)
{
	if (argc != 4)
		return fail("usage: qmp SOCKET FILE COUNT");
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	strncpy(address.sun_path, argv[1], sizeof address.sun_path - 1);
	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	if (connect(fd, (struct sockaddr *)&address, sizeof address) != 0)
		return fail("connect");
	receive_line();
	ask("{\"execute\":\"qmp_capabilities\"}\n");
	ask("{\"execute\":\"stop\"}\n");
	char save[512];
	snprintf(save, sizeof save,
		 "{\"execute\":\"xen-save-devices-state\",\"arguments\":{\"filename\":\"%s\",\"live\":false}}\n", argv[2]);
	long count = atol(argv[3]);
	double started = wall_now();
	for (long i = 0; i < count; i++) {
		ask(save);
		int file = open(argv[2], O_RDONLY);
		if (file < 0 || read(file, state, sizeof state) <= 0)
			return fail(argv[2]);
		close(file);
		unlink(argv[2]);
	}
	double elapsed = wall_now() - started;
	ask("{\"execute\":\"cont\"}\n");
	printf("%.1f\n", elapsed / count);
	return 0;
}
