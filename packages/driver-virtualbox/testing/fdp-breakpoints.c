/* The breakpoints that VirtualBox's server has: on an instruction, a page, an MSR, a control register. */
#include "fdp-machine.h"

struct breakpoint {
    bool active;
    unsigned type, access;
    uint64_t address, length;
};

static struct breakpoint breakpoints[MOST_BREAKPOINTS];

int find_breakpoint(unsigned type, unsigned access, uint64_t address, uint64_t length)
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
