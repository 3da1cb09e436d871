/*
 * Hands what is written to FIFOs on to the emulator's debug port, in frames: 2, the FIFO's number from 1 on, how many
 * bytes (16 bits, little endian), and the bytes. The last FIFO's come after all that was written to others before.
 */
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/io.h>
#include <unistd.h>

/* Bochs, iodev/unmapped.cc: what is written there is the emulator's standard output. */
#define PORT 0xe9
#define START 2
#define MOST_FIFOS 8

struct frame {
  unsigned char start, fifo;
  unsigned short length;
  unsigned char bytes[4096];
};

static void hand_on(const struct frame *frame)
{
  const void *from = frame;
  unsigned long count = 4 + frame->length;

  asm volatile("rep outsb" : "+S"(from), "+c"(count) : "d"(PORT) : "memory");
}

/* What is in a FIFO now; 0 where nothing is. */
static int take(const struct pollfd *fifo, int number, struct frame *frame)
{
  ssize_t count = read(fifo->fd, frame->bytes, sizeof frame->bytes);

  if (count <= 0) return 0;
  frame->start = START;
  frame->fifo = number;
  frame->length = count;
  return 1;
}

int main(int argc, char **argv)
{
  static struct frame last, other;
  struct pollfd fifos[MOST_FIFOS];
  int count = argc - 1;

  if (count < 1 || count > MOST_FIFOS || iopl(3) < 0) {
    perror("debug-port");
    return 1;
  }
  for (int i = 0; i < count; i++) {
    /* Open for writing too: then it does not end when a writer does. */
    fifos[i] = (struct pollfd){ .fd = open(argv[i + 1], O_RDWR | O_NONBLOCK), .events = POLLIN };
    if (fifos[i].fd < 0) {
      perror(argv[i + 1]);
      return 1;
    }
  }
  for (;;) {
    int has_last;

    poll(fifos, count, -1);
    has_last = take(&fifos[count - 1], count, &last);
    for (int i = 0; i < count - 1; i++)
      while (take(&fifos[i], i + 1, &other)) hand_on(&other);
    if (has_last) hand_on(&last);
  }
}
