/* A guest in memory that runs, and stops as the patched VirtualBox does (icebox, VMM/VMMR3/VMEmt.cpp). */
#ifndef FDP_GUEST_H
#define FDP_GUEST_H

#include <stdbool.h>
#include <stdint.h>

enum { STATE_PAUSED = 1, STATE_BREAKPOINT_HIT = 2 };
enum { SOFTHBP = 1, PAGEHBP = 3, MSRHBP = 4, CRHBP = 5 };
enum { EXECUTE_BP = 1, WRITE_BP = 2, READ_BP = 4 };

/* Guest-physical memory: RAM from 0 to LOW_END and from HIGH_START to the end. */
#define LOW_END 0xa0000ull
#define HIGH_START 0x100000ull

void guest_start(unsigned vcpus, uint64_t ram_size, volatile uint8_t *state_changed, uint64_t *context);

bool guest_read(uint64_t address, uint32_t size, uint8_t *into);
bool guest_write(uint64_t address, uint32_t size, const uint8_t *from);
uint64_t guest_translate(unsigned vcpu, uint64_t address);

uint64_t guest_read_register(unsigned vcpu, unsigned id);
/* From now on this register is unknown; -1: none. */
void guest_serve_not(int id);
bool guest_write_register(unsigned vcpu, unsigned id, uint64_t value);
uint64_t guest_read_msr(unsigned vcpu, uint64_t index);
bool guest_write_msr(unsigned vcpu, uint64_t index, uint64_t value);

void guest_pause(void);
void guest_resume(void);
bool guest_single_step(unsigned vcpu);
uint8_t guest_state(void);
uint8_t guest_vcpu_state(unsigned vcpu);

int guest_set_breakpoint(unsigned vcpu, unsigned type, unsigned access, unsigned address_type, uint64_t address,
                         uint64_t length);
bool guest_unset_breakpoint(int id);

unsigned guest_vcpu_count(void);
uint64_t guest_memory_size(void);

#endif
