/*
 * The limit for reads from a guest's shared RAM: a mapping of the file, and memcpy or a load.
 * usage: mapped FILE copy|load COUNT        prints nanoseconds for one
 */
#include "timing.h"
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

int main(int argc, char **argv)
{
	struct stat status;
	int fd = argc == 4 ? open(argv[1], O_RDWR) : -1;
	if (fd < 0 || fstat(fd, &status) != 0)
		return fail("usage: mapped FILE copy|load COUNT");
	const uint8_t *ram = mmap(NULL, status.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (ram == MAP_FAILED)
		return fail("mmap");
	long count = atol(argv[3]);
	static uint8_t into[PAGE];
	volatile uint64_t sink = 0;
	touch(ram, status.st_size);

	double started = cpu_now();
	if (argv[2][0] == 'c')
		for (long i = 0; i < count; i++) {
			memcpy(into, ram + random_page(status.st_size), PAGE);
			sink += into[i % PAGE];
		}
	else
		/* Whoever reads words at random follows pointers: the next address is known when the last word is. */
		for (long i = 0; i < count; i++) {
			uint64_t word = *(const volatile uint64_t *)(ram + random_page(status.st_size) + 8 * (i % 512) + sink);
			__asm__ volatile("and $0, %0" : "+r"(word));
			sink = word;
		}
	printf("%.1f\n", (cpu_now() - started) / count);
	return 0;
}
