/**
 * Where Xen keeps a vCPU of an HVM or PVH guest when it saves it: struct hvm_hw_cpu and its neighbours
 * (xen/include/public/arch-x86/hvm/save.h), the same from Xen 4.11 to 4.20 in all that is read here.
 */
import type { DescriptorTable, RegisterChanges, RegisterName, Registers, Segment } from '@microvmi/core/driver'

/** HVM_SAVE_CODE of the records, and how long they are. */
export const CPU = { code: 2, length: 1032 } as const
/** 24 bytes up to 4.17, 32 from 4.18 on (x2apic_id behind the rest): room for the longer one serves both. */
export const LAPIC = { code: 5, length: 32 } as const
export const LAPIC_REGISTERS = { code: 6, length: 1024 } as const
export const MTRR = { code: 14, length: 240 } as const
/** CPU_XSAVE_CODE; with the largest area that there is. */
export const XSAVE = { code: 16, length: 16 * 1024 } as const

/** Members of struct hvm_hw_cpu, 64 bits each. */
const WORDS = {
  ...{ rax: 512, rbx: 520, rcx: 528, rdx: 536, rbp: 544, rsi: 552, rdi: 560, rsp: 568 },
  ...{ r8: 576, r9: 584, r10: 592, r11: 600, r12: 608, r13: 616, r14: 624, r15: 632, rip: 640, rflags: 648 },
  ...{ cr0: 656, cr2: 664, cr3: 672, cr4: 680, dr0: 688, dr1: 696, dr2: 704, dr3: 712, dr6: 720, dr7: 728 },
  ...{ sysenterCs: 920, sysenterEsp: 928, sysenterEip: 936, kernelGsBase: 944 },
  ...{ lstar: 960, star: 968, cstar: 976, fmask: 984, efer: 992 },
} as const
type Word = keyof typeof WORDS
const WORD_NAMES = Object.keys(WORDS) as Word[]

// Of cs, ds, es, fs, gs, ss, tr and ldt: selectors (32 bits each), limits (32), bases (64), access rights (32).
const SELECTORS = 736
const LIMITS = 768
const IDT_LIMIT = 800
const GDT_LIMIT = 804
const BASES = 808
const IDT_BASE = 872
const GDT_BASE = 880
const RIGHTS = 888

/** MSR_TSC_AUX. */
export const TSC_AUX_OFFSET = 1000

/** Local APIC, register TPR (Intel SDM volume 3A, table 11-1); CR8 is its bits 4 to 7. */
export const TASK_PRIORITY = 0x80

/** The other records of a vCPU; those that the guest does not have are left out. */
export interface FurtherRecords {
  readonly lapic: DataView | undefined
  readonly lapicRegisters: DataView | undefined
  readonly mtrr: DataView | undefined
  readonly xsave: DataView | undefined
}

/** A vCPU's registers. */
export function parseRegisters(cpu: DataView, further: FurtherRecords): Registers {
  const word = (name: Word) => cpu.getBigUint64(WORDS[name], true)
  const priority = further.lapicRegisters?.getUint32(TASK_PRIORITY, true)
  return {
    architecture: 'x86-64',
    // Written out: a literal is made several times faster than an object that grows name by name.
    rax: word('rax'),
    rbx: word('rbx'),
    rcx: word('rcx'),
    rdx: word('rdx'),
    rbp: word('rbp'),
    rsi: word('rsi'),
    rdi: word('rdi'),
    rsp: word('rsp'),
    r8: word('r8'),
    r9: word('r9'),
    r10: word('r10'),
    r11: word('r11'),
    r12: word('r12'),
    r13: word('r13'),
    r14: word('r14'),
    r15: word('r15'),
    rip: word('rip'),
    rflags: word('rflags'),
    cr0: word('cr0'),
    cr2: word('cr2'),
    cr3: word('cr3'),
    cr4: word('cr4'),
    dr0: word('dr0'),
    dr1: word('dr1'),
    dr2: word('dr2'),
    dr3: word('dr3'),
    dr6: word('dr6'),
    dr7: word('dr7'),
    sysenterCs: word('sysenterCs'),
    sysenterEsp: word('sysenterEsp'),
    sysenterEip: word('sysenterEip'),
    kernelGsBase: word('kernelGsBase'),
    lstar: word('lstar'),
    star: word('star'),
    cstar: word('cstar'),
    fmask: word('fmask'),
    efer: word('efer'),
    cs: segmentOf(cpu, 0),
    ds: segmentOf(cpu, 1),
    es: segmentOf(cpu, 2),
    fs: segmentOf(cpu, 3),
    gs: segmentOf(cpu, 4),
    ss: segmentOf(cpu, 5),
    tr: segmentOf(cpu, 6),
    ldt: segmentOf(cpu, 7),
    gdt: tableOf(cpu, GDT_BASE, GDT_LIMIT),
    idt: tableOf(cpu, IDT_BASE, IDT_LIMIT),
    cr8: priority === undefined ? undefined : BigInt((priority >>> 4) & 0xf),
    // struct hvm_hw_lapic: apic_base_msr; hvm_hw_mtrr: msr_pat_cr; hvm_hw_cpu_xsave: xfeature_mask, xcr0.
    apicBase: further.lapic?.getBigUint64(0, true),
    pat: further.mtrr?.getBigUint64(0, true),
    xcr0: further.xsave?.getBigUint64(8, true),
  }
}

/** CR4.OSXSAVE (Intel SDM volume 3A, section 2.5): without it XCR0 says nothing, and Xen has no record of it. */
const OSXSAVE = 1 << 18

/** Whether there is anything to know of XCR0. */
export function usesXsave(cpu: DataView): boolean {
  return (cpu.getUint32(WORDS.cr4, true) & OSXSAVE) !== 0
}

/** RFLAGS.IF (Intel SDM volume 1, figure 3-8). */
const INTERRUPTS = 1 << 9

/** Whether the vCPU takes interrupts. */
export function takesInterrupts(cpu: DataView): boolean {
  return (cpu.getUint32(WORDS.rflags, true) & INTERRUPTS) !== 0
}

/** struct hvm_hw_cpu_xsave: save_area, in which the header is behind 512 bytes (Intel SDM volume 1, section 13.4). */
const STATES_IN_USE = 24 + 512
/** Bits of XSTATE_BV: what x87 and SSE have. */
const LEGACY_STATES = 0b11

/** Whether a vCPU has anything in its vector registers that x87 and SSE do not have: AVX's part of them, or more. */
export function hasExtendedState(xsave: DataView): boolean {
  if (xsave.byteLength < STATES_IN_USE + 8) return false
  const [low, high] = [xsave.getUint32(STATES_IN_USE, true), xsave.getUint32(STATES_IN_USE + 4, true)]
  return (low & ~LEGACY_STATES) !== 0 || high !== 0
}

function segmentOf(cpu: DataView, index: number): Segment {
  // As in a VMCB: bits 0 to 7, then AVL, L, D/B and G in 8 to 11 (AMD APM volume 2, section 15.5.1).
  const rights = cpu.getUint32(RIGHTS + 4 * index, true)
  return {
    selector: cpu.getUint32(SELECTORS + 4 * index, true) & 0xffff,
    base: cpu.getBigUint64(BASES + 8 * index, true),
    limit: cpu.getUint32(LIMITS + 4 * index, true),
    attributes: (rights & 0xff) | ((rights & 0xf00) << 4),
  }
}

function tableOf(cpu: DataView, base: number, limit: number): DescriptorTable {
  return { base: cpu.getBigUint64(base, true), limit: cpu.getUint32(limit, true) }
}

/** What `changeRegisters` takes. */
export const WRITABLE: ReadonlySet<RegisterName> = new Set<RegisterName>(WORD_NAMES)

/** Writes changes into a record; only names of `WRITABLE`. */
export function changeRegisters(cpu: DataView, changes: RegisterChanges): void {
  for (const name of WORD_NAMES) {
    const value = changes[name]
    if (value !== undefined) cpu.setBigUint64(WORDS[name], value, true)
  }
}
