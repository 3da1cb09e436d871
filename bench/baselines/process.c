/*
 * The limit for a guest's private RAM: process_vm_readv.
 * usage: process PID ADDRESS SIZE scattered COUNT     512 random pages a call; prints nanoseconds for one page
 *        process PID ADDRESS SIZE dump FILE           1 MiB pieces and write; prints nanoseconds for all
 */
#include "timing.h"
#include <fcntl.h>
#include <sys/uio.h>
#include <unistd.h>

#define PAGES 512
#define PIECE (1 << 20)

static uint8_t pages[PAGES][PAGE];
static uint8_t piece[PIECE];

int main(int argc, char **argv)
{
	if (argc != 6)
		return fail("usage: process PID ADDRESS SIZE scattered|dump COUNT|FILE");
	pid_t pid = atoi(argv[1]);
	uint64_t address = strtoull(argv[2], NULL, 0), size = strtoull(argv[3], NULL, 0);
	if (argv[4][0] == 's') {
		long count = atol(argv[5]);
		struct iovec local[PAGES], remote[PAGES];
		double started = cpu_now();
		for (long i = 0; i < count; i++) {
			for (int n = 0; n < PAGES; n++) {
				local[n] = (struct iovec){ pages[n], PAGE };
				remote[n] = (struct iovec){ (void *)(address + random_page(size)), PAGE };
			}
			if (process_vm_readv(pid, local, PAGES, remote, PAGES, 0) != PAGES * PAGE)
				return fail("process_vm_readv");
		}
		printf("%.1f\n", (cpu_now() - started) / count / PAGES);
	} else {
		double started = wall_now();
		int fd = open(argv[5], O_CREAT | O_TRUNC | O_WRONLY, 0600);
		for (uint64_t done = 0; done < size; done += PIECE) {
			struct iovec local = { piece, PIECE }, remote = { (void *)(address + done), PIECE };
			if (process_vm_readv(pid, &local, 1, &remote, 1, 0) != PIECE || write(fd, piece, PIECE) != PIECE)
				return fail("dump");
		}
		close(fd);
		printf("%.1f\n", wall_now() - started);
	}
	return 0;
}
