/* The guest as the server sees it: its registers and MSRs, and how it starts. */
#include "fdp-machine.h"

#include <stdlib.h>

#define NOT_SERVED 0xBADBADBADBADBADBull

struct vcpu vcpus[MOST_VCPUS];
unsigned vcpu_count;

static const uint32_t msr_indices[MSRS] = {0x1b, 0x174, 0x175, 0x176, 0x277, 0xc0000080, 0xc0000081, 0xc0000082,
                                           0xc0000083, 0xc0000084, 0xc0000100, 0xc0000101, 0xc0000102, 0xc0000103};

uint64_t *msr_of(unsigned vcpu, uint64_t index)
{
    for (unsigned i = 0; i < MSRS; i++)
        if (msr_indices[i] == index)
            return &vcpus[vcpu].msrs[i];
    return NULL;
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
    if (vcpu >= vcpu_count)
        return false;
    if (!is_served(id))
        return true;
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

void guest_start(unsigned count, uint64_t size, volatile uint8_t *changed, uint64_t *shared_context)
{
    vcpu_count = count < MOST_VCPUS ? count : MOST_VCPUS;
    memory_make(size);
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
    }
    vcpus_run(changed, shared_context);
}
