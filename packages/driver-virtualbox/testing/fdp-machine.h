/* What the guest's parts share: its memory, its vCPUs, its breakpoints. */
#ifndef FDP_MACHINE_H
#define FDP_MACHINE_H

#include <pthread.h>
#include <stdatomic.h>

#include "fdp-guest.h"

enum { MOST_VCPUS = 4, MOST_BREAKPOINTS = 1024, REGISTERS = 50, MSRS = 14, PAGE = 4096 };

/* Register numbers of FDP_enum.h. */
enum { RAX = 0, RBX = 1, RCX = 2, RDX = 3, RSP = 12, RIP = 16, CS = 29, SS = 34, RFLAGS = 35, GDTRB = 37, GDTRL = 38,
       IDTRB = 39, IDTRL = 40, CR0 = 41, CR2 = 42, CR3 = 43, CR4 = 44 };

/* The program, the same in both address spaces: its code, and the page that each vCPU counts in. */
#define CODE_PHYSICAL 0x200000ull
#define CODE_VIRTUAL 0xffffffff80200000ull
#define DATA_PHYSICAL 0x400000ull
#define TABLES 0x300000ull
#define LSTAR 0xc0000082ull

struct vcpu {
    unsigned number;
    pthread_t thread;
    uint64_t registers[REGISTERS];
    uint64_t msrs[MSRS];
    atomic_uint state;
    atomic_bool pause_required;
    atomic_bool step_required;
    atomic_ulong ticks;
    /* Has hit a breakpoint, and is about to stop the others: nobody need wait for it to go on. */
    atomic_bool stopping;
    bool msr_hit;
};

extern struct vcpu vcpus[MOST_VCPUS];
extern unsigned vcpu_count;
extern uint8_t *ram;
/* The page that is shared has the registers of vCPU 0, as they were when it stopped last: FDP_CPU_CTX. */
extern uint64_t *context;

/* Memory. */
void memory_make(uint64_t size);
bool is_ram(uint64_t address, uint64_t size);
void put(uint64_t address, uint64_t value);

/* Breakpoints: the number of one that covers a part of the range, or -1. */
int find_breakpoint(unsigned type, unsigned access, uint64_t address, uint64_t length);

/* vCPUs. */
uint64_t *msr_of(unsigned vcpu, uint64_t index);
void vcpus_run(volatile uint8_t *changed, uint64_t *shared_context);
void update_context(struct vcpu *cpu);

#endif
