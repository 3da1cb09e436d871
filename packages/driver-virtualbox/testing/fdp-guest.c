#define _GNU_SOURCE
#include "fdp-guest.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MOST_VCPUS = 4, MOST_BREAKPOINTS = 1024, REGISTERS = 50, PAGE = 4096 };
/* Register numbers of FDP_enum.h. */
enum { RAX = 0, RBX = 1, RCX = 2, RDX = 3, RSP = 12, RIP = 16, CS = 29, SS = 34, RFLAGS = 35, GDTRB = 37, GDTRL = 38,
       IDTRB = 39, IDTRL = 40, CR0 = 41, CR2 = 42, CR3 = 43, CR4 = 44 };
#define NOT_SERVED 0xBADBADBADBADBADBull

/* The program, the same in both address spaces: its code, and the page that each vCPU counts in. */
#define CODE_PHYSICAL 0x200000ull
#define CODE_VIRTUAL 0xffffffff80200000ull
#define DATA_PHYSICAL 0x400000ull
#define TABLES 0x300000ull
#define LSTAR 0xc0000082ull

static const uint8_t program[] = {
    0x90,                   /* nop */
    0x48, 0xff, 0x03,       /* inc qword [rbx] */
    0x0f, 0x30,             /* wrmsr */
    0x0f, 0x22, 0xd8,       /* mov cr3, rax */
    0xeb, 0xf5,             /* jmp to the nop */
};

struct vcpu {
    unsigned number;
    pthread_t thread;
    uint64_t registers[REGISTERS];
    uint64_t msrs[16];
    atomic_uint state;
    atomic_bool pause_required;
    atomic_bool step_required;
    atomic_ulong ticks;
    /* Has hit a breakpoint, and is about to stop the others: nobody need wait for it to go on. */
    atomic_bool stopping;
    bool msr_hit;
};

struct breakpoint {
    bool active;
    unsigned type, access;
    uint64_t address, length;
};

static uint8_t *ram;
static uint64_t ram_size;
static unsigned vcpu_count;
static struct vcpu vcpus[MOST_VCPUS];
static struct breakpoint breakpoints[MOST_BREAKPOINTS];
/* One vCPU at a time executes an instruction. */
static pthread_mutex_t cpu_lock = PTHREAD_MUTEX_INITIALIZER;
/* Stopping all and resuming all exclude each other: as VirtualBox's CpuLock. */
static pthread_mutex_t run_lock = PTHREAD_MUTEX_INITIALIZER;
static volatile uint8_t *state_changed;
static uint64_t *context;

static const uint32_t msr_indices[16] = {0x1b, 0x174, 0x175, 0x176, 0x277, 0xc0000080, 0xc0000081, 0xc0000082,
                                         0xc0000083, 0xc0000084, 0xc0000100, 0xc0000101, 0xc0000102, 0xc0000103};

static uint64_t *msr_of(unsigned vcpu, uint64_t index)
{
    for (unsigned i = 0; i < 14; i++)
        if (msr_indices[i] == index)
            return &vcpus[vcpu].msrs[i];
    return NULL;
}

static bool is_ram(uint64_t address, uint64_t size)
{
    uint64_t end = address + size;
    if (end < address)
        return false;
    return end <= LOW_END || (address >= HIGH_START && end <= ram_size);
}

bool guest_read(uint64_t address, uint32_t size, uint8_t *into)
{
    if (!is_ram(address, size))
        return false;
    memcpy(into, ram + address, size);
    return true;
}

bool guest_write(uint64_t address, uint32_t size, const uint8_t *from)
{
    static uint8_t temp[1 << 20];
    /* VirtualBox copies without a look at the size: the VM's process would crash. */
    if (size > sizeof temp)
        abort();
    if (!guest_read(address, size, temp))
        return false;
    memcpy(ram + address, from, size);
    return true;
}

/* Four levels, and large pages: Intel SDM volume 3A, section 4.5. */
static uint64_t walk(uint64_t cr3, uint64_t address)
{
    uint64_t table = cr3 & 0x000ffffffffff000ull;
    for (int shift = 39; shift >= 12; shift -= 9) {
        uint64_t entry, at = table + ((address >> shift) & 0x1ff) * 8;
        if (!guest_read(at, 8, (uint8_t *)&entry) || !(entry & 1))
            return 0;
        table = entry & 0x000ffffffffff000ull;
        if (shift == 12 || (shift < 39 && (entry & 0x80)))
            return table + (address & ((1ull << shift) - 1));
    }
    return 0;
}

uint64_t guest_translate(unsigned vcpu, uint64_t address)
{
    return vcpu < vcpu_count ? walk(vcpus[vcpu].registers[CR3], address) : 0;
}

static void put(uint64_t address, uint64_t value)
{
    memcpy(ram + address, &value, 8);
}

/* Address spaces with the same mappings, 1 GiB of physical memory at 0xffffffff80000000 and at 0, in 2 MiB pages: two that
   the program switches between, and one that no vCPU is ever in. */
static void build_tables(void)
{
    for (unsigned space = 0; space < 3; space++) {
        uint64_t top = TABLES + space * 0x10000, directory_pointers = top + PAGE, directory = top + 2 * PAGE;
        put(top, directory_pointers | 3);
        put(top + 511 * 8, directory_pointers | 3);
        put(directory_pointers, directory | 3);
        put(directory_pointers + 510 * 8, directory | 3);
        for (uint64_t i = 0; i < 512; i++)
            put(directory + i * 8, (i << 21) | 0x83);
    }
}

static int find_breakpoint(unsigned type, unsigned access, uint64_t address, uint64_t length)
{
    for (int i = 0; i < MOST_BREAKPOINTS; i++) {
        struct breakpoint *bp = &breakpoints[i];
        if (!bp->active || bp->type != type || !(bp->access & access))
            continue;
        if (address < bp->address + bp->length && address + length > bp->address)
            return i;
    }
    return -1;
}

static void update_context(struct vcpu *cpu)
{
    static const uint8_t order[] = {RIP, RAX, RCX, RDX, RBX, RSP, 13, 14, 15, 4, 5, 6, 7, 8, 9, 10, 11};
    if (cpu->number != 0)
        return;
    for (unsigned i = 0; i < sizeof order; i++)
        context[i] = cpu->registers[order[i]];
    for (unsigned i = 0; i < 4; i++)
        context[24 + i] = cpu->registers[CR0 + i];
}

/* Executes one instruction; false, with nothing done, where a breakpoint stops before it; `hit` where behind it. */
static bool execute(struct vcpu *cpu, bool breakable, bool *hit)
{
    uint64_t *r = cpu->registers;
    uint64_t at = r[RIP] - CODE_VIRTUAL, physical = CODE_PHYSICAL + at;
    if (breakable && (find_breakpoint(SOFTHBP, EXECUTE_BP, physical, 1) >= 0 ||
                      find_breakpoint(PAGEHBP, EXECUTE_BP, physical, 1) >= 0))
        return false;
    uint64_t data = DATA_PHYSICAL + cpu->number * 8, count;
    switch (at) {
    case 0:
        r[RIP] += 1;
        break;
    case 1:
        if (breakable && find_breakpoint(PAGEHBP, READ_BP | WRITE_BP, data, 8) >= 0)
            return false;
        memcpy(&count, ram + data, 8);
        put(data, count + 1);
        r[RIP] += 3;
        r[RCX] = LSTAR;
        r[RAX] = 0x80200000u + ((count + 1) & 0xff);
        r[RDX] = 0xffffffffu;
        break;
    case 4:
        if (breakable && find_breakpoint(MSRHBP, WRITE_BP, r[RCX] & 0xffffffff, 1) >= 0) {
            cpu->msr_hit = true;
            return false;
        }
        if (msr_of(cpu->number, r[RCX] & 0xffffffff))
            *msr_of(cpu->number, r[RCX] & 0xffffffff) = (r[RDX] << 32) | (r[RAX] & 0xffffffff);
        r[RIP] += 2;
        r[RAX] = r[CR3] == TABLES ? TABLES + 0x10000 : TABLES;
        break;
    case 6:
        r[CR3] = r[RAX] & ~0xfffull;
        r[RIP] += 3;
        *hit = breakable && find_breakpoint(CRHBP, WRITE_BP, 3, 1) >= 0;
        break;
    default:
        r[RIP] = CODE_VIRTUAL;
    }
    return true;
}

/* VMR3EnterPause: what a vCPU does while the debugger holds it. */
static void stand_still(struct vcpu *cpu)
{
    update_context(cpu);
    while (cpu->pause_required) {
        if (cpu->step_required) {
            bool hit;
            pthread_mutex_lock(&cpu_lock);
            execute(cpu, false, &hit);
            update_context(cpu);
            pthread_mutex_unlock(&cpu_lock);
            cpu->step_required = false;
        }
        usleep(50);
    }
    update_context(cpu);
}

static void stop_all(void)
{
    pthread_mutex_lock(&run_lock);
    for (unsigned i = 0; i < vcpu_count; i++)
        vcpus[i].pause_required = true;
    for (unsigned i = 0; i < vcpu_count; i++)
        while (!(vcpus[i].state & STATE_PAUSED))
            usleep(20);
    pthread_mutex_unlock(&run_lock);
}

static void *run(void *argument)
{
    struct vcpu *cpu = argument;
    for (;; cpu->ticks++) {
        if (cpu->pause_required) {
            cpu->state |= STATE_PAUSED;
            stand_still(cpu);
            cpu->state = 0;
            continue;
        }
        bool hit = false;
        pthread_mutex_lock(&cpu_lock);
        bool done = cpu->pause_required || execute(cpu, true, &hit);
        pthread_mutex_unlock(&cpu_lock);
        if (!done || hit) {
            cpu->stopping = true;
            cpu->state |= STATE_BREAKPOINT_HIT | STATE_PAUSED;
            stop_all();
            cpu->stopping = false;
            *state_changed = 1;
            stand_still(cpu);
            cpu->state = 0;
            if (cpu->msr_hit) {
                cpu->msr_hit = false;
                pthread_mutex_lock(&cpu_lock);
                execute(cpu, false, &hit);
                pthread_mutex_unlock(&cpu_lock);
            }
        }
        usleep(30);
    }
    return NULL;
}

void guest_pause(void)
{
    stop_all();
}

static bool is_stopping(void)
{
    for (unsigned i = 0; i < vcpu_count; i++)
        if (vcpus[i].stopping)
            return true;
    return false;
}

void guest_resume(void)
{
    /*
     * Who has hit a breakpoint comes first: it spins for VirtualBox's CpuLock while this request still travels. Else it
     * would stop the VM again, behind the back of a client that has seen its hit already.
     */
    while (is_stopping())
        usleep(20);
    pthread_mutex_lock(&run_lock);
    for (unsigned i = 0; i < vcpu_count; i++) {
        unsigned long before = vcpus[i].ticks;
        vcpus[i].pause_required = false;
        while (before == vcpus[i].ticks && !vcpus[i].stopping)
            usleep(20);
    }
    pthread_mutex_unlock(&run_lock);
}

bool guest_single_step(unsigned vcpu)
{
    if (vcpu >= vcpu_count || !(vcpus[vcpu].state & STATE_PAUSED))
        return false;
    vcpus[vcpu].step_required = true;
    while (vcpus[vcpu].step_required)
        usleep(20);
    return true;
}

uint8_t guest_vcpu_state(unsigned vcpu)
{
    return vcpu < vcpu_count ? vcpus[vcpu].state : 0;
}

uint8_t guest_state(void)
{
    uint8_t paused = STATE_PAUSED, hit = 0;
    for (unsigned i = 0; i < vcpu_count; i++) {
        paused &= vcpus[i].state;
        hit |= vcpus[i].state & STATE_BREAKPOINT_HIT;
    }
    return paused ? paused | hit : 0;
}

int guest_set_breakpoint(unsigned vcpu, unsigned type, unsigned access, unsigned address_type, uint64_t address,
                         uint64_t length)
{
    if (vcpu >= vcpu_count || (type != SOFTHBP && type != PAGEHBP && type != MSRHBP && type != CRHBP))
        return -1;
    if (type == PAGEHBP && !(guest_state() & STATE_PAUSED))
        return -1;
    if (type == SOFTHBP || type == PAGEHBP) {
        if (address_type == 1)
            address = guest_translate(vcpu, address);
        if (!is_ram(address, 1))
            return -1;
    }
    if (type != PAGEHBP)
        length = 1;
    for (int i = 4 * vcpu_count; i < MOST_BREAKPOINTS; i++)
        if (type == SOFTHBP && breakpoints[i].active && breakpoints[i].type == SOFTHBP && breakpoints[i].address == address)
            return i;
    for (int i = 4 * vcpu_count; i < MOST_BREAKPOINTS; i++)
        if (!breakpoints[i].active) {
            breakpoints[i] = (struct breakpoint){true, type, type == SOFTHBP ? EXECUTE_BP : access, address, length};
            return i;
        }
    return -1;
}

/* The real one says true, whatever happened: it takes the function's bool for a status code. */
bool guest_unset_breakpoint(int id)
{
    if (id >= 0 && id < MOST_BREAKPOINTS && (guest_state() & STATE_PAUSED))
        breakpoints[id].active = false;
    return true;
}

/* What a test has asked for: this one is not served. */
static atomic_int not_served = -1;

void guest_serve_not(int id)
{
    not_served = id;
}

static bool is_served(unsigned id)
{
    return (int)id != not_served && (id <= 35 || (id >= 37 && id < REGISTERS));
}

uint64_t guest_read_register(unsigned vcpu, unsigned id)
{
    if (vcpu >= vcpu_count)
        return 0;
    return is_served(id) ? vcpus[vcpu].registers[id] : NOT_SERVED;
}

bool guest_write_register(unsigned vcpu, unsigned id, uint64_t value)
{
    if (vcpu >= vcpu_count || !is_served(id))
        return false;
    bool has_context = id <= RIP || (id >= CR0 && id <= CR4);
    /* Only vCPU 0 has a page of registers: VirtualBox follows a NULL pointer for the others. */
    if (has_context && vcpu != 0)
        abort();
    vcpus[vcpu].registers[id] = value;
    update_context(&vcpus[vcpu]);
    if (id == CR2)
        context[26] = value;
    return true;
}

uint64_t guest_read_msr(unsigned vcpu, uint64_t index)
{
    uint64_t *msr = vcpu < vcpu_count ? msr_of(vcpu, index) : NULL;
    return msr ? *msr : 0;
}

bool guest_write_msr(unsigned vcpu, uint64_t index, uint64_t value)
{
    uint64_t *msr = vcpu < vcpu_count ? msr_of(vcpu, index) : NULL;
    if (msr)
        *msr = value;
    return msr != NULL;
}

unsigned guest_vcpu_count(void)
{
    return vcpu_count;
}

uint64_t guest_memory_size(void)
{
    return ram_size;
}

void guest_start(unsigned count, uint64_t size, volatile uint8_t *changed, uint64_t *shared_context)
{
    vcpu_count = count < MOST_VCPUS ? count : MOST_VCPUS;
    ram_size = size;
    ram = malloc(size);
    state_changed = changed;
    context = shared_context;
    for (uint64_t i = 0; i < size; i++)
        ram[i] = (uint8_t)((i * 7 + (i >> 8) + (i >> 16) * 13) % 251);
    build_tables();
    memcpy(ram + CODE_PHYSICAL, program, sizeof program);
    memset(ram + DATA_PHYSICAL, 0, PAGE);
    for (unsigned i = 0; i < vcpu_count; i++) {
        struct vcpu *cpu = &vcpus[i];
        cpu->number = i;
        for (unsigned id = 0; id < REGISTERS; id++)
            cpu->registers[id] = 0x1000u * (id + 1) + i;
        cpu->registers[RBX] = 0xffffffff80000000ull + DATA_PHYSICAL + i * 8;
        cpu->registers[RIP] = CODE_VIRTUAL;
        cpu->registers[RFLAGS] = 0x202;
        cpu->registers[CR0] = 0x80050033;
        cpu->registers[CR3] = TABLES;
        cpu->registers[CR4] = 0x6f0;
        cpu->registers[CS] = 0x10;
        cpu->registers[SS] = 0x18;
        *msr_of(i, 0xc0000080) = 0xd01;
        *msr_of(i, 0x277) = 0x0007040600070406ull;
        *msr_of(i, 0xc0000100) = 0x7f0000001000ull + i;
        *msr_of(i, 0xc0000101) = 0xffff888000000000ull + i;
        pthread_create(&cpu->thread, NULL, run, cpu);
    }
}
