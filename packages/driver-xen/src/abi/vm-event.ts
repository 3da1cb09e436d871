/**
 * Requests and responses of the monitor's ring: xen/include/public/vm_event.h. What is not the same in all of Xen 4.11
 * to 4.20 is in versions.ts.
 */
import type { Registers, Segment } from '@microvmi/core/driver'
import type { Abi, EventRegisterLayout } from './versions.ts'

/** Members of vm_event_st, from the start of a slot. */
export const SLOT = {
  version: 0,
  flags: 4,
  reason: 8,
  vcpu: 12,
  view: 16,
  /** The union of what is particular to a reason. */
  particulars: 24,
  /** vm_event_regs_x86, or what is to be emulated. */
  data: 56,
} as const

/** VM_EVENT_FLAG_*. */
export const FLAG = {
  vcpuPaused: 1 << 0,
  emulate: 1 << 2,
  emulateNoWrite: 1 << 3,
  toggleSingleStep: 1 << 4,
  setEmulatedReadData: 1 << 5,
  deny: 1 << 6,
  view: 1 << 7,
  setRegisters: 1 << 8,
  setEmulatedInstruction: 1 << 9,
  getNextInterrupt: 1 << 10,
  fastSingleStep: 1 << 11,
} as const

/** VM_EVENT_REASON_*. */
export const REASON = {
  memoryAccess: 1,
  controlRegister: 4,
  msr: 5,
  breakpoint: 6,
  singleStep: 7,
  guestRequest: 8,
  debugException: 9,
  cpuid: 10,
  privilegedCall: 11,
  interrupt: 12,
  descriptor: 13,
  emulationUnimplemented: 14,
  io: 16,
} as const

/** Members of the particulars, from the start of a slot: struct vm_event_mem_access and its like. */
export const MEMORY_ACCESS = { gfn: 24, offset: 32, virtualAddress: 40, flags: 48 } as const
export const CONTROL_REGISTER = { index: 24, next: 32, old: 40 } as const
export const MSR = { index: 24, next: 32, old: 40 } as const
export const DESCRIPTOR = { table: 40, write: 41 } as const
/** struct vm_event_fast_singlestep, which a response has: the view to go back to. */
export const FAST_STEP = { view: 24 } as const
export const IO = { bytes: 24, port: 28, isIn: 30 } as const
export const CPUID = { length: 24, leaf: 28, subleaf: 32 } as const
/** struct vm_event_emul_read_data: the size, then the bytes. */
export const READ_DATA = { size: 56, bytes: 60 } as const
/** struct vm_event_emul_insn_data: 16 bytes, all of them to be filled. */
export const INSTRUCTION_DATA = { bytes: 56, length: 16 } as const

/** MEM_ACCESS_GLA_VALID: there is a virtual address. The lower three bits are the access. */
export const HAS_VIRTUAL_ADDRESS = 1 << 3

/** VM_EVENT_X86_CR0 and its like, by index. */
export const CONTROL_REGISTERS = ['cr0', 'cr3', 'cr4', 'xcr0'] as const
/** VM_EVENT_DESC_IDTR and its like, from 1 on. */
export const TABLES = ['idt', 'gdt', 'ldt', 'tr'] as const

/** The general registers in the order of struct vm_event_regs_x86, from its start, 8 bytes each. */
const GENERAL = [
  ...(['rax', 'rcx', 'rdx', 'rbx', 'rsp', 'rbp', 'rsi', 'rdi'] as const),
  ...(['r8', 'r9', 'r10', 'r11', 'r12', 'r13', 'r14', 'r15', 'rflags'] as const),
] as const
type General = (typeof GENERAL)[number]

const settable = new Map<Abi, ReadonlyMap<string, number>>()

/** Registers that a response can set (VM_EVENT_FLAG_SET_REGISTERS), with their offsets in a slot. */
export function settableRegisters(abi: Abi): ReadonlyMap<string, number> {
  let offsets = settable.get(abi)
  if (!offsets) {
    const general = GENERAL.map((name, index): [string, number] => [name, SLOT.data + 8 * index])
    offsets = new Map([...general, ['rip', ripOffset(abi)]])
    settable.set(abi, offsets)
  }
  return offsets
}

/** rip as it was when the request was made. */
export function ripOf(slot: DataView, abi: Abi): bigint {
  return slot.getBigUint64(ripOffset(abi), true)
}

function ripOffset({ registers }: Abi): number {
  return SLOT.data + registers.rip
}

/** What of a request's registers tells how addresses are translated. */
export function pagingRegistersOf(slot: DataView, { registers: layout }: Abi) {
  const word = (offset: number) => slot.getBigUint64(SLOT.data + offset, true)
  return { cr0: word(layout.cr0), cr3: word(layout.cr3), cr4: word(layout.cr4), efer: word(layout.efer) }
}

/**
 * The registers that come with a request: a fresh object. Of segments, what the interface version has. DR6, DR7 and
 * KERNEL_GS_BASE are left out: on AMD Xen 4.17 fills in zeros.
 */
export function registersOf(slot: DataView, { registers: layout }: Abi): Registers {
  const word = (offset: number) => slot.getBigUint64(SLOT.data + offset, true)
  const general = {} as Record<General, bigint>
  for (const [index, name] of GENERAL.entries()) general[name] = word(8 * index)
  const { gdt } = layout
  return {
    architecture: 'x86-64',
    ...general,
    ...{ rip: word(layout.rip), cr0: word(layout.cr0), cr2: word(layout.cr2), cr3: word(layout.cr3) },
    ...{ cr4: word(layout.cr4), efer: word(layout.efer), star: word(layout.star) },
    ...{ lstar: word(layout.lstar), sysenterCs: word(layout.sysenterCs), sysenterEsp: word(layout.sysenterEsp) },
    sysenterEip: word(layout.sysenterEip),
    gdt: gdt && { base: word(gdt.base), limit: slot.getUint16(SLOT.data + gdt.limit, true) },
    ...segmentsOf(slot, layout),
  }
}

const SEGMENTS = ['cs', 'ss', 'ds', 'es', 'fs', 'gs'] as const

/** From interface version 4 on: bases of cs to es in 32 bits, and limit and attributes of all six in a word. */
function segmentsOf(slot: DataView, layout: EventRegisterLayout): { [Name in (typeof SEGMENTS)[number]]?: Segment } {
  const { bases, segments, selectors, fsBase, gsBase } = layout
  if (bases === undefined || segments === undefined || selectors === undefined) return {}
  const found: { [Name in (typeof SEGMENTS)[number]]?: Segment } = {}
  for (const [index, name] of SEGMENTS.entries()) {
    // struct vm_event_x86_selector_reg: limit in 20 bits, not yet multiplied, then the rights in 12 bits.
    const word = slot.getUint32(SLOT.data + segments + 4 * index, true)
    const rights = word >>> 20
    const limit = word & 0xf_ffff
    const isInPages = (rights & 0x800) !== 0
    const base =
      name === 'fs' || name === 'gs'
        ? slot.getBigUint64(SLOT.data + (name === 'fs' ? fsBase : gsBase), true)
        : BigInt(slot.getUint32(SLOT.data + bases + 4 * index, true))
    found[name] = {
      selector: slot.getUint16(SLOT.data + selectors + 2 * index, true),
      base,
      limit: isInPages ? limit * 4096 + 4095 : limit,
      attributes: (rights & 0xff) | ((rights & 0xf00) << 4),
    }
  }
  return found
}
