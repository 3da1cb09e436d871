/* vCPUs that execute the program, and stop as in the patched VirtualBox (icebox, VMM/VMMR3/VMEmt.cpp). */
#include "fdp-machine.h"

#include <string.h>
#include <unistd.h>

/* One vCPU at a time executes an instruction. */
static pthread_mutex_t cpu_lock = PTHREAD_MUTEX_INITIALIZER;
/* Stopping all and resuming all exclude each other: as VirtualBox's CpuLock. */
static pthread_mutex_t run_lock = PTHREAD_MUTEX_INITIALIZER;
static volatile uint8_t *state_changed;
uint64_t *context;

void update_context(struct vcpu *cpu)
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
        if (breakable && find_breakpoint(MSRHBP, WRITE_BP, r[RCX] & 0xffffffff, 1) >= 0) {
            cpu->msr_hit = true;
            return false;
        }
        if (msr_of(cpu->number, r[RCX] & 0xffffffff))
            *msr_of(cpu->number, r[RCX] & 0xffffffff) = (r[RDX] << 32) | (r[RAX] & 0xffffffff);
        r[RIP] += 2;
        r[RAX] = r[CR3] == TABLES ? TABLES + 0x10000 : TABLES;
        break;
    case 3:
        r[CR3] = r[RAX] & ~0xfffull;
        r[RIP] += 3;
        *hit = breakable && find_breakpoint(CRHBP, WRITE_BP, 3, 1) >= 0;
        break;
    case 6:
        if (breakable && find_breakpoint(PAGEHBP, READ_BP | WRITE_BP, data, 8) >= 0)
            return false;
        memcpy(&count, ram + data, 8);
        put(data, count + 1);
        r[RIP] += 3;
        r[RCX] = LSTAR;
        r[RAX] = 0x80200000u + ((count + 1) & 0xff);
        r[RDX] = 0xffffffffu;
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

void vcpus_run(volatile uint8_t *changed, uint64_t *shared_context)
{
    state_changed = changed;
    context = shared_context;
    for (unsigned i = 0; i < vcpu_count; i++)
        pthread_create(&vcpus[i].thread, NULL, run, &vcpus[i]);
}
