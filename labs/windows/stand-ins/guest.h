/*
 * A guest for the stand-ins of Hyper-V's libraries: memory with known contents, vCPUs that count, registers. It lives in
 * a section of its worker process (worker.c), so that the libraries in another process see the same guest.
 */
#ifndef GUEST_H
#define GUEST_H

#include <stdint.h>
#include <windows.h>

#define PAGE 4096ULL
#define MOST_GUESTS 8
#define MOST_VCPUS 8
#define MOST_REGISTERS 96
/* Each vCPU counts in 8 bytes of its own from here on, as long as it runs. */
#define COUNTERS 0x3000ULL
/* Where the guest's memory begins in its section. */
#define MEMORY_AT 0x10000

/* HV_REGISTER_NAME. */
#define EXPLICIT_SUSPEND 0x00000000u

struct guest_register {
  uint32_t name;
  uint32_t is_known;
  uint8_t value[16];
};

struct guest {
  volatile uint64_t magic;
  uint64_t partition_id;
  uint32_t worker;
  uint32_t vcpus;
  uint64_t pages;
  uint64_t hole_first;
  uint64_t hole_pages;
  wchar_t guid[40];
  wchar_t name[128];
  /* By SdkControlVmState. */
  volatile LONG suspended;
  /* Set while a vCPU does a step: who suspends it waits for that. */
  volatile LONG stepping[MOST_VCPUS];
  volatile LONG is_vcpu_suspended[MOST_VCPUS];
  struct guest_register registers[MOST_VCPUS][MOST_REGISTERS];
};

void guest_section_name(wchar_t *name, unsigned index);
void guest_fill(struct guest *guest);
void guest_run(struct guest *guest);
/* NULL for a handle that is no guest's section. */
struct guest *guest_map(HANDLE section);
void guest_unmap(struct guest *guest);
uint8_t *guest_memory(struct guest *guest);
/* Whether all of a range is the guest's memory. */
BOOL guest_has(const struct guest *guest, uint64_t address, uint64_t length);
BOOL guest_get(struct guest *guest, uint32_t vcpu, uint32_t name, void *value);
BOOL guest_set(struct guest *guest, uint32_t vcpu, uint32_t name, const void *value);
/* Returns when every vCPU stands, if it is to. */
void guest_suspend(struct guest *guest, BOOL suspended);
/* Whether the environment asks for a call's failure: FAIL_<call>=<Win32 error>. It is the last error then. */
BOOL asked_to_fail(const char *call);

#endif
