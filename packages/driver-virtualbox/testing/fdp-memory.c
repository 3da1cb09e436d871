/* The guest's memory, and its page tables. */
#include "fdp-machine.h"

#include <stdlib.h>
#include <string.h>

uint8_t *ram;
static uint64_t ram_size;

/* At CODE_VIRTUAL. */
static const uint8_t program[] = {
    0x90,                   /* nop */
    0x0f, 0x30,             /* wrmsr */
    0x0f, 0x22, 0xd8,       /* mov cr3, rax */
    0x48, 0xff, 0x03,       /* inc qword [rbx] */
    0xeb, 0xf5,             /* jmp to the nop */
};

bool is_ram(uint64_t address, uint64_t size)
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

void put(uint64_t address, uint64_t value)
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

void memory_make(uint64_t size)
{
    ram_size = size;
    ram = malloc(size);
    if (!ram)
        abort();
    for (uint64_t i = 0; i < size; i++)
        ram[i] = (uint8_t)((i * 7 + (i >> 8) + (i >> 16) * 13) % 251);
    build_tables();
    memcpy(ram + CODE_PHYSICAL, program, sizeof program);
    memset(ram + DATA_PHYSICAL, 0, PAGE);
}

uint64_t guest_memory_size(void)
{
    return ram_size;
}
