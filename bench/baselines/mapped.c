/*
 * The limit for reads from a guest's shared RAM: a mapping of the file, and memcpy, a load or a write to another file.
 * usage: mapped FILE copy|load COUNT        prints nanoseconds for one
 *        mapped FILE dump OUT COUNT         prints nanoseconds for each dump
 */
#include "timing.h"
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/*
 * Zero, and the compiler does not know. Whoever reads at random follows pointers: the next address is known when the
 * last word has come, so reads do not overlap.
 */
static uint64_t nothing(uint64_t word)
{
	__asm__ volatile("and $0, %0" : "+r"(word));
	return word;
}

/* Holes of the file are zeros that nobody has touched, and holes of the copy. */
static double dump(int fd, off_t size, const char *path)
{
	unlink(path);
	double started = wall_now();
	int out = open(path, O_CREAT | O_EXCL | O_WRONLY, 0600);
	if (out < 0)
		exit(fail(path));
	const uint8_t *ram = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);
	for (off_t at = lseek(fd, 0, SEEK_DATA); at >= 0 && at < size;) {
		off_t end = lseek(fd, at, SEEK_HOLE);
		if (pwrite(out, ram + at, end - at, at) != end - at)
			exit(fail("pwrite"));
		at = lseek(fd, end, SEEK_DATA);
	}
	if (ftruncate(out, size) != 0)
		exit(fail("ftruncate"));
	munmap((void *)ram, size);
	close(out);
	return wall_now() - started;
}

int main(int argc, char **argv)
{
	struct stat status;
	int fd = argc >= 4 ? open(argv[1], O_RDWR) : -1;
	if (fd < 0 || fstat(fd, &status) != 0)
		return fail("usage: mapped FILE copy|load COUNT, or mapped FILE dump OUT COUNT");
	if (argc == 5) {
		for (long i = atol(argv[4]); i > 0; i--)
			printf("%.1f\n", dump(fd, status.st_size, argv[3]));
		return 0;
	}
	const uint8_t *ram = mmap(NULL, status.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (ram == MAP_FAILED)
		return fail("mmap");
	long count = atol(argv[3]);
	static uint8_t into[PAGE];
	uint64_t sink = 0;
	touch(ram, status.st_size);

	double started = cpu_now();
	if (argv[2][0] == 'c')
		for (long i = 0; i < count; i++) {
			memcpy(into, ram + random_page(status.st_size) + sink, PAGE);
			sink = nothing(into[i % PAGE]);
		}
	else
		for (long i = 0; i < count; i++) {
			const uint8_t *at = ram + random_page(status.st_size) + 8 * (i % 512);
			sink = nothing(*(const volatile uint64_t *)(at + sink));
		}
	printf("%.1f\n", (cpu_now() - started) / count);
	return 0;
}
