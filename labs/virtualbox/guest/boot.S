/*
 * A guest in one boot sector: enters 64-bit mode with paging, fills memory with a known pattern, and then switches
 * for ever between two address spaces that map the same, and counts. Between two rounds it sleeps until the timer's
 * next interrupt: the interpreter would take a whole processor of the host.
 *
 *   0x9000   a 64-bit count of rounds, 0x9008 an 8-byte word that says that the pattern is written
 *   0x10000  the first address space's top table, 0x11000 the second's; 0x12000 and 0x13000 below both
 *   0x7df6   the virtual address of a round's first instruction
 *   0x20000  16 KiB of known content: byte i is (7 * i + (i >> 8)) & 0xff
 *
 * The first 128 MiB are mapped at 0 and at 0xffffffff80000000, in pages of 2 MiB.
 */
        .intel_syntax noprefix
        .equ    TOP_A, 0x10000
        .equ    TOP_B, 0x11000
        .equ    POINTERS, 0x12000
        .equ    DIRECTORY, 0x13000
        .equ    KNOWN, 0x20000
        .equ    KNOWN_LENGTH, 0x4000
        .equ    COUNT, 0x9000
        .equ    HIGH_HALF, 0xffffffff80000000

        .text
        .code16
        .globl  start
start:  cli
        cld
        xor     ax, ax
        mov     ds, ax
        mov     ss, ax
        mov     sp, 0x7c00
        in      al, 0x92                /* the A20 gate */
        or      al, 2
        and     al, 0xfe
        out     0x92, al
        mov     ax, TOP_A >> 4          /* zero the four tables */
        mov     es, ax
        xor     di, di
        xor     eax, eax
        mov     ecx, 0x1000
        rep     stosd
        mov     dword ptr es:[0x0000], POINTERS | 3
        mov     dword ptr es:[0x0ff8], POINTERS | 3
        mov     dword ptr es:[0x1000], POINTERS | 3
        mov     dword ptr es:[0x1ff8], POINTERS | 3
        mov     dword ptr es:[0x2000], DIRECTORY | 3
        mov     dword ptr es:[0x2ff0], DIRECTORY | 3
        mov     di, 0x3000
        mov     eax, 0x83
        mov     cx, 64
1:      mov     es:[di], eax
        add     eax, 0x200000
        add     di, 8
        loop    1b
        mov     eax, 0x20               /* CR4.PAE */
        mov     cr4, eax
        mov     eax, TOP_A
        mov     cr3, eax
        mov     ecx, 0xc0000080         /* EFER.LME */
        rdmsr
        or      eax, 0x100
        wrmsr
        mov     eax, 0x80010001         /* CR0.PG, WP, PE */
        mov     cr0, eax
        lgdt    [table_pointer]
        jmp     0x08:long_mode

        .code64
long_mode:
        mov     ax, 0x10
        mov     ds, ax
        mov     es, ax
        mov     ss, ax
        mov     rax, offset HIGH_HALF + high_half
        jmp     rax
high_half:
        lgdt    [high_pointer + HIGH_HALF]
        mov     rsp, offset HIGH_HALF + 0x7c00
        mov     edi, KNOWN
        xor     ecx, ecx
2:      imul    eax, ecx, 7
        mov     edx, ecx
        shr     edx, 8
        add     eax, edx
        stosb
        inc     ecx
        cmp     ecx, KNOWN_LENGTH
        jb      2b
        mov     rbx, offset HIGH_HALF + COUNT
        xor     eax, eax
        mov     [rbx], rax
        mov     rax, 0x6964616572            /* "readi" */
        mov     [rbx + 8], rax
        mov     r12, 0x1122334455667788      /* known registers, which the rounds leave alone */
        mov     r13d, 0x13131313
        mov     esi, TOP_A
        mov     edi, TOP_B
        mov     ecx, 0xc0000082              /* LSTAR, for the MSRs */
        mov     eax, 0x80001234
        mov     edx, 0xffffffff
        wrmsr
        lidt    [interrupt_pointer + HIGH_HALF]
        mov     al, 0xfe                     /* the timer's interrupt alone */
        out     0x21, al
        mov     al, 0x2e                     /* some 100 Hz, of 1193182 */
        out     0x40, al
        out     0x40, al
        sti
round:  mov     cr3, rdi
        xchg    rsi, rdi
        inc     qword ptr [rbx]
        hlt
        jmp     round
timer:  push    rax
        mov     al, 0x20                     /* end of interrupt */
        out     0x20, al
        pop     rax
        iretq

        .balign 8
table:  .quad   0
        .quad   0x00af9b000000ffff           /* 64-bit code */
        .quad   0x00cf93000000ffff           /* data */
table_pointer:
        .word   table_pointer - table - 1
        .long   table
high_pointer:
        .word   table_pointer - table - 1
        .quad   HIGH_HALF + table
        .balign 8
gate:   .word   timer, 0x0008, 0x8e00, 0x8000   /* to HIGH_HALF + timer */
        .long   0xffffffff, 0
        .equ    TIMER, 8                     /* where the firmware has put the timer's interrupt */
interrupt_pointer:
        .word   TIMER * 16 + 15
        .quad   HIGH_HALF + gate - TIMER * 16
        .org    502
        .quad   HIGH_HALF + round            /* for those who set a breakpoint */
        .word   0xaa55
