import type { RegisterChanges, Registers, Segment } from '@microvmi/core/driver'
import type { PagingRegisters } from '@microvmi/paging'
import { EVENT, EVENT_MSRS } from './layout.ts'

/** `struct kvm_regs` (asm/kvm.h): these, each in 64 bits, in this order. */
export const KVM_REGS = [
  ...(['rax', 'rbx', 'rcx', 'rdx', 'rsi', 'rdi', 'rsp', 'rbp'] as const),
  ...(['r8', 'r9', 'r10', 'r11', 'r12', 'r13', 'r14', 'r15', 'rip', 'rflags'] as const),
] as const

/** `struct kvm_sregs` (asm/kvm.h): where each part begins. */
const SREGS = {
  segments: { cs: 0, ds: 24, es: 48, fs: 72, gs: 96, ss: 120, tr: 144, ldt: 168 },
  tables: { gdt: 192, idt: 208 },
  words: { cr0: 224, cr2: 232, cr3: 240, cr4: 248, cr8: 256, efer: 264, apicBase: 272 },
} as const

/** MSRs that are asked for with the registers: those that events carry, by index (Intel SDM volume 4, table 2-2). */
export const ASKED_MSRS = {
  sysenterCs: 0x174,
  sysenterEsp: 0x175,
  sysenterEip: 0x176,
  pat: 0x277,
  star: 0xc000_0081,
  lstar: 0xc000_0082,
  cstar: 0xc000_0083,
  kernelGsBase: 0xc000_0102,
} as const

export type FurtherMsrs = { readonly [Name in keyof typeof ASKED_MSRS | 'efer']?: bigint }

/** The registers in a `struct kvm_regs` and a `struct kvm_sregs` at these offsets, and MSRs. */
export function decodeRegisters(view: DataView, regs: number, sregs: number, msrs: FurtherMsrs): Registers {
  const general = generalRegisters(view, regs)
  const segment = (offset: number) => decodeSegment(view, sregs + offset)
  const word = (offset: number) => view.getBigUint64(sregs + offset, true)
  // struct kvm_dtable: u64 base, u16 limit.
  const table = (offset: number) => ({ base: word(offset), limit: view.getUint16(sregs + offset + 8, true) })
  const { segments, tables, words } = SREGS
  return {
    architecture: 'x86-64',
    ...general,
    cr0: word(words.cr0),
    cr2: word(words.cr2),
    cr3: word(words.cr3),
    cr4: word(words.cr4),
    cr8: word(words.cr8),
    efer: word(words.efer),
    apicBase: word(words.apicBase),
    cs: segment(segments.cs),
    ds: segment(segments.ds),
    es: segment(segments.es),
    fs: segment(segments.fs),
    gs: segment(segments.gs),
    ss: segment(segments.ss),
    tr: segment(segments.tr),
    ldt: segment(segments.ldt),
    gdt: table(tables.gdt),
    idt: table(tables.idt),
    ...msrs,
  }
}

/** The registers that an event carries: its `struct kvmi_event` begins at `start`. */
export function eventRegisters(view: DataView, start: number): Registers {
  const word = (index: number) => view.getBigUint64(start + EVENT.msrs + 8 * index, true)
  const msrs: Record<string, bigint> = {}
  for (const [index, name] of EVENT_MSRS.entries()) msrs[name] = word(index)
  return decodeRegisters(view, start + EVENT.regs, start + EVENT.sregs, msrs)
}

/** What a `struct kvm_regs` at an offset holds. */
export function generalRegisters(view: DataView, offset: number): Record<(typeof KVM_REGS)[number], bigint> {
  const registers: Record<string, bigint> = {}
  for (const [index, name] of KVM_REGS.entries()) registers[name] = view.getBigUint64(offset + 8 * index, true)
  return registers as Record<(typeof KVM_REGS)[number], bigint>
}

/** Puts changes into a `struct kvm_regs`. */
export function changeRegisters(regs: DataView, changes: RegisterChanges): void {
  for (const [index, name] of KVM_REGS.entries()) {
    const value = changes[name]
    if (value !== undefined) regs.setBigUint64(8 * index, value, true)
  }
}

/** What decides over translation, in a `struct kvm_sregs`. */
export function pagingIn(view: DataView, sregs: number): PagingRegisters {
  const word = (offset: number) => view.getBigUint64(sregs + offset, true)
  const { cr0, cr3, cr4, efer } = SREGS.words
  return { cr0: word(cr0), cr3: word(cr3), cr4: word(cr4), efer: word(efer) }
}

/**
 * `struct kvm_segment`: u64 base, u32 limit (in bytes already), u16 selector, then a byte each of type, present, dpl,
 * db, s, l, g, avl, unusable.
 */
function decodeSegment(view: DataView, offset: number): Segment {
  const byte = (index: number) => view.getUint8(offset + index)
  const [type, present, dpl, db, s, l, g, avl] = [
    byte(14),
    byte(15),
    byte(16),
    byte(17),
    byte(18),
    byte(19),
    byte(20),
    byte(21),
  ]
  return {
    base: view.getBigUint64(offset, true),
    limit: view.getUint32(offset + 8, true),
    selector: view.getUint16(offset + 12, true),
    attributes:
      (type & 15) |
      ((s & 1) << 4) |
      ((dpl & 3) << 5) |
      ((present & 1) << 7) |
      ((avl & 1) << 12) |
      ((l & 1) << 13) |
      ((db & 1) << 14) |
      ((g & 1) << 15),
  }
}
