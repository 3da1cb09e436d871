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

/**
 * A record as it was read. `words` are 64 bits each, in the processor's order, which is that of the record: dom0 is an
 * x86-64 too. Reading them so takes a tenth of what a DataView takes.
 */
export interface RecordRoom {
  readonly bytes: Uint8Array
  readonly view: DataView
  readonly words: BigUint64Array
}

/** Room for a record: `length` bytes, a multiple of 8. */
export function roomFor(length: number): RecordRoom {
  const buffer = new ArrayBuffer(length)
  return { bytes: new Uint8Array(buffer), view: new DataView(buffer), words: new BigUint64Array(buffer) }
}

/** Members of struct hvm_hw_cpu, in words from its start. */
const WORDS = {
  ...{ rax: 64, rbx: 65, rcx: 66, rdx: 67, rbp: 68, rsi: 69, rdi: 70, rsp: 71 },
  ...{ r8: 72, r9: 73, r10: 74, r11: 75, r12: 76, r13: 77, r14: 78, r15: 79, rip: 80, rflags: 81 },
  ...{ cr0: 82, cr2: 83, cr3: 84, cr4: 85, dr0: 86, dr1: 87, dr2: 88, dr3: 89, dr6: 90, dr7: 91 },
  ...{ sysenterCs: 115, sysenterEsp: 116, sysenterEip: 117, kernelGsBase: 118 },
  ...{ lstar: 120, star: 121, cstar: 122, fmask: 123, efer: 124 },
} as const
type Word = keyof typeof WORDS
const WORD_NAMES = Object.keys(WORDS) as Word[]

// Of cs, ds, es, fs, gs, ss, tr and ldt: selectors (32 bits each), limits (32), bases (64), access rights (32).
const SELECTORS = 736
const LIMITS = 768
const IDT_LIMIT = 800
const GDT_LIMIT = 804
const BASES = 808 / 8
const IDT_BASE = 872 / 8
const GDT_BASE = 880 / 8
const RIGHTS = 888

/** MSR_TSC_AUX. */
const TSC_AUX = 1000 / 8

/** Local APIC, register TPR (Intel SDM volume 3A, table 11-1); CR8 is its bits 4 to 7. */
export const TASK_PRIORITY = 0x80

/** The other records of a vCPU; those that the guest does not have are left out. */
export interface FurtherRecords {
  readonly lapic: RecordRoom | undefined
  readonly lapicRegisters: RecordRoom | undefined
  readonly mtrr: RecordRoom | undefined
  readonly xsave: RecordRoom | undefined
}

/** A vCPU's registers. */
export function parseRegisters(cpu: RecordRoom, further: FurtherRecords): Registers {
  const { words } = cpu
  const word = (name: Word) => words[WORDS[name]] ?? 0n
  const priority = further.lapicRegisters?.view.getUint32(TASK_PRIORITY, true)
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
    apicBase: further.lapic?.words[0],
    pat: further.mtrr?.words[0],
    xcr0: further.xsave?.words[1],
  }
}

/** CR4.OSXSAVE (Intel SDM volume 3A, section 2.5): without it XCR0 says nothing, and Xen has no record of it. */
const OSXSAVE = 1 << 18

/** Whether there is anything to know of XCR0. */
export function usesXsave(cpu: DataView): boolean {
  return (cpu.getUint32(8 * WORDS.cr4, true) & OSXSAVE) !== 0
}

/** RFLAGS.IF (Intel SDM volume 1, figure 3-8). */
const INTERRUPTS = 1 << 9

/** Whether the vCPU takes interrupts. */
export function takesInterrupts(cpu: DataView): boolean {
  return (cpu.getUint32(8 * WORDS.rflags, true) & INTERRUPTS) !== 0
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

/** MSR_TSC_AUX of a vCPU. */
export function tscAuxOf({ words }: RecordRoom): bigint {
  return words[TSC_AUX] ?? 0n
}

function segmentOf({ view, words }: RecordRoom, index: number): Segment {
  // As in a VMCB: bits 0 to 7, then AVL, L, D/B and G in 8 to 11 (AMD APM volume 2, section 15.5.1).
  const rights = view.getUint32(RIGHTS + 4 * index, true)
  return {
    selector: view.getUint32(SELECTORS + 4 * index, true) & 0xffff,
    base: words[BASES + index] ?? 0n,
    limit: view.getUint32(LIMITS + 4 * index, true),
    attributes: (rights & 0xff) | ((rights & 0xf00) << 4),
  }
}

function tableOf({ view, words }: RecordRoom, base: number, limit: number): DescriptorTable {
  return { base: words[base] ?? 0n, limit: view.getUint32(limit, true) }
}

/** What `changeRegisters` takes. */
export const WRITABLE: ReadonlySet<RegisterName> = new Set<RegisterName>(WORD_NAMES)

/** Writes changes into a record; only names of `WRITABLE`. */
export function changeRegisters(cpu: DataView, changes: RegisterChanges): void {
  for (const name of WORD_NAMES) {
    const value = changes[name]
    if (value !== undefined) cpu.setBigUint64(8 * WORDS[name], value, true)
  }
}
