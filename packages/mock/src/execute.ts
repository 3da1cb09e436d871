import { Fault, GENERAL_PROTECTION } from './exceptions.ts'
import { RSP } from './instructions.ts'
import type { Mmu } from './mmu.ts'
import { CARRY, RESERVED_FLAG, type Vcpu, ZERO } from './vcpu.ts'

const TWO_32 = 2 ** 32
/** Flags that popf changes in the kernel and in a process: CF, ZF, TF; the kernel also IF. */
const USER_FLAGS = 0x141
const KERNEL_FLAGS = 0x341

/**
 * Executes the instruction at `code[at]`, which has as many bytes as the longest behind it, if it is one of those that move data, calculate or
 * jump. False for the others. The opcodes stand as numbers, so that the engine makes a jump table of them.
 *
 * Memory comes before registers in each: what throws has changed nothing.
 */
export function execute(vcpu: Vcpu, mmu: Mmu, code: DataView, at: number): boolean {
  const opcode = code.getUint8(at)
  const operand = code.getUint8(at + 1)
  const first = operand >> 4
  const second = operand & 15
  switch (opcode) {
    case 0x10: // mov register, 64 bits
      vcpu.set(second, code.getUint32(at + 2, true), code.getUint32(at + 6, true))
      vcpu.rip += 10
      return true
    case 0x11: // mov register, 32 bits
      vcpu.set(second, code.getUint32(at + 2, true), 0)
      vcpu.rip += 6
      return true
    case 0x12: // mov
      vcpu.set(first, vcpu.low(second), vcpu.high(second))
      vcpu.rip += 2
      return true
    case 0x14: // jmp register
      vcpu.rip = linear(vcpu, second, 0)
      return true
    case 0x15: // call register
      call(vcpu, mmu, linear(vcpu, second, 0), 2)
      return true
    case 0x20: // load8
      vcpu.set(first, mmu.load8(linear(vcpu, second, code.getInt16(at + 2, true))), 0)
      vcpu.rip += 4
      return true
    case 0x21: // load16
      vcpu.set(first, mmu.load16(linear(vcpu, second, code.getInt16(at + 2, true))), 0)
      vcpu.rip += 4
      return true
    case 0x22: // load32
      vcpu.set(first, mmu.load32(linear(vcpu, second, code.getInt16(at + 2, true))), 0)
      vcpu.rip += 4
      return true
    case 0x23: {
      // load64
      const low = mmu.load64(linear(vcpu, second, code.getInt16(at + 2, true)))
      vcpu.set(first, low, mmu.upper)
      vcpu.rip += 4
      return true
    }
    case 0x28: // store8
      mmu.store8(linear(vcpu, first, code.getInt16(at + 2, true)), vcpu.low(second))
      vcpu.rip += 4
      return true
    case 0x29: // store16
      mmu.store16(linear(vcpu, first, code.getInt16(at + 2, true)), vcpu.low(second))
      vcpu.rip += 4
      return true
    case 0x2a: // store32
      mmu.store32(linear(vcpu, first, code.getInt16(at + 2, true)), vcpu.low(second))
      vcpu.rip += 4
      return true
    case 0x2b: // store64
      mmu.store64(linear(vcpu, first, code.getInt16(at + 2, true)), vcpu.low(second), vcpu.high(second))
      vcpu.rip += 4
      return true
    case 0x30: // add, sub, and, or, xor, cmp of two registers
    case 0x31:
    case 0x32:
    case 0x33:
    case 0x34:
    case 0x35:
      calculate(vcpu, opcode & 7, first, vcpu.low(second), vcpu.high(second))
      vcpu.rip += 2
      return true
    case 0x38: // add, sub, and, or, xor, cmp of a register and a number
    case 0x39:
    case 0x3a:
    case 0x3b:
    case 0x3c:
    case 0x3d: {
      const value = code.getInt32(at + 2, true)
      calculate(vcpu, opcode & 7, second, value >>> 0, value < 0 ? TWO_32 - 1 : 0)
      vcpu.rip += 6
      return true
    }
    case 0x3e: // shl
      shiftLeft(vcpu, second, code.getUint8(at + 2) & 63)
      vcpu.rip += 3
      return true
    case 0x3f: // shr
      shiftRight(vcpu, second, code.getUint8(at + 2) & 63)
      vcpu.rip += 3
      return true
    case 0x50: // push
      push(vcpu, mmu, vcpu.low(second), vcpu.high(second))
      vcpu.rip += 2
      return true
    case 0x58: {
      // pop
      const low = mmu.load64(linear(vcpu, RSP, 0))
      const high = mmu.upper
      advance(vcpu, RSP, 8)
      vcpu.set(second, low, high)
      vcpu.rip += 2
      return true
    }
    case 0x90: // nop
      vcpu.rip += 1
      return true
    case 0x9c: // pushf
      push(vcpu, mmu, vcpu.flags, 0)
      vcpu.rip += 1
      return true
    case 0x9d: {
      // popf
      const changeable = vcpu.privilege === 0 ? KERNEL_FLAGS : USER_FLAGS
      const low = mmu.load64(linear(vcpu, RSP, 0))
      advance(vcpu, RSP, 8)
      vcpu.flags = (vcpu.flags & ~changeable) | (low & changeable) | RESERVED_FLAG
      vcpu.attention = true
      vcpu.rip += 1
      return true
    }
    case 0xc3: {
      // ret
      const low = mmu.load64(linear(vcpu, RSP, 0))
      const target = canonicalLow(low, mmu.upper)
      advance(vcpu, RSP, 8)
      vcpu.rip = target
      return true
    }
    case 0xe8: // call
      call(vcpu, mmu, vcpu.rip + 5 + code.getInt32(at + 1, true), 5)
      return true
    case 0xe9: // jmp
      vcpu.rip += 5 + code.getInt32(at + 1, true)
      return true
    case 0x0f:
      return branch(vcpu, code, at, operand)
    default:
      return false
  }
}

function branch(vcpu: Vcpu, code: DataView, at: number, condition: number): boolean {
  let taken: boolean
  switch (condition) {
    case 0x82: // jb
      taken = (vcpu.flags & CARRY) !== 0
      break
    case 0x83: // jae
      taken = (vcpu.flags & CARRY) === 0
      break
    case 0x84: // je
      taken = (vcpu.flags & ZERO) !== 0
      break
    case 0x85: // jne
      taken = (vcpu.flags & ZERO) === 0
      break
    default:
      return false
  }
  vcpu.rip += 6 + (taken ? code.getInt32(at + 2, true) : 0)
  return true
}

/** The low 48 bits of the address in a register, and a displacement. Throws #GP unless it is canonical. */
export function linear(vcpu: Vcpu, register: number, displacement: number): number {
  return canonicalLow(vcpu.low(register), vcpu.high(register)) + displacement
}

/** The low 48 bits of a word. Throws #GP unless it is canonical: bits 47 to 63 all alike. */
export function canonicalLow(low: number, high: number): number {
  const top = high >>> 15
  if (top !== 0 && top !== 0x1_ffff) throw new Fault(GENERAL_PROTECTION, 0)
  return (high & 0xffff) * TWO_32 + low
}

/** Adds a small number to a register, flags untouched. */
function advance(vcpu: Vcpu, register: number, by: number): void {
  const sum = vcpu.low(register) + by
  const carry = sum >= TWO_32 ? 1 : sum < 0 ? -1 : 0
  vcpu.set(register, sum >>> 0, (vcpu.high(register) + carry) >>> 0)
}

/** The word for an address of 48 bits, as push writes it: its upper half. */
export function upperHalf(virtual: number): number {
  const upper = Math.floor(virtual / TWO_32)
  return upper >= 0x8000 ? (upper | 0xffff_0000) >>> 0 : upper
}

function push(vcpu: Vcpu, mmu: Mmu, low: number, high: number): void {
  mmu.store64(linear(vcpu, RSP, -8), low, high)
  advance(vcpu, RSP, -8)
}

function call(vcpu: Vcpu, mmu: Mmu, target: number, length: number): void {
  const back = vcpu.rip + length
  push(vcpu, mmu, back >>> 0, upperHalf(back))
  vcpu.rip = target
}

/** add, sub, and, or, xor, cmp: 0 to 5. Sets the zero and the carry flag, as unsigned numbers of 64 bits. */
function calculate(vcpu: Vcpu, operation: number, register: number, otherLow: number, otherHigh: number): void {
  const ownLow = vcpu.low(register)
  const ownHigh = vcpu.high(register)
  let low = 0
  let high = 0
  let carry = false
  switch (operation) {
    case 0: {
      low = ownLow + otherLow
      high = ownHigh + otherHigh + (low >= TWO_32 ? 1 : 0)
      carry = high >= TWO_32
      break
    }
    case 1:
    case 5: {
      low = ownLow - otherLow
      high = ownHigh - otherHigh - (low < 0 ? 1 : 0)
      carry = high < 0
      break
    }
    case 2:
      low = ownLow & otherLow
      high = ownHigh & otherHigh
      break
    case 3:
      low = ownLow | otherLow
      high = ownHigh | otherHigh
      break
    default:
      low = ownLow ^ otherLow
      high = ownHigh ^ otherHigh
  }
  const zero = low >>> 0 === 0 && high >>> 0 === 0
  vcpu.flags = (vcpu.flags & ~(ZERO | CARRY)) | (zero ? ZERO : 0) | (carry ? CARRY : 0)
  if (operation !== 5) vcpu.set(register, low >>> 0, high >>> 0)
}

function shiftLeft(vcpu: Vcpu, register: number, by: number): void {
  const low = vcpu.low(register)
  const high = vcpu.high(register)
  if (by >= 32) vcpu.set(register, 0, (low << (by - 32)) >>> 0)
  else if (by > 0) vcpu.set(register, (low << by) >>> 0, ((high << by) | (low >>> (32 - by))) >>> 0)
}

function shiftRight(vcpu: Vcpu, register: number, by: number): void {
  const low = vcpu.low(register)
  const high = vcpu.high(register)
  if (by >= 32) vcpu.set(register, high >>> (by - 32), 0)
  else if (by > 0) vcpu.set(register, ((low >>> by) | (high << (32 - by))) >>> 0, high >>> by)
}
