import type { BackendEvent, DescriptorTable, Injection, Reply, Segment } from '@microvmi/core/driver'
import type { Exception } from './exceptions.ts'
import { MSR } from './msrs.ts'

/** RFLAGS bits (Intel SDM volume 1, figure 3-8). */
export const CARRY = 1
export const RESERVED_FLAG = 2
export const ZERO = 0x40
export const TRAP = 0x100
export const INTERRUPTS = 0x200
export const RESUME = 0x1_0000

/** Segments of the guest's GDT: 64-bit code and flat data (Intel SDM volume 3A, section 3.4.5). */
export const KERNEL_CODE = segment(0x08, 0xa09b)
export const KERNEL_DATA = segment(0x10, 0xc093)
export const USER_CODE = segment(0x1b, 0xa0fb)
export const USER_DATA = segment(0x23, 0xc0f3)
export const TASK_SELECTOR = 0x28

const TABLE_LIMIT = 0x67

function segment(selector: number, attributes: number): Segment {
  return { selector, base: 0n, limit: 0xffff_ffff, attributes }
}

/** What one instruction is let do that would stop otherwise: how a vCPU gets past what it was stopped for. */
export interface Pass {
  /** It does not stop at a breakpoint of ours; the guest's own byte is executed. */
  breakpoint: boolean
  /** Its access to a descriptor table was reported. */
  descriptor: boolean
  /** Its int3 is the guest's own affair. */
  int3: boolean
  /** Guarded accesses, by page and kind. */
  readonly grants: { readonly frame: number; readonly access: number }[]
  /** These bytes are executed in place of what is in memory. */
  instruction: Uint8Array | undefined
  /** What it reads from memory is this. */
  data: Uint8Array | undefined
}

function emptyPass(): Pass {
  return { breakpoint: false, descriptor: false, int3: false, grants: [], instruction: undefined, data: undefined }
}

/** A watched access. */
export interface Hit {
  readonly armed: number
  readonly address: number
  readonly access: 'r' | 'w'
}

/** Why a vCPU waits, and how it goes on. */
export interface Stop {
  readonly event: BackendEvent
  /** Where the vCPU was stopped: when it is elsewhere at the answer, what it was about to do is dropped. */
  readonly rip: number
  /** `complete`: the instruction at hand ends with the answer. `repeat`: it starts again. */
  readonly manner: 'complete' | 'repeat'
  readonly finish: (parts: Reply) => void
}

/** The state of one vCPU. Virtual addresses are their low 48 bits, as a number. */
export class Vcpu {
  readonly number: number
  /** The sixteen general registers, 8 bytes each, little endian. */
  readonly general = new DataView(new ArrayBuffer(16 * 8))
  rip = 0
  flags = RESERVED_FLAG
  cs = KERNEL_CODE
  ss = KERNEL_DATA
  ds = KERNEL_DATA
  es = KERNEL_DATA
  fs = KERNEL_DATA
  gs = KERNEL_DATA
  ldt: Segment = { selector: 0, base: 0n, limit: 0, attributes: 0x82 }
  tr: Segment = { selector: 0, base: 0n, limit: TABLE_LIMIT, attributes: 0x8b }
  gdt: DescriptorTable = { base: 0n, limit: 0 }
  idt: DescriptorTable = { base: 0n, limit: 0 }
  cr0 = 0x8005_0033n
  cr2 = 0n
  cr3 = 0n
  /** The address in CR3. */
  root = 0
  /** PAE, PGE, OSFXSR, OSXSAVE. */
  cr4 = 0x4_02a0n
  cr8 = 0n
  xcr0 = 3n
  readonly debug = { dr0: 0n, dr1: 0n, dr2: 0n, dr3: 0n, dr6: 0xffff_0ff0n, dr7: 0x400n }
  readonly msrs = new Map<number, bigint>([
    [MSR.apicBase, 0xfee0_0800n],
    [MSR.sysenterCs, 0n],
    [MSR.sysenterEsp, 0n],
    [MSR.sysenterEip, 0n],
    [MSR.pat, 0x0007_0406_0007_0406n],
    // SCE, LME, LMA, NXE.
    [MSR.efer, 0xd01n],
    [MSR.star, 0x0013_0008_0000_0000n],
    [MSR.lstar, 0n],
    [MSR.cstar, 0n],
    [MSR.fmask, 0x4_7700n],
    [MSR.fsBase, 0n],
    [MSR.gsBase, 0n],
    [MSR.kernelGsBase, 0n],
    [MSR.tscAux, 0n],
  ])
  tscOffset = 0n

  /** Its time: instructions executed, those it could have while halted, and exceptions delivered. */
  clock = 0
  /** How far it may go now. */
  target = 0
  /** When its timer fires next. */
  nextTick = 0
  /** How much of its time it was halted. */
  idle = 0
  halted = false

  /** It has to look around before its next instruction: nothing of the following is set otherwise. */
  attention = false
  pass: Pass | undefined
  /** After the next instruction: a `singlestep` event, and back to a view. */
  step: { readonly view: number } | undefined
  /** On its way to the vCPU. */
  delivering: Exception | undefined
  /** From introspection, in order. */
  readonly injections: Injection[] = []
  /** Vectors that devices have asked for. */
  readonly interrupts: number[] = []
  nonMaskable = false
  /** Watchpoints that the instruction at hand has touched. */
  readonly hits: Hit[] = []
  /** Events to raise before the next instruction. */
  readonly after: (() => void)[] = []
  stop: Stop | undefined
  view = 0

  constructor(number: number) {
    this.number = number
  }

  /** 0 in the kernel, 3 in a process. */
  get privilege(): number {
    return this.cs.selector & 3
  }

  get tsc(): bigint {
    return BigInt.asUintN(64, BigInt(this.clock) + this.tscOffset)
  }

  low(register: number): number {
    return this.general.getUint32(register << 3, true)
  }

  high(register: number): number {
    return this.general.getUint32((register << 3) + 4, true)
  }

  /** Sets a general register from its halves. */
  set(register: number, low: number, high: number): void {
    this.general.setUint32(register << 3, low, true)
    this.general.setUint32((register << 3) + 4, high, true)
  }

  setWord(register: number, value: bigint): void {
    this.general.setBigUint64(register << 3, value, true)
  }

  word(register: number): bigint {
    return this.general.getBigUint64(register << 3, true)
  }

  /** Whether its next instruction does not stop at breakpoints of ours. */
  get pastBreakpoints(): boolean {
    return this.pass?.breakpoint === true || (this.flags & RESUME) !== 0
  }

  /** The pass of the next instruction, made when there is none. */
  passing(): Pass {
    this.attention = true
    this.pass ??= emptyPass()
    return this.pass
  }

  setPrivilege(privilege: number): void {
    this.cs = privilege === 0 ? KERNEL_CODE : USER_CODE
    this.ss = privilege === 0 ? KERNEL_DATA : USER_DATA
  }
}
