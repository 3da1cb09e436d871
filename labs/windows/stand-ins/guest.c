#include "guest.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAGIC 0x747365756767766dULL

_Static_assert(sizeof(struct guest) <= MEMORY_AT, "the guest's state ends before its memory");

void guest_section_name(wchar_t *name, unsigned index) { swprintf(name, 40, L"Local\\microvmi-guest-%u", index); }

uint8_t *guest_memory(struct guest *guest) { return (uint8_t *)guest + MEMORY_AT; }

/* The registers that a vCPU has: first name and how many follow (HV_REGISTER_NAME). */
static const struct {
  uint32_t first, count;
} register_runs[] = {{0x20000, 18}, {0x40000, 5}, {0x50000, 6}, {0x60000, 8}, {0x70000, 2}, {0x80000, 12}};

/* What a vCPU in long mode holds: rflags, CR0, CR3 (a page of its own), CR4, EFER. */
static const struct {
  uint32_t name;
  uint64_t value, per_vcpu;
} long_mode[] = {{0x20011, 0x202, 0},
                 {0x40000, 0x80050033, 0},
                 {0x40002, 0x100000, 0x1000},
                 {0x40003, 0x6f8, 0},
                 {0x80001, 0xd01, 0}};

static void put(struct guest_register *slot, uint32_t name, uint64_t low, uint64_t high) {
  slot->name = name;
  slot->is_known = 1;
  memcpy(slot->value, &low, 8);
  memcpy(slot->value + 8, &high, 8);
}

/* Register number n of a vCPU v holds (v + 1) << 32 | n, but for those of long_mode; a segment also has limit, selector and attributes. */
static void fill_registers(struct guest *guest, uint32_t vcpu) {
  uint32_t slot = 0;
  for (size_t run = 0; run < sizeof register_runs / sizeof *register_runs; run += 1) {
    for (uint32_t index = 0; index < register_runs[run].count; index += 1) {
      uint32_t name = register_runs[run].first + index;
      uint64_t low = (uint64_t)(vcpu + 1) << 32 | name;
      uint64_t high = 0;
      for (size_t known = 0; known < sizeof long_mode / sizeof *long_mode; known += 1) {
        if (name == long_mode[known].name) low = long_mode[known].value + vcpu * long_mode[known].per_vcpu;
      }
      if (name >> 16 == 6) high = 0xa09bULL << 48 | (uint64_t)(8 * index) << 32 | 0xffffffffULL;
      /* The limit is in the low half's last word, the base in the high half. */
      if (name >> 16 == 7) high = low, low = 0x0fffULL << 48;
      put(&guest->registers[vcpu][slot++], name, low, high);
    }
  }
}

void guest_fill(struct guest *guest) {
  uint32_t *words = (uint32_t *)guest_memory(guest);
  for (uint64_t index = 0; index < guest->pages * PAGE / 4; index += 1) words[index] = (uint32_t)index * 2654435761u;
  memset(guest_memory(guest) + COUNTERS, 0, PAGE);
  for (uint32_t vcpu = 0; vcpu < guest->vcpus; vcpu += 1) fill_registers(guest, vcpu);
  MemoryBarrier();
  guest->magic = MAGIC;
}

struct vcpu {
  struct guest *guest;
  uint32_t number;
};

static DWORD WINAPI run_vcpu(void *argument) {
  struct vcpu *vcpu = argument;
  struct guest *guest = vcpu->guest;
  volatile uint64_t *counter = (volatile uint64_t *)(guest_memory(guest) + COUNTERS) + vcpu->number;
  for (;;) {
    InterlockedExchange(&guest->stepping[vcpu->number], 1);
    if (!guest->suspended && !guest->is_vcpu_suspended[vcpu->number]) *counter += 1;
    InterlockedExchange(&guest->stepping[vcpu->number], 0);
    Sleep(1);
  }
  return 0;
}

void guest_run(struct guest *guest) {
  static struct vcpu vcpus[MOST_VCPUS];
  for (uint32_t number = 0; number < guest->vcpus; number += 1) {
    vcpus[number] = (struct vcpu){guest, number};
    if (!CreateThread(NULL, 0, run_vcpu, &vcpus[number], 0, NULL)) exit(3);
  }
}

struct guest *guest_map(HANDLE section) {
  struct guest *guest = MapViewOfFile(section, FILE_MAP_ALL_ACCESS, 0, 0, 0);
  MEMORY_BASIC_INFORMATION information;
  if (!guest) return NULL;
  if (VirtualQuery(guest, &information, sizeof information) && information.RegionSize > MEMORY_AT &&
      guest->magic == MAGIC)
    return guest;
  UnmapViewOfFile(guest);
  SetLastError(ERROR_INVALID_HANDLE);
  return NULL;
}

void guest_unmap(struct guest *guest) { UnmapViewOfFile(guest); }

BOOL guest_has(const struct guest *guest, uint64_t address, uint64_t length) {
  uint64_t size = guest->pages * PAGE;
  if (length == 0 || address >= size || length > size - address) return FALSE;
  if (guest->hole_pages == 0) return TRUE;
  return (address + length - 1) / PAGE < guest->hole_first || address / PAGE >= guest->hole_first + guest->hole_pages;
}

static struct guest_register *find(struct guest *guest, uint32_t vcpu, uint32_t name) {
  if (vcpu >= guest->vcpus) return NULL;
  for (int slot = 0; slot < MOST_REGISTERS; slot += 1) {
    struct guest_register *candidate = &guest->registers[vcpu][slot];
    if (candidate->is_known && candidate->name == name) return candidate;
  }
  return NULL;
}

static void wait_for_step(struct guest *guest, uint32_t vcpu) {
  while (guest->stepping[vcpu]) SwitchToThread();
}

BOOL guest_get(struct guest *guest, uint32_t vcpu, uint32_t name, void *value) {
  if (vcpu < guest->vcpus && name == EXPLICIT_SUSPEND) {
    memset(value, 0, 16);
    *(uint8_t *)value = guest->is_vcpu_suspended[vcpu] != 0;
    return TRUE;
  }
  struct guest_register *found = find(guest, vcpu, name);
  if (found) memcpy(value, found->value, 16);
  return found != NULL;
}

BOOL guest_set(struct guest *guest, uint32_t vcpu, uint32_t name, const void *value) {
  if (vcpu < guest->vcpus && name == EXPLICIT_SUSPEND) {
    InterlockedExchange(&guest->is_vcpu_suspended[vcpu], *(const uint8_t *)value & 1);
    wait_for_step(guest, vcpu);
    return TRUE;
  }
  struct guest_register *found = find(guest, vcpu, name);
  if (found) memcpy(found->value, value, 16);
  return found != NULL;
}

void guest_suspend(struct guest *guest, BOOL suspended) {
  InterlockedExchange(&guest->suspended, suspended);
  for (uint32_t vcpu = 0; vcpu < guest->vcpus; vcpu += 1) {
    InterlockedExchange(&guest->is_vcpu_suspended[vcpu], suspended);
    wait_for_step(guest, vcpu);
  }
}

BOOL asked_to_fail(const char *call) {
  char name[80], value[16];
  snprintf(name, sizeof name, "FAIL_%s", call);
  DWORD length = GetEnvironmentVariableA(name, value, sizeof value);
  if (length == 0 || length >= sizeof value) return FALSE;
  SetLastError(strtoul(value, NULL, 0));
  return TRUE;
}
