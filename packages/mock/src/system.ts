import { DR6_NONE, debugException } from './aftermath.ts'
import { anyRequest, complete } from './complete.ts'
import { cpuid } from './cpuid.ts'
import { accessTable, taskRegister } from './descriptor-tables.ts'
import { BREAKPOINT, Fault, GENERAL_PROTECTION, onlyKernel, UNDEFINED_OPCODE } from './exceptions.ts'
import { linear } from './execute.ts'
import { RAX, RCX } from './instructions.ts'
import { enterSystemCall, returnFromInterrupt } from './interrupts.ts'
import { MSR } from './msrs.ts'
import { canonical } from './page-tables.ts'
import { input, output } from './ports.ts'
import type { Processor } from './processor.ts'
import { controlRegister, inHalves, writeControl, writeMsr, writeXcr0 } from './system-registers.ts'
import { INTERRUPTS } from './vcpu.ts'

/** Executes an instruction that `execute` does not know: those that concern the system. */
export function executeSystem(processor: Processor, code: DataView, at: number): void {
  const { vcpu } = processor
  switch (code.getUint8(at)) {
    case 0xcc:
      breakpoint(processor, 1)
      break
    case 0xcd: {
      const vector = code.getUint8(at + 1)
      if (vector === BREAKPOINT) {
        breakpoint(processor, 2)
      } else {
        onlyKernel(vcpu)
        vcpu.rip += 2
        processor.raise(vector)
      }
      break
    }
    case 0xcf:
      onlyKernel(vcpu)
      returnFromInterrupt(processor)
      break
    case 0xe4:
      input(processor, code.getUint8(at + 1), 1)
      break
    case 0xe5:
      input(processor, code.getUint8(at + 1), 4)
      break
    case 0xe6:
      output(processor, code.getUint8(at + 1), 1)
      break
    case 0xe7:
      output(processor, code.getUint8(at + 1), 4)
      break
    case 0xf1:
      vcpu.rip += 1
      debugException(processor, DR6_NONE)
      break
    case 0xf4:
      onlyKernel(vcpu)
      vcpu.halted = true
      vcpu.rip += 1
      break
    case 0xfa:
      onlyKernel(vcpu)
      vcpu.flags &= ~INTERRUPTS
      vcpu.rip += 1
      break
    case 0xfb:
      onlyKernel(vcpu)
      vcpu.flags |= INTERRUPTS
      vcpu.attention = true
      vcpu.rip += 1
      break
    case 0x0f:
      twoBytes(processor, code.getUint8(at + 1), code.getUint8(at + 2))
      break
    default:
      throw new Fault(UNDEFINED_OPCODE)
  }
}

function twoBytes(processor: Processor, opcode: number, operand: number): void {
  const { vcpu } = processor
  const operation = operand >> 4
  const register = operand & 15
  switch (opcode) {
    case 0x00:
      if (operation > 3) throw new Fault(UNDEFINED_OPCODE)
      if (operation > 1) onlyKernel(vcpu)
      taskRegister(processor, operation, register)
      break
    case 0x01:
      byOperation(processor, operand, operation, register)
      break
    case 0x05:
      enterSystemCall(processor)
      break
    case 0x20:
      onlyKernel(vcpu)
      vcpu.setWord(register, controlRegister(vcpu, operation))
      vcpu.rip += 3
      break
    case 0x22:
      onlyKernel(vcpu)
      writeControl(processor, operation, vcpu.word(register))
      break
    case 0x30:
      onlyKernel(vcpu)
      writeMsr(processor)
      break
    case 0x31:
      inHalves(vcpu, vcpu.tsc, 2)
      break
    case 0x32: {
      onlyKernel(vcpu)
      const value = vcpu.low(RCX) === MSR.tsc ? vcpu.tsc : vcpu.msrs.get(vcpu.low(RCX))
      if (value === undefined) throw new Fault(GENERAL_PROTECTION, 0)
      inHalves(vcpu, value, 2)
      break
    }
    case 0x37:
      onlyKernel(vcpu)
      complete(processor, 'privcall', 2, { address: canonical(vcpu.rip) }, anyRequest)
      break
    case 0xa2:
      identify(processor)
      break
    default:
      throw new Fault(UNDEFINED_OPCODE)
  }
}

function byOperation(processor: Processor, operand: number, operation: number, register: number): void {
  const { vcpu, mmu } = processor
  switch (operand) {
    case 0xc1: {
      const number = vcpu.word(RAX)
      complete(processor, 'hypercall', 3, { number }, anyRequest, () => vcpu.set(RAX, 0, 0))
      return
    }
    case 0xd0:
      inHalves(vcpu, vcpu.xcr0, 3)
      return
    case 0xd1:
      onlyKernel(vcpu)
      writeXcr0(processor)
      return
  }
  if (operation === 7) {
    onlyKernel(vcpu)
    linear(vcpu, register, 0)
    mmu.flush()
    vcpu.rip += 3
    return
  }
  if (operation > 3) throw new Fault(UNDEFINED_OPCODE)
  if (operation > 1) onlyKernel(vcpu)
  accessTable(processor, operation, register)
}

/** int3: a breakpoint of ours, or the guest's own. */
function breakpoint(processor: Processor, length: number): void {
  const { vcpu, platform } = processor
  if (length === 1 && processor.meetsBreakpoint()) return
  if (!vcpu.pass?.int3) {
    const occurrence = { kind: 'int3', fields: { address: canonical(vcpu.rip), length } } as const
    platform.note(vcpu, occurrence)
    const armed = platform.watches.matching('int3', () => true)
    if (armed.length > 0) {
      platform.hold(vcpu, occurrence, armed, 'repeat', () => {
        vcpu.passing().int3 = true
      })
    }
  }
  vcpu.rip += length
  processor.raise(BREAKPOINT)
}

function identify(processor: Processor): void {
  const { vcpu, platform } = processor
  const leaf = vcpu.low(RAX)
  const subleaf = vcpu.low(RCX)
  const fields = { leaf, subleaf, length: 2 }
  complete(
    processor,
    'cpuid',
    2,
    fields,
    (request) => request.leaf === undefined || request.leaf === leaf,
    () => {
      for (const [index, value] of cpuid(leaf, vcpu.number, platform.vcpuCount).entries()) {
        // EAX, EBX, ECX, EDX.
        vcpu.set([0, 3, 1, 2][index] ?? 0, value, 0)
      }
    },
  )
}
