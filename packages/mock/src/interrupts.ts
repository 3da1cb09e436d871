import {
  type Exception,
  Fault,
  GENERAL_PROTECTION,
  PAGE_FAULT,
  UNDEFINED_OPCODE,
  WITH_ERROR_CODE,
} from './exceptions.ts'
import { canonicalLow, linear, upperHalf } from './execute.ts'
import { RSP } from './instructions.ts'
import { MSR } from './msrs.ts'
import { canonical, uncanonical } from './page-tables.ts'
import type { Processor } from './processor.ts'
import { INTERRUPTS, RESERVED_FLAG, RESUME, TRAP } from './vcpu.ts'

const TWO_32 = 2 ** 32
/** All that RFLAGS has: bits 0 to 21. */
const FLAGS = 0x3f_ffff
/** Bytes of a gate of the IDT (Intel SDM volume 3A, figure 6-8). */
const GATE = 16
const GATE_PRESENT = 0x80
/** Where the task-state segment has the kernel's stack pointer (Intel SDM volume 3A, figure 8-11). */
const TSS_RSP0 = 4

/** Calls the guest's handler: through its IDT, on the stack of its task-state segment, as x86-64 does. */
export function deliver(processor: Processor, exception: Exception): void {
  const { vcpu } = processor
  const { vector, errorCode } = exception
  if (vector * GATE + GATE - 1 > vcpu.idt.limit) throw new Fault(GENERAL_PROTECTION, vector * 8 + 2)
  const pushed = WITH_ERROR_CODE.has(vector) ? (errorCode ?? 0) : undefined
  enter(processor, () => handlerOf(processor, vector), vcpu.rip, pushed)
  if (vector === PAGE_FAULT && exception.cr2 !== undefined) vcpu.cr2 = canonical(exception.cr2)
}

/** syscall: unlike x86's, it calls the handler in LSTAR as an interrupt would be, so that iret returns from it. */
export function enterSystemCall(processor: Processor): void {
  const { vcpu } = processor
  const handler = uncanonical(vcpu.msrs.get(MSR.lstar) ?? 0n)
  if (vcpu.privilege === 0 || handler === undefined) throw new Fault(UNDEFINED_OPCODE)
  enter(processor, () => handler, vcpu.rip + 2, undefined)
}

/** iret: back to where the frame on the stack says (Intel SDM volume 3A, figure 6-9). */
export function returnFromInterrupt(processor: Processor): void {
  const { vcpu, mmu } = processor
  const frame = linear(vcpu, RSP, 0)
  const rip = canonicalLow(mmu.load64(frame), mmu.upper)
  const selector = mmu.load16(frame + 8)
  const flags = mmu.load32(frame + 16)
  const rspLow = mmu.load64(frame + 24)
  const rspHigh = mmu.upper
  vcpu.rip = rip
  vcpu.flags = (flags & FLAGS) | RESERVED_FLAG
  vcpu.set(RSP, rspLow, rspHigh)
  const user = (selector & 3) === 3
  vcpu.setPrivilege(user ? 3 : 0)
  mmu.setUser(user)
  // What comes back may have interrupts enabled, or be to be trapped.
  vcpu.attention = true
}

function handlerOf({ vcpu, mmu }: Processor, vector: number): number {
  const gate = (uncanonical(vcpu.idt.base) ?? 0) + vector * GATE
  if ((mmu.load8(gate + 5) & GATE_PRESENT) === 0) throw new Fault(GENERAL_PROTECTION, vector * 8 + 2)
  const low = mmu.load16(gate) + mmu.load16(gate + 6) * 2 ** 16
  return canonicalLow(low, mmu.load32(gate + 8))
}

/** Pushes the frame, then changes to the kernel: nothing is changed when a push throws. */
function enter(processor: Processor, target: () => number, back: number, errorCode: number | undefined): void {
  const { vcpu, mmu } = processor
  const fromUser = mmu.isUser
  mmu.setUser(false)
  try {
    const handler = target()
    const top = fromUser ? kernelStack(processor) : linear(vcpu, RSP, 0)
    // The stack is aligned to 16 bytes first (Intel SDM volume 3A, section 6.14.2).
    let at = top - (top % 16)
    const push = (low: number, high: number): void => {
      at -= 8
      mmu.store64(at, low, high)
    }
    push(vcpu.ss.selector, 0)
    push(vcpu.low(RSP), vcpu.high(RSP))
    push(vcpu.flags | (vcpu.pass?.breakpoint ? RESUME : 0), 0)
    push(vcpu.cs.selector, 0)
    push(back % TWO_32, upperHalf(back))
    if (errorCode !== undefined) push(errorCode, 0)
    vcpu.rip = handler
    vcpu.set(RSP, at % TWO_32, upperHalf(at))
  } catch (signal) {
    mmu.setUser(fromUser)
    throw signal
  }
  vcpu.flags &= ~(TRAP | INTERRUPTS | RESUME)
  vcpu.setPrivilege(0)
  vcpu.halted = false
}

function kernelStack({ vcpu, mmu }: Processor): number {
  const low = mmu.load64((uncanonical(vcpu.tr.base ?? 0n) ?? 0) + TSS_RSP0)
  return canonicalLow(low, mmu.upper)
}
