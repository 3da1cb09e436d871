import {
  badArgument,
  type RegisterChanges,
  type RegisterName,
  type Registers,
  type Segment,
} from '@microvmi/core/driver'
import { REGISTER_NAMES } from './instructions.ts'
import { MSR } from './msrs.ts'
import { canonical, uncanonical } from './page-tables.ts'
import { RESERVED_FLAG, type Vcpu } from './vcpu.ts'

/** Registers that are model-specific ones under a name. */
const NAMED_MSRS = {
  efer: MSR.efer,
  star: MSR.star,
  lstar: MSR.lstar,
  cstar: MSR.cstar,
  fmask: MSR.fmask,
  sysenterCs: MSR.sysenterCs,
  sysenterEsp: MSR.sysenterEsp,
  sysenterEip: MSR.sysenterEip,
  kernelGsBase: MSR.kernelGsBase,
  pat: MSR.pat,
  apicBase: MSR.apicBase,
} as const

const CONTROLS = ['cr0', 'cr2', 'cr4', 'cr8', 'xcr0'] as const
const DEBUGS = ['dr0', 'dr1', 'dr2', 'dr3', 'dr6', 'dr7'] as const
const DATA_SEGMENTS = ['ds', 'es'] as const
const BASED_SEGMENTS = { fs: MSR.fsBase, gs: MSR.gsBase } as const

/** All that a vCPU has can be written. */
export const WRITABLE_REGISTERS: ReadonlySet<RegisterName> = new Set<RegisterName>([
  ...REGISTER_NAMES,
  'rip',
  'rflags',
  'cr3',
  ...CONTROLS,
  ...DEBUGS,
  'cs',
  'ss',
  ...DATA_SEGMENTS,
  'fs',
  'gs',
  'ldt',
  'tr',
  'gdt',
  'idt',
  ...namesOf(NAMED_MSRS),
  'tsc',
])

function namesOf<T extends object>(table: T): readonly (keyof T & string)[] {
  return Object.keys(table) as (keyof T & string)[]
}

/** A vCPU's registers now. */
export function readRegisters(vcpu: Vcpu): Registers {
  const word = (index: number): bigint => vcpu.word(index)
  const msr = (index: number): bigint => vcpu.msrs.get(index) ?? 0n
  return {
    architecture: 'x86-64',
    rax: word(0),
    rcx: word(1),
    rdx: word(2),
    rbx: word(3),
    rsp: word(4),
    rbp: word(5),
    rsi: word(6),
    rdi: word(7),
    r8: word(8),
    r9: word(9),
    r10: word(10),
    r11: word(11),
    r12: word(12),
    r13: word(13),
    r14: word(14),
    r15: word(15),
    rip: canonical(vcpu.rip),
    rflags: BigInt(vcpu.flags),
    cr0: vcpu.cr0,
    cr2: vcpu.cr2,
    cr3: vcpu.cr3,
    cr4: vcpu.cr4,
    cr8: vcpu.cr8,
    xcr0: vcpu.xcr0,
    ...vcpu.debug,
    cs: vcpu.cs,
    ds: vcpu.ds,
    es: vcpu.es,
    fs: { ...vcpu.fs, base: msr(MSR.fsBase) },
    gs: { ...vcpu.gs, base: msr(MSR.gsBase) },
    ss: vcpu.ss,
    ldt: vcpu.ldt,
    tr: vcpu.tr,
    gdt: vcpu.gdt,
    idt: vcpu.idt,
    efer: msr(MSR.efer),
    star: msr(MSR.star),
    lstar: msr(MSR.lstar),
    cstar: msr(MSR.cstar),
    fmask: msr(MSR.fmask),
    sysenterCs: msr(MSR.sysenterCs),
    sysenterEsp: msr(MSR.sysenterEsp),
    sysenterEip: msr(MSR.sysenterEip),
    kernelGsBase: msr(MSR.kernelGsBase),
    pat: msr(MSR.pat),
    apicBase: msr(MSR.apicBase),
    tsc: vcpu.tsc,
  }
}

/** Throws `BAD_ARGUMENT` for a value that a register cannot hold. */
export function checkRegisters(changes: RegisterChanges): void {
  if (changes.rip !== undefined && uncanonical(changes.rip) === undefined) {
    throw badArgument(`rip 0x${changes.rip.toString(16)} is not canonical: bits 48 to 63 repeat bit 47`)
  }
  if (changes.rflags !== undefined && changes.rflags >= 2n ** 22n) {
    throw badArgument('rflags has 22 bits')
  }
  if (changes.cr3 !== undefined && changes.cr3 >= 2n ** 52n) {
    throw badArgument('cr3 holds an address of at most 52 bits')
  }
}

/**
 * Changes registers; `checkRegisters` has looked at them. The caller tells the memory management what concerns it: a
 * new CR3, another privilege.
 */
export function writeRegisters(vcpu: Vcpu, changes: RegisterChanges): void {
  for (const [index, name] of REGISTER_NAMES.entries()) {
    const value = changes[name]
    if (value !== undefined) vcpu.setWord(index, value)
  }
  for (const name of CONTROLS) vcpu[name] = changes[name] ?? vcpu[name]
  for (const name of DEBUGS) vcpu.debug[name] = changes[name] ?? vcpu.debug[name]
  for (const name of namesOf(NAMED_MSRS)) {
    const value = changes[name]
    if (value !== undefined) vcpu.msrs.set(NAMED_MSRS[name], value)
  }
  for (const name of DATA_SEGMENTS) vcpu[name] = settled(changes[name], vcpu[name])
  for (const name of namesOf(BASED_SEGMENTS)) {
    const value = changes[name]
    vcpu[name] = settled(value, vcpu[name])
    if (value?.base !== undefined) vcpu.msrs.set(BASED_SEGMENTS[name], value.base)
  }
  vcpu.cs = settled(changes.cs, vcpu.cs)
  vcpu.ss = settled(changes.ss, vcpu.ss)
  vcpu.ldt = settled(changes.ldt, vcpu.ldt)
  vcpu.tr = settled(changes.tr, vcpu.tr)
  vcpu.gdt = changes.gdt ?? vcpu.gdt
  vcpu.idt = changes.idt ?? vcpu.idt
  vcpu.cr3 = changes.cr3 ?? vcpu.cr3
  if (changes.rip !== undefined) {
    vcpu.rip = uncanonical(changes.rip) ?? vcpu.rip
    vcpu.halted = false
  }
  if (changes.rflags !== undefined) {
    vcpu.flags = Number(changes.rflags) | RESERVED_FLAG
    vcpu.attention = true
  }
  if (changes.tsc !== undefined) vcpu.tscOffset = changes.tsc - BigInt(vcpu.clock)
}

/** The parts that are left out of a new segment stay. */
function settled(changed: Segment | undefined, old: Segment): Segment {
  if (changed === undefined) return old
  return {
    selector: changed.selector,
    base: changed.base ?? old.base,
    limit: changed.limit ?? old.limit,
    attributes: changed.attributes ?? old.attributes,
  }
}
